"""The two kept files of an evaluation, and the system that they describe.

`scores.parquet` holds one probability per record and statement, `answers.jsonl` every question and answer with what
the parser read in it. A report is recomputed from these two without a model, and a stranger's predictions become
comparable by being written in the same form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.parse import parse
from render.files import InputError, whole_file
from render.statements import STATEMENTS

ID = "record_id"
_LINE_ENDS = "\x85\u2028\u2029"
_STATUSES = ("present", "absent", "uncertain")


@dataclass(frozen=True)
class Answer:
    """One question put to a system, its raw answer, and the statements read from it.

    present, absent, uncertain: sorted statement codes; a code stands in one of them at most.
    decoding: what the generation was run with (temperature, token limit, seed ...).
    """

    record_id: str
    question: str
    answer: str
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    decoding: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class System:
    """One system on one set of records.

    scores: (n, 71) probabilities, rows as in `record_ids`, columns as in `render.statements.STATEMENTS`; None for a
    system that only answers in words.
    notes: one line for the report: what the system is and what it was trained on.
    """

    name: str
    record_ids: tuple[str, ...]
    scores: NDArray[np.float64] | None = None
    answers: tuple[Answer, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        where = f"system {self.name!r}"
        _check_ids(self.record_ids, None, where)
        if self.scores is not None:
            _check_scores(self.scores, self.record_ids, where)
        known = set(self.record_ids)
        for answer in self.answers:
            if answer.record_id not in known:
                raise InputError(
                    f"{where}: answer for unknown record_id {answer.record_id!r}; drop it or add the record"
                )


def read_answer(record_id: str, question: str, answer: str, decoding: Mapping[str, object] | None = None) -> Answer:
    """An `Answer` with the statements that `eval.parse.parse` finds in the text."""
    parsed = parse(answer)
    return Answer(record_id, question, answer, parsed.present, parsed.absent, parsed.uncertain, dict(decoding or {}))


def write_scores(path: Path, record_ids: Sequence[str], scores: NDArray[np.floating]) -> None:
    """Write `scores.parquet`: `record_id` and one float64 column per statement code; whole or not at all.

    scores: (n, 71) probabilities. Raises InputError for a duplicate id or a value outside [0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    _check_ids(record_ids, None, str(path))
    _check_scores(values, record_ids, str(path))
    columns: dict[str, object] = {ID: pa.array(list(record_ids), pa.string())}
    columns.update({code: values[:, i] for i, code in enumerate(STATEMENTS)})
    with whole_file(path) as partial:
        pq.write_table(pa.table(columns), partial)


def read_scores(path: Path, known_ids: Iterable[str] | None = None) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read `scores.parquet`: (record ids, (n, 71) probabilities), in the file's row order.

    known_ids: the records of the evaluation; an id outside them is an error. Further columns are ignored.
    Raises InputError that names the file and the column, record or value at fault.
    """
    _check_is_file(path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error
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
    _check_ids(ids, known_ids, str(path))
    _check_scores(scores, ids, str(path))
    return ids, scores


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write `answers.jsonl`, one JSON object a line in UTF-8; whole or not at all."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for answer in answers:
            row = {
                ID: answer.record_id,
                "question": answer.question,
                "answer": answer.answer,
                "parsed": {status: list(getattr(answer, status)) for status in _STATUSES},
                "decoding": dict(answer.decoding),
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
        if known is not None and answer.record_id not in known:
            raise InputError(f"{path}: {ID} {answer.record_id!r} is not among the evaluated records")
    return tuple(answers)


def _answer(line: str, where: str) -> Answer:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    for name in (ID, "question", "answer"):
        if not isinstance(row.get(name), str):
            raise InputError(f"{where}: field {name!r} is {row.get(name)!r}, expected text")
    decoding = row.get("decoding", {})
    if not isinstance(decoding, dict):
        raise InputError(f"{where}: field 'decoding' is {decoding!r}, expected an object")
    if "parsed" not in row:
        return read_answer(row[ID], row["question"], row["answer"], decoding)
    present, absent, uncertain = _parsed(row["parsed"], where)
    return Answer(row[ID], row["question"], row["answer"], present, absent, uncertain, decoding)


def _parsed(value: object, where: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: field 'parsed' is {value!r}, expected an object")
    seen: set[str] = set()
    found: list[tuple[str, ...]] = []
    for status in _STATUSES:
        codes = value.get(status, [])
        if not isinstance(codes, list):
            raise InputError(f"{where}: field 'parsed.{status}' is {codes!r}, expected a list of codes")
        for code in codes:
            if not isinstance(code, str) or code not in STATEMENTS:
                raise InputError(f"{where}: field 'parsed.{status}' holds {code!r}, not one of the 71 statement codes")
            if code in seen:
                raise InputError(f"{where}: field 'parsed' holds {code!r} twice; a statement has one status")
            seen.add(code)
        found.append(tuple(sorted(codes)))
    return found[0], found[1], found[2]


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name one that an evaluation wrote")


def _check_ids(record_ids: Sequence[str], known_ids: Iterable[str] | None, where: str) -> None:
    if not record_ids:
        raise InputError(f"{where}: holds no record")
    seen: set[str] = set()
    known = None if known_ids is None else set(known_ids)
    for record_id in record_ids:
        if record_id in seen:
            raise InputError(f"{where}: {ID} {record_id!r} stands twice; keep one row per record")
        if known is not None and record_id not in known:
            raise InputError(f"{where}: {ID} {record_id!r} is not among the evaluated records")
        seen.add(record_id)


def _check_scores(scores: NDArray[np.float64], record_ids: Sequence[str], where: str) -> None:
    if scores.shape != (len(record_ids), len(STATEMENTS)):
        raise InputError(f"{where}: scores are {scores.shape}, expected ({len(record_ids)}, {len(STATEMENTS)})")
    wrong = np.argwhere(~((scores >= 0) & (scores <= 1)))  # NaN fails both comparisons
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise InputError(
            f"{where}: record {record_ids[row]!r}, column {tuple(STATEMENTS)[column]}: {scores[row, column]} is not "
            f"a probability; every score must lie in [0, 1] ({len(wrong)} do not)"
        )
