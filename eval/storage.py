"""The files of an evaluation. A report is computed again from its folder, without a model and without the data set.

report.html report.json          for people, for programs
scores.parquet answers.jsonl     of the first system, with the labels of the records
calibration.json                 its frozen calibration, if it has one
compared/NAME/...                the same three files of every other system
controls/NAME/scores.parquet     scores of the first system on altered pages
.unfinished/                     results by batch, while a model is evaluated

`scores.parquet` has one probability per record and statement, `answers.jsonl` every question and answer with the
statements that the parser read. Predictions of other people are read from a CSV file, or from files in the same format.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.answer_files import RECORD_FIELDS, AnswerRow, answer_rows, first_of, id_text, matching_ids
from eval.metrics.calibration import CALIBRATION_FILE, Calibration, read_calibration, write_calibration
from eval.metrics.controls import CONTROL_MEANINGS, Control
from eval.metrics.judge import Evaluation
from eval.parser.parse import parse
from eval.prediction_files import (
    RECORD_IDS_SUFFIX,
    is_table_of_predictions,
    predictions_in,
    read_parquet,
    read_predictions,
    table_of,
)
from eval.types import ID, Answer, LabelledRecords, System, check_ids, check_scores
from render.errors import InputError
from render.io import (
    atomic_write,
    read_json_object,
    remove_folder,
    require_empty,
    require_same_request,
    write_json,
)
from render.statements import STATEMENTS, task_classes

_WORK_FOLDER = ".unfinished"
SCORES, ANSWERS, REPORT = "scores.parquet", "answers.jsonl", "report.json"
_REMAKE = "make the report again with: ecg-vlm evaluate --from"

_NUMBER_PREFIX = re.compile(r"\d+-")
_LINE_ENDS = "\x85\u2028\u2029"
_STATUSES = ("present", "absent", "uncertain")
_METADATA = b"ecg_vlm"
_LABELS = "statements"
_EXTRAS = {
    "folds": ("fold", pa.int32()),
    "patients": ("patient_id", pa.string()),
    "references": ("reference", pa.string()),
}


# --- the folder of a report


def write_system(
    folder: Path, system: System, records: LabelledRecords, calibration: Calibration | None = None, place: int = 0
) -> None:
    """Write a system's scores, answers and calibration into `folder`. place: its number in the report."""
    about = {
        "name": system.name,
        "notes": system.notes,
        "training": system.training,
        "cost": dict(system.cost),
        "place": place,
    }
    if system.has_scores:
        task, scores = next(iter(system.task_scores(records.record_ids).items()))
        write_scores(folder / SCORES, records.record_ids, scores, records, about, task_classes(task))
    if system.answers:
        write_answers(folder / ANSWERS, system.answers)
    if calibration is not None:
        write_calibration(folder / CALIBRATION_FILE, calibration)


