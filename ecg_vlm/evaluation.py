"""Whole data sets: score and ask every page, keep what was said, write the report.

Nothing heavy is imported before a model is really needed: judging kept scores again takes no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecg_vlm import control_pages
from ecg_vlm.calibrations import calibration_place, frozen_calibrations
from ecg_vlm.examples import gallery
from ecg_vlm.provenance import FILES, contamination, short_name, system_names, tuning, versions
from eval.controls import Control
from eval.evaluation import ANSWERS, Evaluation, read_evaluation, write_control, write_system
from eval.metrics.calibration import Calibration, fit, write_calibration
from eval.predictions import read_predictions
from eval.report.write import Report, write_report
from eval.storage import read_answer, read_answers, read_scores
from eval.types import Answer, LabelledRecords, System
from render.dataset.parquet import open_dataset
from render.dialogues.wording import OPEN_QUESTION
from render.errors import InputError
from render.sources.ptbxl import LABELS_DIFFER
from render.statements import STATEMENTS

if TYPE_CHECKING:
    from ecg_vlm.reader import Reader

_BATCH = 8
_MAX_NEW_TOKENS = 96

Show = Callable[[str, int, int], None]
"""Called with (what, done, in all)."""


@dataclass(frozen=True)
class Pages:
    """The held-out pages of a data set: rows with `image`, `statements`, `record_id`, `patient_id`.

    places: number of each row in the data set.
    unreadable: rows of pages that cannot be read (column `unreadable`); they are asked, but neither scored nor judged.
    """

    rows: Any
    folder: str
    places: tuple[int, ...]
    unreadable: Any = ()

    @property
    def record_ids(self) -> tuple[str, ...]:
        """Record ids in row order."""
        return tuple(self.rows["record_id"])

    def evaluated(self) -> LabelledRecords:
        """The labels, for the judge."""
        return LabelledRecords(
            self.record_ids,
            tuple(tuple(s) for s in self.rows["statements"]),
            self.folder,
            folds=tuple(self.rows["fold"]),
            patients=tuple(patient or "" for patient in self.rows["patient_id"]),
            references=tuple(
                _reference(told, report or "")
                for told, report in zip(self.rows["dialogues"], self.rows["report"], strict=True)
            ),
        )


def load_pages(folder: str, folds: Sequence[int] = (), limit: int = 0) -> Pages:
    """The pages to be judged. PTB-XL records whose labels differ between its versions are left out.

    Raises `InputError` when none is left or a record stands twice.
    """
    rows = open_dataset(folder)
    keep = [
        i
        for i, (source, record, fold) in enumerate(zip(rows["source"], rows["record_id"], rows["fold"], strict=True))
        if (not folds or fold in folds) and not (source == "ptbxl" and record in LABELS_DIFFER)
    ]
    if limit:
        keep = keep[:limit]
    why = rows["unreadable"] if "unreadable" in rows.column_names else [""] * len(rows)
    spoilt = [i for i in keep if why[i]]
    keep = [i for i in keep if not why[i]]
    if not keep and spoilt:
        raise InputError(f"{folder}: every page is unreadable; render pages that can be read beside them")
    if not keep:
        raise InputError(f"{folder}: no page in fold {', '.join(map(str, folds))}; choose other --folds")
    return Pages(rows.select(keep), folder, tuple(keep), rows.select(spoilt) if spoilt else ())


def evaluate_model(reader: Reader, name: str, pages: Pages, records: LabelledRecords, show: Show) -> System:
    """Score and ask every page with one model."""
    scores, answers = [], []
    decoding = {"do_sample": False, "max_new_tokens": _MAX_NEW_TOKENS}
    began = time.monotonic()
    for start in range(0, len(pages.rows), _BATCH):
        part = pages.rows[start : start + _BATCH]
        scores.append(reader.score_many(part["image"]))
        texts = reader.ask_many(part["image"], OPEN_QUESTION, max_new_tokens=_MAX_NEW_TOKENS)
        answers += [_answer(records, start + k, text, decoding) for k, text in enumerate(texts)]
        show(name, len(answers), len(pages.rows))
    seconds = time.monotonic() - began
    cost = {
        "pages": len(answers),
        "seconds": round(seconds, 1),
        "pages_per_second": round(len(answers) / seconds, 2),
        "per_page": f"{len(STATEMENTS)} scores and one answer",
        "device": _device(reader),
    }
    answers += _of_unreadable(reader, pages, decoding)
    return System(name, pages.record_ids, np.concatenate(scores), tuple(answers), reader.name, cost)


def _of_unreadable(reader: Reader, pages: Pages, decoding: Mapping[str, object]) -> Iterator[Answer]:
    for start in range(0, len(pages.unreadable), _BATCH):
        part = pages.unreadable[start : start + _BATCH]
        texts = reader.ask_many(part["image"], OPEN_QUESTION, max_new_tokens=_MAX_NEW_TOKENS)
        for record, why, text in zip(part["record_id"], part["unreadable"], texts, strict=True):
            yield read_answer(record, OPEN_QUESTION, text, decoding, (), unreadable=why)


def load_system(file: Path, name: str, records: LabelledRecords) -> System:
    """A system whose scores lie in a `.parquet` or `.csv` file: a CNN's, an earlier run's, a stranger's."""
    ids, matrix = read_predictions(file) if file.suffix == ".csv" else read_scores(file)
    row = {record: i for i, record in enumerate(ids)}
    missing = [record for record in records.record_ids if record not in row]
    if missing:
        raise InputError(
            f"{file}: no scores for {len(missing)} of the pages, record {missing[0]} first; predict them all"
        )
    order = [row[record] for record in records.record_ids]
    kept = file.with_name(ANSWERS)
    wanted = set(records.record_ids)
    answers = tuple(a for a in read_answers(kept) if a.record_id in wanted or a.unreadable) if kept.is_file() else ()
    return System(name, records.record_ids, matrix[order], answers, f"kept scores of {file}")


