"""The two kept files of an evaluation: a report is recomputed from them without a model and without the data set.

`scores.parquet` holds one probability per record and statement, `answers.jsonl` every question and answer with what
the parser read in it; both may hold the labels. A stranger's predictions become comparable by being written in the same
form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.parser.parse import parse
from eval.types import ID, Answer, LabelledRecords, System, check_ids, check_scores
from render.errors import InputError
from render.io import atomic_write
from render.statements import STATEMENTS

__all__ = [
    "Answer",
    "LabelledRecords",
    "ScoresFile",
    "System",
    "read_answer",
    "read_answers",
    "read_scores",
    "read_scores_file",
    "write_answers",
    "write_scores",
]

_LINE_ENDS = "\x85\u2028\u2029"
_STATUSES = ("present", "absent", "uncertain")
_ABOUT = b"ecg_vlm"
_LABELS = "statements"
_EXTRAS = {
    "folds": ("fold", pa.int32()),
    "patients": ("patient_id", pa.string()),
    "references": ("reference", pa.string()),
}


@dataclass(frozen=True)
class ScoresFile:
    """A `scores.parquet`: ids and (n, 71) probabilities in row order; the records' labels when they were kept.

    about: what else was kept of the system: "name", "notes", "cost".
    """

    record_ids: tuple[str, ...]
    scores: NDArray[np.float64]
    records: LabelledRecords | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def read_answer(
    record_id: str,
    question: str,
    answer: str,
    decoding: Mapping[str, object] | None = None,
    statements: tuple[str, ...] | None = None,
    reference: str = "",
    unreadable: str = "",
) -> Answer:
    """An `Answer` with the statements that `eval.parser.parse.parse` finds in the text."""
    found = parse(answer, question)
    return Answer(
        record_id,
        question,
        answer,
        found.present,
        found.absent,
        found.uncertain,
        dict(decoding or {}),
        statements,
        reference,
        unreadable,
    )


def write_scores(
    path: Path,
    record_ids: Sequence[str],
    scores: NDArray[np.floating],
    records: LabelledRecords | None = None,
    about: Mapping[str, object] | None = None,
) -> None:
    """Write `scores.parquet`: `record_id` and one float64 column per statement code; whole or not at all.

    scores: (n, 71) probabilities. records: their labels, in the same order, to be kept beside the scores.
    about: see `ScoresFile`. Raises InputError for a duplicate id or a value outside [0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    check_ids(record_ids, None, str(path))
    check_scores(values, record_ids, str(path))
    columns: dict[str, object] = {ID: pa.array(list(record_ids), pa.string())}
    columns.update({code: values[:, i] for i, code in enumerate(STATEMENTS)})
    kept: dict[str, object] = {"about": dict(about or {})}
    if records is not None:
        if records.record_ids != tuple(record_ids):
            raise ValueError("the labels are of other records than the scores, or in another order")
        columns[_LABELS] = pa.array([list(codes) for codes in records.statements], pa.list_(pa.string()))
        for name, (column, kind) in _EXTRAS.items():
            if getattr(records, name):
                columns[column] = pa.array(list(getattr(records, name)), kind)
        kept |= {"dataset": records.dataset, "noun": records.noun}
    table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(kept).encode()})
    with atomic_write(path) as partial:
        pq.write_table(table, partial)