def write_control(folder: Path, control: Control, records: LabelledRecords) -> None:
    """Write the scores of a control into `folder/controls/NAME`."""
    about = {"name": control.system.name, "detail": control.detail}
    scores = control.system.scores_of(records.record_ids)
    write_scores(folder / "controls" / control.name / SCORES, records.record_ids, scores, records, about)


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write all systems and controls into the folder of a report."""
    for place, system in enumerate(evaluation.systems):
        calibration = evaluation.calibrations.get(system.name)
        write_system(system_folder(folder, system.name, place), system, evaluation.records, calibration, place)
    for control in evaluation.controls:
        write_control(folder, control, evaluation.records)


def system_folder(folder: Path, name: str, place: int) -> Path:
    """The folder of system number `place` inside the folder of a report: its name, or its number and what of the name
    can stand in the name of a folder, so that no two are the same and none is elsewhere."""
    if place == 0:
        return folder
    safe = re.sub(r"[^\w.,+() -]", "-", name)[:80].strip(". ")
    return (
        folder / "compared" / (safe if safe and safe == name and not _NUMBER_PREFIX.match(name) else f"{place}-{safe}")
    )


def read_evaluation(path: Path, records: LabelledRecords | None = None) -> Evaluation:
    """Read the folder of a report, or one `scores.parquet` or `answers.jsonl` (with the other beside it) alone.

    Args:
        records: labels from elsewhere; without them those in the files count.

    Raises:
        InputError: When nothing is there, the files contain no labels, or a file is damaged.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not any((folder / name).is_file() for name in (SCORES, ANSWERS)):
        raise InputError(f"{path}: no {SCORES} or {ANSWERS} there; name a report's folder or one of these files")
    if path.is_file() and path.name not in (SCORES, ANSWERS):
        raise InputError(f"{path}: must be named {SCORES} or {ANSWERS}")
    records = records or _labels(folder)
    report = read_report(folder / REPORT) if path.is_dir() and (folder / REPORT).is_file() else {}
    facts = _facts_of_systems(folder, report)
    first, _ = _read_system(folder, records, facts.get(folder, {"name": folder.resolve().name}))
    folders = _subfolders(path, "compared")
    others = [_read_system(p, records, facts.get(p, {"name": p.name})) for p in folders]
    systems = (first, *(system for system, _ in sorted(others, key=lambda pair: pair[1])))
    homes = {first.name: folder, **{system.name: p for (system, _), p in zip(others, folders, strict=True)}}
    controls = {p.name: p for p in _subfolders(path, "controls")}
    contamination = report.get("checked")
    return Evaluation(
        title=str(report.get("title", f"{first.name} on {len(records.record_ids)} records")),
        records=records,
        systems=systems,
        calibrations={
            name: read_calibration(p / CALIBRATION_FILE)
            for name, p in homes.items()
            if (p / CALIBRATION_FILE).is_file()
        },
        controls=tuple(_read_control(controls[name]) for name in CONTROL_MEANINGS if name in controls),
        contamination=tuple(map(str, contamination)) if isinstance(contamination, list) else (),
        meta=report["meta"] if isinstance(report.get("meta"), dict) else {},
    )


def load_system(file: Path, name: str, records: LabelledRecords) -> System:
    """A system from a file of predictions or of answers: a CNN, an earlier run, a chat model, the work of other people.

    file: see `eval.prediction_files` and `eval.answer_files`. Answers in the folder of a `scores.parquet` come with it.

    Raises:
        InputError: When a record of `records` has no scores, or no answer is about one of them.
    """
    if is_answer_file(file):
        answers, others = answers_about(file, records)
        notes = f"answers from {file}" + (f"; {others} about other records left out" if others else "")
        return System(name, records.record_ids, None, answers, notes)
    predictions = read_predictions(file, records.record_ids)
    ids = matching_ids(predictions.record_ids, records.record_ids)
    row = {record_id: i for i, record_id in enumerate(ids)}
    missing = [record_id for record_id in records.record_ids if record_id not in row]
    if missing:
        raise InputError(
            f"{file}: no scores for {len(missing)} of the {records.noun}, record {missing[0]} first; predict them all"
        )
    order = [row[record_id] for record_id in records.record_ids]
    return System(
        name,
        records.record_ids,
        None if predictions.scores is None else predictions.scores[order],
        _answers_beside(file, records),
        "; ".join([f"scores from {file}", *predictions.notes]),
        class_scores={task: scores[order] for task, scores in predictions.class_scores.items()},
        training=str(read_scores_file(file).about.get("training", "")) if file.suffix.lower() == ".parquet" else "",
    )


def is_answer_file(file: Path) -> bool:
    """Whether a file holds answers in words, not predictions."""
    suffix = file.suffix.lower()
    return suffix in (".json", ".jsonl") or (suffix in (".csv", ".tsv") and not is_table_of_predictions(file))


def answers_about(file: Path, records: LabelledRecords) -> tuple[tuple[Answer, ...], int]:
    """The answers of a file about `records` or about unreadable pages, and the number of all others.

    Raises:
        InputError: When there is none about them.
    """
    answers = read_answers(file)
    ids = matching_ids([answer.record_id for answer in answers], records.record_ids)
    valid = dict(zip(records.record_ids, records.statements, strict=True))
    own = [
        replace(answer, record_id=record_id, statements=valid.get(record_id))  # so that they can be judged again
        for answer, record_id in zip(answers, ids, strict=True)
        if record_id in valid or answer.unreadable
    ]
    if not any(not answer.unreadable for answer in own):
        example = f"; an answer is about {ids[0]!r}, a record is {records.record_ids[0]!r}" if ids else ""
        raise InputError(f"{file}: no answer is about one of the {len(valid)} records of {records.dataset}{example}")
    return tuple(own), len(answers) - len(own)