def evaluate(
    model: str,
    pages: Pages,
    out: Path,
    *,
    compare: Sequence[str] = (),
    force: bool = False,
    controls: bool = False,
    controls_source: str = "",
    calibration: Path | None = None,
    seed: int = 0,
    show: Show = lambda what, done, total: None,
) -> Report:
    """Judge `model` and the systems it is compared with on `pages`, and write the report into `out`.

    model, compare: "nano", run folders, hub ids, `scores.parquet` or CSV files; the model's difference to each is
    reported. controls: score altered pages too; controls_source: the records the pages were drawn from, for the
    controls that draw them again. calibration: of `model`; without it `calibration.json` in its run, or beside its
    scores, is taken if there is one. seed: of the bootstrap and of the shuffled pages.
    """
    records = pages.evaluated()
    names = system_names([model, *compare])
    checked = tuple(contamination(spec, records, force) for spec in names)
    frozen = frozen_calibrations(names, records, given=calibration, force=force)
    if controls and model.endswith(FILES):
        raise InputError(f"--controls: {model} is a file of scores; altered pages need the model itself")
    if controls_source and not controls:
        raise InputError("--controls-source: is for --controls; say that too")
    drawn = control_pages.altered_pages(pages, controls_source, seed) if controls else {}
    systems: list[System] = []
    done: tuple[Control, ...] = ()
    for place, (spec, name) in enumerate(names.items()):
        reader = None if spec.endswith(FILES) else _load(spec)
        folder = out / "compared" / name.replace("/", "-") if place else out
        if reader is None:
            systems.append(load_system(Path(spec), name, records))
        else:
            systems.append(evaluate_model(reader, name, pages, records, show))
        write_system(folder, systems[-1], records, frozen.get(name), place)
        if place == 0 and reader is not None:
            done = tuple(_control(reader, key, page, name, pages, show) for key, page in drawn.items())
    for control in done:
        write_control(out, control, records)
    title = f"{names[model]} on {len(pages.rows)} ECG pages"
    facts = _meta(model, pages, seed)
    evaluation = Evaluation(title, records, tuple(systems), frozen, done, checked, facts)
    return _report(out, evaluation, pages, seed)