def read_scores(path: Path, known_ids: Iterable[str] | None = None) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read `scores.parquet`: (record ids, (n, 71) probabilities), in the file's row order.

    known_ids: the records of the evaluation; an id outside them is an error. Further columns are ignored.
    Raises InputError that names the file and the column, record or value at fault.
    """
    table = _table(path)
    missing = [name for name in (ID, *STATEMENTS) if name not in table.column_names]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InputError(f"{path}: column {shown} missing; needed are {ID} and one column per statement code")
    ids = tuple(str(value) for value in table[ID].to_pylist())
    try:
        columns = [table[code].cast(pa.float64()).to_numpy() for code in STATEMENTS]
    except pa.ArrowException as error:
        raise InputError(f"{path}: a statement column holds no numbers ({error})") from error
    scores = np.stack(columns, axis=1).astype(np.float64)
    check_ids(ids, known_ids, str(path))
    check_scores(scores, ids, str(path))
    return ids, scores


def read_scores_file(path: Path) -> ScoresFile:
    """Read `scores.parquet` with the labels and whatever else was kept in it; see `read_scores` for errors."""
    ids, scores = read_scores(path)
    table = _table(path)
    try:
        kept = json.loads((table.schema.metadata or {}).get(_ABOUT, b"{}"))
        about = dict(kept.get("about", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: metadata {_ABOUT.decode()!r} is damaged ({error}); score the pages again") from error
    if _LABELS not in table.column_names:
        return ScoresFile(ids, scores, None, about)
    labels = tuple(_codes(codes, f"{path}: column {_LABELS!r}") for codes in table[_LABELS].to_pylist())
    extras = {
        name: tuple(table[column].to_pylist()) for name, (column, _) in _EXTRAS.items() if column in table.column_names
    }
    for name in {"patients", "references"} & extras.keys():
        extras[name] = tuple("" if value is None else str(value) for value in extras[name])
    noun = str(kept.get("noun", "held-out pages"))
    return ScoresFile(ids, scores, LabelledRecords(ids, labels, str(kept.get("dataset", path)), noun, **extras), about)


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


def read_answers(path: Path, known_ids: Iterable[str] | None = None) -> tuple[Answer, ...]:
    """Read `answers.jsonl`. Blank lines are skipped; a line without "parsed" is parsed here.

    Raises InputError that names the file, the line and the field at fault.
    """
    _check_is_file(path)
    known = None if known_ids is None else set(known_ids)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    answers = [_answer(line, f"{path}: line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    for answer in answers:
        if known is not None and answer.record_id not in known and not answer.unreadable:
            raise InputError(f"{path}: {ID} {answer.record_id!r} is not among the evaluated records")
    return tuple(answers)


def labels_of(answers: Sequence[Answer], where: str) -> LabelledRecords:
    """The records of a file of answers, from the labels kept in its lines.

    Raises InputError when a line has none, or two lines of a record disagree.
    """
    found: dict[str, tuple[str, ...]] = {}
    references: dict[str, str] = {}
    for answer in answers:
        if answer.unreadable:
            continue
        if answer.statements is None:
            raise InputError(
                f"{where}: {ID} {answer.record_id!r} has no field {_LABELS!r}; put its true codes there, "
                "or lay the evaluation's scores.parquet beside the file"
            )
        if found.setdefault(answer.record_id, answer.statements) != answer.statements:
            raise InputError(f"{where}: {ID} {answer.record_id!r} has two different {_LABELS!r}; keep the right ones")
        references.setdefault(answer.record_id, answer.reference)
    if not found:
        raise InputError(f"{where}: holds no answer")
    return LabelledRecords(tuple(found), tuple(found.values()), where, references=tuple(references.values()))


def _answer(line: str, where: str) -> Answer:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: not JSON that can be read ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    for name in (ID, "question", "answer"):
        if not isinstance(row.get(name), str):
            raise InputError(f"{where}: field {name!r} is {row.get(name)!r:.60}, expected text")
    decoding, reference = row.get("decoding", {}), row.get("reference", "")
    if not isinstance(decoding, dict):
        raise InputError(f"{where}: field 'decoding' is {decoding!r:.60}, expected an object")
    if not isinstance(reference, str):
        raise InputError(f"{where}: field 'reference' is {reference!r:.60}, expected text")
    unreadable = row.get("unreadable", "")
    if not isinstance(unreadable, str):
        raise InputError(f"{where}: field 'unreadable' is {unreadable!r:.60}, expected text")
    labels = _codes(row[_LABELS], f"{where}: field {_LABELS!r}") if _LABELS in row else None
    if "parsed" not in row:
        return read_answer(row[ID], row["question"], row["answer"], decoding, labels, reference, unreadable)
    parsed = _parsed(row["parsed"], where)
    return Answer(row[ID], row["question"], row["answer"], *parsed, decoding, labels, reference, unreadable)


def _parsed(value: object, where: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: field 'parsed' is {value!r:.60}, expected an object")
    seen: set[str] = set()
    found: list[tuple[str, ...]] = []
    for status in _STATUSES:
        codes = _codes(value.get(status, []), f"{where}: field 'parsed.{status}'")
        for code in codes:
            if code in seen:
                raise InputError(f"{where}: field 'parsed' holds {code!r} twice; a statement has one status")
            seen.add(code)
        found.append(tuple(sorted(codes)))
    return found[0], found[1], found[2]


def _codes(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where} is {value!r:.60}, expected a list of codes")
    for code in value:
        if not isinstance(code, str) or code not in STATEMENTS:
            raise InputError(f"{where} holds {code!r:.60}, not one of the 71 statement codes")
    return tuple(value)


def _table(path: Path) -> pa.Table:
    _check_is_file(path)
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name one that an evaluation wrote")