def labels_in(file: Path) -> LabelledRecords | None:
    """The labels that a file itself holds: `statements` beside the answers, or the labels of a `scores.parquet`; None
    without any."""
    if is_answer_file(file):
        answers = read_answers(file)
        return labels_of(answers, str(file)) if any(a.statements is not None for a in answers) else None
    return read_scores_file(file).records if file.suffix.lower() == ".parquet" else None


def records_in(file: Path) -> tuple[str, ...]:
    """The records that a file is about, each once; () for an array that does not name them."""
    if is_answer_file(file):
        return tuple(dict.fromkeys(answer.record_id for answer in read_answers(file) if not answer.unreadable))
    if file.suffix.lower() == ".npy" and not file.with_suffix(RECORD_IDS_SUFFIX).is_file():
        return ()
    return read_predictions(file).record_ids


def read_report(path: Path) -> dict[str, Any]:
    """Read `report.json` without checking its fields. Raises InputError when the file is not a report."""
    data = read_json_object(path, f"name the folder of a report, or {_REMAKE}")
    if not isinstance(data.get("format"), int):
        raise InputError(f"{path}: not a report of ecg-vlm; {_REMAKE}")
    return data


def _labels(folder: Path) -> LabelledRecords:
    """The labels stored beside the scores, or in the answers where there are no scores."""
    if not (folder / SCORES).is_file():
        return labels_of(read_answers(folder / ANSWERS), str(folder / ANSWERS))
    file = read_scores_file(folder / SCORES)
    if file.records is not None:
        return file.records
    raise InputError(
        f"{folder / SCORES}: has no labels (column {_LABELS!r}); name the data set of its pages with --data"
    )


def _facts_of_systems(folder: Path, report: Mapping[str, Any]) -> dict[Path, Mapping[str, Any]]:
    """Folder of each system -> its "name", "notes", "training" and "place", as the report states them: the only place
    for those of a system that answers in words."""
    systems = report.get("systems")
    facts = [system for system in systems if isinstance(system, dict)] if isinstance(systems, list) else []
    return {
        system_folder(folder, str(system.get("name", "")), place): {"name": folder.name, **system, "place": place}
        for place, system in enumerate(facts)
    }


def _read_system(folder: Path, records: LabelledRecords, facts: Mapping[str, Any]) -> tuple[System, int]:
    """A system and its place in the report. facts: of `_facts_of_systems`, for what the scores do not say."""
    answers = _answers_beside(folder / SCORES, records)
    has_scores = (folder / SCORES).is_file()
    file = read_scores_file(folder / SCORES) if has_scores else ScoresFile(records.record_ids, None)
    about = {**facts, **file.about}
    cost = about.get("cost")
    system = System(
        str(about["name"]),
        file.record_ids,
        file.scores,
        answers,
        str(about.get("notes", "")),
        cost if isinstance(cost, dict) else {},
        file.class_scores,
        str(about.get("training", "")),
    )
    place = about.get("place", 0)
    return system, place if isinstance(place, int) else 0


def _answers_beside(file: Path, records: LabelledRecords) -> tuple[Answer, ...]:
    """The answers in the same folder as a file of scores: about `records` and about unreadable pages; () without."""
    path = file.with_name(ANSWERS)
    own_ids = set(records.record_ids)
    answers = read_answers(path) if path.is_file() else ()
    return tuple(answer for answer in answers if answer.record_id in own_ids or answer.unreadable)


def _read_control(folder: Path) -> Control:
    file = read_scores_file(folder / SCORES)
    name = str(file.about.get("name", folder.name))
    return Control(folder.name, str(file.about.get("detail", "")), System(name, file.record_ids, file.scores))


def _subfolders(path: Path, kind: str) -> Sequence[Path]:
    """The folders of compared systems, or of controls, in a report's folder; none for a file."""
    inside = sorted((path / kind).glob("*")) if path.is_dir() else []
    return [folder for folder in inside if (folder / SCORES).is_file() or (folder / ANSWERS).is_file()]


# --- while a model is evaluated