def rejudge(path: Path, out: Path, *, pages: Pages | None = None, seed: int = 0) -> Report:
    """Make the report again from a report's folder, a `scores.parquet` or an `answers.jsonl`; no model, no torch.

    pages: of the labels and of the gallery; without them the labels in the files count and there is no gallery.
    """
    evaluation = read_evaluation(path, pages.evaluated() if pages else None)
    if out.resolve() != path.resolve():
        for place, system in enumerate(evaluation.systems):
            folder = out / "compared" / system.name.replace("/", "-") if place else out
            write_system(folder, system, evaluation.records, evaluation.calibrations.get(system.name), place)
        for control in evaluation.controls:
            write_control(out, control, evaluation.records)
    return _report(out, evaluation, pages, seed)


def calibrate(
    model: str,
    pages: Pages,
    out: Path | None = None,
    *,
    force: bool = False,
    show: Show = lambda what, done, total: None,
) -> tuple[Path, Calibration]:
    """Fit a model's calibration on validation pages and freeze it beside the model; returns the file and what is in it.

    out: the file; without it `calibration.json` in the run's folder or beside the file of scores.
    Raises `InputError` for records that the model was tuned on (unless forced), and when no place is known for it.
    """
    place = out or calibration_place(model)
    if place is None:
        raise InputError(f"{model}: has no folder to keep a calibration in; name a file with --out")
    records = pages.evaluated()
    contamination(model, records, force)
    name = short_name(model)
    if model.endswith(FILES):
        system = load_system(Path(model), name, records)
    else:
        scores = _score(_load(model), lambda i: pages.rows[i]["image"], len(pages.rows), name, show)
        system = System(name, pages.record_ids, scores)
    calibration = fit(system, records)
    write_calibration(place, calibration)
    return place, calibration


def _report(out: Path, evaluation: Evaluation, pages: Pages | None, seed: int) -> Report:
    return write_report(
        out,
        title=evaluation.title,
        records=evaluation.records,
        systems=evaluation.systems,
        compare=evaluation.compare,
        calibrations=evaluation.calibrations,
        controls=evaluation.controls,
        contamination=evaluation.contamination,
        examples=gallery(evaluation.systems, evaluation.records, pages.rows) if pages else (),
        meta=evaluation.meta,
        seed=seed,
    )


def _load(model: str) -> Reader:
    from ecg_vlm.reader import Reader

    return Reader.load(model)


def _control(
    reader: Reader, key: str, page: control_pages.AlteredPages, name: str, pages: Pages, show: Show
) -> Control:
    scores = _score(reader, page.image, len(pages.rows), f"control {key}", show)
    return Control(key, page.detail, System(name, pages.record_ids, scores))


def _score(reader: Reader, image: Callable[[int], Any], count: int, what: str, show: Show) -> NDArray[np.float64]:
    """(count, 71) scores of the images that `image` gives for each row."""
    parts = []
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        parts.append(reader.score_many([image(i) for i in range(start, stop)]))
        show(what, stop, count)
    return np.concatenate(parts)


def _answer(records: LabelledRecords, row: int, text: str, decoding: Mapping[str, object]) -> Answer:
    return read_answer(
        records.record_ids[row], OPEN_QUESTION, text, decoding, records.statements[row], records.references[row]
    )


def _reference(told: Sequence[Mapping[str, Any]], report: str) -> str:
    """The reference for an answer in words: the data set's own English report of the page, else the record's report."""
    for dialogue in told:
        if dialogue["task"] == "report" and dialogue.get("language") in (None, "", "en"):
            return str(dialogue["messages"][-1]["content"])
    return report


def _device(reader: Reader) -> str:
    import torch

    device = next(reader.model.parameters()).device
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} threads"
    )


def _meta(model: str, pages: Pages, seed: int) -> dict[str, object]:
    """Everything needed to make the report again."""
    meta: dict[str, object] = {
        "data": {
            "folder": pages.folder,
            "pages": len(pages.rows),
            "sources": ", ".join(sorted(set(pages.rows["source"]))),
        },
        "decoding": {"greedy": "yes", "max_new_tokens": _MAX_NEW_TOKENS, "question": OPEN_QUESTION},
        "scores": {
            "P(present)": "softmax over the first tokens of Yes and No",
            "statements": len(STATEMENTS),
            "seed": seed,
        },
        "versions": versions(),
    }
    return meta | ({"tuning": facts} if (facts := tuning(model)) else {})
