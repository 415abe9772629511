"""The folder of a report: what is kept in it, and how it is read back to judge again without a model.

report.html report.json          for people, for programs
scores.parquet answers.jsonl     the first system's, with the labels of the records
calibration.json                 its frozen calibration, if it has one
compared/NAME/...                the same three files of every system that it is compared with
controls/NAME/scores.parquet     its scores on altered pages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.controls import MEANINGS, Control
from eval.metrics.calibration import FILE, Calibration, read_calibration, write_calibration
from eval.storage import labels_of, read_answers, read_scores_file, write_answers, write_scores
from eval.types import LabelledRecords, System
from render.errors import InputError
from render.io import read_json_object

SCORES, ANSWERS, REPORT = "scores.parquet", "answers.jsonl", "report.json"


@dataclass(frozen=True)
class Evaluation:
    """All that a report is made from. The first system is the one that the others are compared with."""

    title: str
    records: LabelledRecords
    systems: tuple[System, ...]
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    contamination: tuple[str, ...] = ()
    meta: Mapping[str, object] = field(default_factory=dict)

    @property
    def compare(self) -> list[tuple[str, str]]:
        """The first system against every other, where both have scores."""
        scored = [system.name for system in self.systems if system.scores is not None]
        return [(scored[0], name) for name in scored[1:]] if scored[:1] == [self.systems[0].name] else []


def write_system(
    folder: Path, system: System, records: LabelledRecords, calibration: Calibration | None = None, place: int = 0
) -> None:
    """Write a system's scores, answers and calibration into `folder`. place: its number in the report."""
    about = {"name": system.name, "notes": system.notes, "cost": dict(system.cost), "place": place}
    if system.scores is not None:
        write_scores(folder / SCORES, records.record_ids, system.scores_of(records.record_ids), records, about)
    if system.answers:
        write_answers(folder / ANSWERS, system.answers)
    if calibration is not None:
        write_calibration(folder / FILE, calibration)


def write_control(folder: Path, control: Control, records: LabelledRecords) -> None:
    """Write the scores of a control into `folder/controls/NAME`."""
    about = {"name": control.system.name, "detail": control.detail}
    scores = control.system.scores_of(records.record_ids)
    write_scores(folder / "controls" / control.name / SCORES, records.record_ids, scores, records, about)


def read_evaluation(path: Path, records: LabelledRecords | None = None) -> Evaluation:
    """Read the folder of a report, or one `scores.parquet` or `answers.jsonl` (with its neighbour) alone.

    records: labels from elsewhere; without them those in the files count.
    Raises InputError when nothing is there, no labels are kept, or a file is damaged.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not any((folder / name).is_file() for name in (SCORES, ANSWERS)):
        raise InputError(f"{path}: no {SCORES} or {ANSWERS} there; name a report's folder or one of these files")
    if path.is_file() and path.name not in (SCORES, ANSWERS):
        raise InputError(f"{path}: must be named {SCORES} or {ANSWERS}")
    records = records or _labels(folder)
    first, _ = _system(folder, records, folder.resolve().name)
    report = read_report(folder / REPORT) if path.is_dir() and (folder / REPORT).is_file() else {}
    others = [_system(p, records, p.name) for p in _folders(path, "compared")]
    systems = (first, *(system for system, _ in sorted(others, key=lambda pair: pair[1])))
    places = {first.name: folder, **{s.name: p for (s, _), p in zip(others, _folders(path, "compared"), strict=True)}}
    return Evaluation(
        title=str(report.get("title", f"{first.name} on {len(records.record_ids)} records")),
        records=records,
        systems=systems,
        calibrations={n: read_calibration(p / FILE) for n, p in places.items() if (p / FILE).is_file()},
        controls=tuple(_control(p, records) for name in MEANINGS for p in _folders(path, "controls") if p.name == name),
        contamination=tuple(str(line) for line in _list(report, "checked")),
        meta=report["meta"] if isinstance(report.get("meta"), dict) else {},
    )


def read_report(path: Path) -> dict[str, Any]:
    """Read `report.json` as it lies. Raises InputError when it is none."""
    data = read_json_object(path, "name the folder of a report, or make it again with: ecg-vlm evaluate --from")
    if not isinstance(data.get("format"), int):
        raise InputError(f"{path}: not a report of ecg-vlm; make it again with: ecg-vlm evaluate --from")
    return data


def _labels(folder: Path) -> LabelledRecords:
    """The labels kept beside the scores, or in the answers where there are no scores."""
    if not (folder / SCORES).is_file():
        return labels_of(read_answers(folder / ANSWERS), str(folder / ANSWERS))
    kept = read_scores_file(folder / SCORES)
    if kept.records is not None:
        return kept.records
    raise InputError(f"{folder / SCORES}: holds no labels (column 'statements'); say which pages it is of with --data")


def _system(folder: Path, records: LabelledRecords, name: str) -> tuple[System, int]:
    """A kept system and its place in the report."""
    wanted = set(records.record_ids)
    answers = read_answers(folder / ANSWERS) if (folder / ANSWERS).is_file() else ()
    answers = tuple(answer for answer in answers if answer.record_id in wanted or answer.unreadable)
    if not (folder / SCORES).is_file():
        return System(name, records.record_ids, None, answers), 0
    kept = read_scores_file(folder / SCORES)
    about = kept.about
    cost = about.get("cost")
    system = System(
        str(about.get("name", name)),
        kept.record_ids,
        kept.scores,
        answers,
        str(about.get("notes", "")),
        cost if isinstance(cost, dict) else {},
    )
    place = about.get("place", 0)
    return system, place if isinstance(place, int) else 0


def _control(folder: Path, records: LabelledRecords) -> Control:
    kept = read_scores_file(folder / SCORES)
    name = str(kept.about.get("name", folder.name))
    return Control(folder.name, str(kept.about.get("detail", "")), System(name, kept.record_ids, kept.scores))


def _folders(path: Path, kind: str) -> Sequence[Path]:
    """The folders of compared systems, or of controls, in a report's folder; none for a file."""
    inside = sorted((path / kind).glob("*")) if path.is_dir() else []
    return [folder for folder in inside if (folder / SCORES).is_file() or (folder / ANSWERS).is_file()]


def _list(report: Mapping[str, Any], name: str) -> list[object]:
    value = report.get(name)
    return value if isinstance(value, list) else []