class BatchResults:
    """Results of batches in a file, one JSON object a line, so that a killed evaluation goes on behind the last one.

    path: the file; None for results that are not stored.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._results = [] if path is None else _whole_lines(path)
        self._next = 0

    def next(self, rows: int, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of the next batch, which has so many rows: from the file, or computed and written there.

        The result has to survive JSON; numbers do to the last digit.
        """
        if not self.stored([rows]):
            self.add(rows, compute())
        self._next += 1
        return self._results[self._next - 1]

    def stored(self, sizes: Sequence[int]) -> int:
        """How many of the next batches are there; one of another size is dropped, with those behind it."""
        done = self._results[self._next :]
        same = sum(1 for _ in takewhile(lambda pair: pair[0].get("rows") == pair[1], zip(done, sizes, strict=False)))
        if same < min(len(done), len(sizes)):
            del self._results[self._next + same :]
            self._write("w", self._results)
        return same

    def add(self, rows: int, result: Mapping[str, Any]) -> None:
        """Store the result of the first batch, of so many rows, that is not stored yet."""
        self._results.append({"rows": rows, **result})
        self._write("a", self._results[-1:])

    def _write(self, mode: str, results: Sequence[Mapping[str, Any]]) -> None:
        if self._path is not None:
            with self._path.open(mode, encoding="utf-8") as file:
                file.writelines(json.dumps(result) + "\n" for result in results)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of `BatchResults` up to the first line that is not whole, which is cut off the file."""
    results: list[dict[str, Any]] = []
    if not path.is_file():
        return results
    with path.open("rb+") as file:
        whole = 0
        for line in file:
            try:
                result = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(result, dict):
                break
            results.append(result)
            whole += len(line)
        file.truncate(whole)
    return results


class UnfinishedEvaluation:
    """The folder `.unfinished` of a report: the request, and the results of batches until the report is written.

    resume: go on with the results that are there, if it was the same request; otherwise `out` has to be empty.

    Raises:
        InputError: For another request, and for a folder that is not empty.
    """

    def __init__(self, out: Path, request: Mapping[str, Any], *, resume: bool) -> None:
        self._folder, self._request = out / _WORK_FOLDER, request
        self._marker = self._folder / "request.json"
        if resume and self._marker.is_file():
            require_same_request(out, read_json_object(self._marker, "name a new folder"), request)
        else:
            shutil.rmtree(self._folder, ignore_errors=True)

    def begin(self) -> None:
        """Write the request down; before anything else is written into the folder of the report."""
        if not self._marker.is_file():
            write_json(self._marker, self._request)

    def results(self, name: str) -> BatchResults:
        """The results of one piece of work. name: part of the file's name."""
        self.begin()
        return BatchResults(self._folder / f"{name}.jsonl")

    def remove(self) -> None:
        """The report is written."""
        remove_folder(self._folder)


def require_new_report(out: Path, *, resume: bool) -> None:
    """Refuse a folder that is not empty. With `resume` an evaluation may be there that was interrupted or has finished;
    without, the message names the option."""
    if not (out / _WORK_FOLDER).is_dir():
        if not (resume and is_report(out)):
            require_empty(out)
    elif not resume:
        raise InputError(f"{out}: an evaluation was interrupted there; go on with --resume, or name a new folder")


def is_report(out: Path) -> bool:
    """Whether a folder holds a report that is finished."""
    return (out / REPORT).is_file() and not (out / _WORK_FOLDER).is_dir()


# --- scores.parquet


@dataclass(frozen=True)
class ScoresFile:
    """A `scores.parquet`: ids and probabilities in row order; the records' labels where the file has them.

    Attributes:
        scores: as of `System`.
        class_scores: as of `System`.
        about: further facts about the system: "name", "notes", "cost", "place".
    """

    record_ids: tuple[str, ...]
    scores: NDArray[np.float64] | None
    records: LabelledRecords | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    class_scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def write_scores(
    path: Path,
    record_ids: Sequence[str],
    scores: NDArray[np.floating],
    records: LabelledRecords | None = None,
    about: Mapping[str, object] | None = None,
    classes: Sequence[str] = tuple(STATEMENTS),
) -> None:
    """Write `scores.parquet`: `record_id` and one float64 column per class that is scored; whole or not at all.

    Args:
        scores: (n, c) probabilities; a column of NaN is left out.
        classes: names of the c columns, the statement codes if not given.
        records: their labels, in the same order, to be stored beside the scores.
        about: see `ScoresFile`.

    Raises:
        InputError: For a duplicate id or a value outside [0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    check_ids(record_ids, None, str(path))
    check_scores(values, record_ids, str(path), classes)
    columns: dict[str, object] = {ID: pa.array(list(record_ids), pa.string())}
    columns.update({name: values[:, i] for i, name in enumerate(classes) if not np.isnan(values[:, i]).all()})
    metadata: dict[str, object] = {"about": dict(about or {})}
    if records is not None:
        if records.record_ids != tuple(record_ids):
            raise ValueError("the labels are of other records than the scores, or in another order")
        columns[_LABELS] = pa.array([list(codes) for codes in records.statements], pa.list_(pa.string()))
        for name, (column, kind) in _EXTRAS.items():
            if getattr(records, name):
                columns[column] = pa.array(list(getattr(records, name)), kind)
        metadata |= {"dataset": records.dataset, "noun": records.noun}
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})
    with atomic_write(path) as partial:
        pq.write_table(table, partial)


def read_scores(path: Path, valid_ids: Iterable[str] | None = None) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read the scores of statements in a `scores.parquet`: (record ids, (n, 71) probabilities), in the file's order.

    Args:
        valid_ids: the records of the evaluation; any other id is an error. Further columns are ignored; a statement
            without a column has NaN.

    Raises:
        InputError: That names the file and the column, record or value at fault.
    """
    predictions = read_predictions(path)
    check_ids(predictions.record_ids, valid_ids, str(path))
    if predictions.scores is None:
        raise InputError(f"{path}: has scores of classes, not of statements")
    return predictions.record_ids, predictions.scores


def read_scores_file(path: Path) -> ScoresFile:
    """Read `scores.parquet` with the labels and facts that are stored in it; see `read_scores` for errors."""
    table = read_parquet(path)
    predictions = predictions_in(table_of(table, path), path)
    ids = predictions.record_ids
    try:
        metadata = json.loads((table.schema.metadata or {}).get(_METADATA, b"{}"))
        about = dict(metadata.get("about", {}))
    except (ValueError, TypeError, AttributeError) as error:
        where = f"{path}: metadata {_METADATA.decode()!r}"
        raise InputError(f"{where} is damaged ({error}); score the pages again") from error
    if _LABELS not in table.column_names:
        return ScoresFile(ids, predictions.scores, None, about, predictions.class_scores)
    labels = tuple(_codes(codes, f"{path}: column {_LABELS!r}") for codes in table[_LABELS].to_pylist())
    extras = {
        name: tuple(table[column].to_pylist()) for name, (column, _) in _EXTRAS.items() if column in table.column_names
    }
    for name in {"patients", "references"} & extras.keys():
        extras[name] = tuple("" if value is None else str(value) for value in extras[name])
    noun, dataset = str(metadata.get("noun", "held-out pages")), str(metadata.get("dataset", path))
    records = LabelledRecords(ids, labels, dataset, noun, **extras)
    return ScoresFile(ids, predictions.scores, records, about, predictions.class_scores)


# --- answers.jsonl


def read_answer(
    record_id: str,
    question: str,
    answer: str,
    decoding: Mapping[str, object] | None = None,
    statements: tuple[str, ...] | None = None,
    reference: str = "",
    unreadable: str = "",
) -> Answer:
    """An `Answer` with the statements that `eval.parser.parse.parse` reads in the text."""
    statuses = parse(answer, question)
    return Answer(
        record_id,
        question,
        answer,
        statuses.present,
        statuses.absent,
        statuses.uncertain,
        dict(decoding or {}),
        statements,
        reference,
        unreadable,
    )


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write `answers.jsonl`, one JSON object a line in UTF-8; whole or not at all."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for answer in answers:
            row = {
                ID: answer.record_id,
                "question": answer.question,
                "answer": answer.answer,
                "parsed": {status: list(getattr(answer, status)) for status in _STATUSES},
                "decoding": dict(answer.decoding),
                **({_LABELS: list(answer.statements)} if answer.statements is not None else {}),
                **({"reference": answer.reference} if answer.reference else {}),
                **({"unreadable": answer.unreadable} if answer.unreadable else {}),
            }
            line = json.dumps(row, ensure_ascii=False)
            for end in _LINE_ENDS:  # legal in JSON, but many readers would split the line there
                line = line.replace(end, f"\\u{ord(end):04x}")
            file.write(line + "\n")


def read_answers(path: Path, valid_ids: Iterable[str] | None = None) -> tuple[Answer, ...]:
    """Read a file of answers (`eval.answer_files`); a row without "parsed" is parsed here.

    Raises:
        InputError: That names the file, the line and the field at fault.
    """
    valid = None if valid_ids is None else set(valid_ids)
    answers = [_answer(row) for row in answer_rows(str(path))]
    for answer in answers:
        if valid is not None and answer.record_id not in valid and not answer.unreadable:
            raise InputError(f"{path}: {ID} {answer.record_id!r} is not among the evaluated records")
    return tuple(answers)


def labels_of(answers: Sequence[Answer], where: str) -> LabelledRecords:
    """The records of a file of answers, from the labels in its lines.

    Raises:
        InputError: When a line has none, or two lines about a record disagree.
    """
    labels: dict[str, tuple[str, ...]] = {}
    references: dict[str, str] = {}
    for answer in answers:
        if answer.unreadable:
            continue
        if answer.statements is None:
            raise InputError(
                f"{where}: {ID} {answer.record_id!r} has no field {_LABELS!r}; put its true codes there, "
                "or copy the evaluation's scores.parquet beside the file"
            )
        if labels.setdefault(answer.record_id, answer.statements) != answer.statements:
            raise InputError(f"{where}: {ID} {answer.record_id!r} has two different {_LABELS!r}; keep the right ones")
        references.setdefault(answer.record_id, answer.reference)
    if not labels:
        raise InputError(f"{where}: contains no answer about a readable page, so there is nothing to judge")
    return LabelledRecords(tuple(labels), tuple(labels.values()), where, references=tuple(references.values()))


def _answer(answer: AnswerRow) -> Answer:
    row, where = answer.fields, answer.where
    record_id = first_of(row, RECORD_FIELDS)
    if not isinstance(record_id, str | int | float) or not id_text(record_id):
        raise InputError(
            f"{where}: field {ID!r} (or {', '.join(RECORD_FIELDS[1:])}) is {record_id!r:.60}, expected text"
        )
    decoding, reference = row.get("decoding", {}), row.get("reference", "")
    if not isinstance(decoding, dict):
        raise InputError(f"{where}: field 'decoding' is {decoding!r:.60}, expected an object")
    if not isinstance(reference, str):
        raise InputError(f"{where}: field 'reference' is {reference!r:.60}, expected text")
    unreadable = row.get("unreadable", "")
    if not isinstance(unreadable, str):
        raise InputError(f"{where}: field 'unreadable' is {unreadable!r:.60}, expected text")
    labels = _labels_of_row(row[_LABELS], f"{where}: field {_LABELS!r}") if _LABELS in row else None
    about = (id_text(record_id), answer.question, answer.answer)
    if "parsed" not in row:
        return read_answer(*about, decoding, labels, reference, unreadable)
    statuses = _statuses(row["parsed"], where)
    return Answer(*about, *statuses, decoding, labels, reference, unreadable)


def _labels_of_row(value: object, where: str) -> tuple[str, ...]:
    """Codes as a list, or as a text that a table has: "AFIB LVH", "AFIB, LVH" or "['AFIB', 'LVH']"."""
    return _codes(re.findall(r"[^\s,;|'\"\[\]]+", value) if isinstance(value, str) else value, where)


def _statuses(value: object, where: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: field 'parsed' is {value!r:.60}, expected an object")
    earlier: set[str] = set()
    statuses: list[tuple[str, ...]] = []
    for status in _STATUSES:
        codes = _codes(value.get(status, []), f"{where}: field 'parsed.{status}'")
        for code in codes:
            if code in earlier:
                raise InputError(f"{where}: field 'parsed' contains {code!r} twice; give each statement one status")
            earlier.add(code)
        statuses.append(tuple(sorted(codes)))
    return statuses[0], statuses[1], statuses[2]


def _codes(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where} is {value!r:.60}, expected a list of codes")
    for code in value:
        if not isinstance(code, str) or code not in STATEMENTS:
            raise InputError(f"{where} contains {code!r:.60}, not one of the 71 statement codes")
    return tuple(value)


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name one that ecg-vlm evaluate wrote")
