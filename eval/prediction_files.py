"""Files of predictions as people have them: CSV, Parquet, or an array of NumPy with its column names beside it.

What a file has to have is a column of record ids and one column for each class that it scores: statements, or the 23
subclasses, or the five superclasses of PTB-XL. Statements that a file does not score are left out, columns of other
names are ignored, logits become probabilities; `Predictions.notes` says all of it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eval.answer_files import RECORD_FIELDS, id_text, table_delimiter
from eval.types import ID, Floats, check_ids
from render.errors import InputError
from render.statements import STATEMENTS, task_classes
from render.suggest import did_you_mean

COLUMN_NAMES_SUFFIX, RECORD_IDS_SUFFIX = ".columns.txt", ".records.txt"
"""Beside NAME.npy: the names of its columns, and the ids of its rows, one a line."""

_KINDS = {"all": "statements", "subdiagnostic": "subclasses", "superdiagnostic": "superclasses"}
_OWN_COLUMNS = frozenset({"statements", "fold", "patient_id", "reference"})  # of scores.parquet
_ROUNDING = 1e-6  # of a sigmoid or softmax in float32
_LIST_LENGTH = 8
_MOST_HINTS = 200  # each is compared with all codes


@dataclass(frozen=True)
class Predictions:
    """Probabilities of records in the order of the file.

    Attributes:
        scores: (n, 71), NaN in the columns that the file does not have; None for predictions of classes alone.
        class_scores: task -> (n, c) for predictions of sub- or superclasses alone, with NaN likewise.
        notes: what was left out, ignored or converted, one phrase each.
    """

    record_ids: tuple[str, ...]
    scores: Floats | None
    class_scores: Mapping[str, Floats] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictionTable:
    """The columns of a file that are classes of a task, their (n, c) values, and the names of the other columns."""

    record_ids: tuple[str, ...]
    task: str
    columns: tuple[str, ...]
    values: Floats
    others: tuple[str, ...]


def read_predictions(path: Path, record_ids: Sequence[str] = ()) -> Predictions:
    """Read a .csv, .tsv, .parquet or .npy file.

    Args:
        record_ids: the records in the order of the rows, for an array without a file of its record ids.

    Raises:
        InputError: That names file, line, column and value, and the mend.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return predictions_in(table_of(read_parquet(path), path), path)
    if suffix != ".npy":
        return predictions_in(_csv_table(path), path)
    predictions = predictions_in(_array_table(path, record_ids), path)
    if path.with_suffix(RECORD_IDS_SUFFIX).is_file():
        return predictions
    note = f"rows taken in the order of the judged records, as there is no {path.with_suffix(RECORD_IDS_SUFFIX).name}"
    return replace(predictions, notes=(*predictions.notes, note))


def predictions_in(table: PredictionTable, path: Path) -> Predictions:
    """The predictions of a table; errors as of `read_predictions`."""
    check_ids(table.record_ids, None, str(path))
    values, form = _probabilities(table, path)
    unknown_columns = [name for name in table.others if name not in _OWN_COLUMNS]
    hints = {name: hint for name in unknown_columns[:_MOST_HINTS] if (hint := _hint(name, table.columns))}
    unknown_columns.sort(key=lambda name: name not in hints)  # misspelt codes first, where they are seen
    missing = [name for name in task_classes(table.task) if name not in table.columns]
    notes = [f"{_KINDS[table.task]}: {form}"]
    notes += [f"no score for {_names(missing)}"] if missing else []
    unknown_columns = [f"{name}{hints.get(name, '')}" for name in unknown_columns]
    notes += [f"ignored: {_names(unknown_columns)}"] if unknown_columns else []
    by_name = dict(zip(table.columns, values.T, strict=True))
    scores = _matrix(by_name, table.task, len(values))
    if table.task == "all":
        return Predictions(table.record_ids, scores, notes=tuple(notes))
    return Predictions(table.record_ids, None, _class_scores(scores, table.task), tuple(notes))


def is_table_of_predictions(path: Path) -> bool:
    """Whether a CSV file has a column of predictions, and is no file of answers; errors as of `read_predictions`."""
    header = next(iter(_csv_rows(path)), [])
    return "answer" not in header and bool(_class_names() & set(header))


def _class_names() -> frozenset[str]:
    return frozenset(name for task in _KINDS for name in task_classes(task))


def _class_scores(scores: Floats, task: str) -> dict[str, Floats]:
    """The tasks that predictions of `task` allow: superclasses follow from their subclasses."""
    if task == "superdiagnostic":
        return {task: scores}
    superclass_of = {s.subclass: s.superclass for s in STATEMENTS.values() if s.diagnostic}
    names = task_classes("subdiagnostic")
    members = [
        [i for i, name in enumerate(names) if superclass_of[name] == superclass]
        for superclass in task_classes("superdiagnostic")
    ]
    return {task: scores, "superdiagnostic": np.stack([scores[:, columns].max(axis=1) for columns in members], axis=1)}


def _matrix(by_name: Mapping[str, Floats], task: str, count: int) -> Floats:
    nothing = np.full(count, np.nan)
    return np.stack([by_name.get(name, nothing) for name in task_classes(task)], axis=1)


def _task_of(names: Iterable[str], path: Path) -> str:
    """What the columns predict: the kind of classes of which most are there; statements where two kinds tie.

    Raises InputError where there are none.
    """
    columns = set(names)
    counts = {task: len(columns & set(task_classes(task))) for task in _KINDS}
    task = max(counts, key=lambda key: counts[key])
    if not counts[task]:
        names = list(names)
        hint = next((h for name in names[:_LIST_LENGTH] if (h := did_you_mean(name, STATEMENTS))), "")
        raise InputError(
            f"{path}: no column is a statement code, a subclass or a superclass (columns are "
            f"{_names(names) or 'missing'}){hint or '; ecg-vlm list statements shows the codes'}"
        )
    return task


def _probabilities(table: PredictionTable, path: Path) -> tuple[Floats, str]:
    """(n, c) probabilities, and what the values of the file are.

    Values below -1 make the file one of logits; what is neither a logit nor a probability is an error.
    """
    values = table.values
    finite = np.isfinite(values)
    if finite.all() and values.min() < -1:
        return 1 / (1 + np.exp(-np.clip(values, -700, 700))), "logits, read through the logistic function"
    wrong = np.argwhere(~(finite & (values >= -_ROUNDING) & (values <= 1 + _ROUNDING)))
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise InputError(
            f"{path}: record {table.record_ids[row]!r}, column {table.columns[column]}: {values[row, column]:g} is not "
            f"a probability; every score must lie in [0, 1] ({len(wrong)} do not), or all be logits, some below -1"
        )
    return np.clip(values, 0, 1), "probabilities"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LIST_LENGTH} more" if len(names) > _LIST_LENGTH else ""
    return ", ".join(f"{name:.60}" for name in names[:_LIST_LENGTH]) + more


def _hint(name: str, columns: Sequence[str]) -> str:
    """A misspelt code among the ignored columns."""
    missing = [code for code in STATEMENTS if code not in columns]
    close = did_you_mean(name, missing) if len(name) > 2 and name.isupper() else ""
    return f" ({close[2:]})" if close else ""


def _id_column(names: Sequence[str], path: Path) -> str:
    column = next((name for name in RECORD_FIELDS if name in names), None)
    if column is None:
        raise InputError(
            f"{path}: column {ID} missing (or {', '.join(RECORD_FIELDS[1:])}); it has {_names(names) or 'no column'}"
        )
    return column


def _split_columns(names: Sequence[str], path: Path) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    """The column of ids, the task, the columns of its classes, and the other columns."""
    duplicates = [name for name, count in Counter(names).items() if count > 1 and name in {ID, *_class_names()}]
    if duplicates:
        raise InputError(f"{path}: column {duplicates[0]!r:.60} occurs twice; keep one")
    id_column = _id_column(names, path)
    others = [name for name in names if name != id_column]
    task = _task_of(others, path)
    classes = set(task_classes(task))
    return (
        id_column,
        task,
        tuple(name for name in others if name in classes),
        tuple(name for name in others if name not in classes),
    )


# --- CSV


def _csv_table(path: Path) -> PredictionTable:
    rows = list(_csv_rows(path))
    if not rows:
        raise InputError(f"{path}: empty; the first line must contain {ID} and the codes that are scored")
    header = rows[0]
    id_column, task, columns, others = _split_columns(header, path)
    place = {name: i for i, name in enumerate(header)}
    ids, values = [], []
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise InputError(f"{path}: line {number} has {len(row)} fields, the header {len(header)}")
        ids.append(row[place[id_column]].strip())
        values.append([_number(row[place[name]], f"{path}: line {number}, column {name}") for name in columns])
    table = np.array(values, dtype=np.float64).reshape(len(ids), len(columns))
    return PredictionTable(tuple(ids), task, columns, table, others)


def _csv_rows(path: Path) -> list[list[str]]:
    """All rows, the header's names without spaces around them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            rows = list(csv.reader(chain([header], file), delimiter=table_delimiter(header, path.name)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}: not CSV ({error})") from error
    return [[name.strip() for name in rows[0]], *rows[1:]] if rows else []


def _number(text: str, where: str) -> float:
    """The number in a cell; a comma may stand for the decimal point, as where cells are separated by semicolons."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise InputError(f"{where}: {text!r:.60} is not a number; give a probability from 0 to 1") from None


# --- Parquet


def read_parquet(path: Path) -> pa.Table:
    """A whole Parquet file. Raises InputError when it cannot be read."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name one that ecg-vlm evaluate wrote")
    try:
        # Without threads: Arrow waits for ever for one that finds no memory to begin with.
        return pq.ParquetFile(path, pre_buffer=False).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def table_of(table: pa.Table, path: Path) -> PredictionTable:
    """The predictions in a Parquet table."""
    id_column, task, columns, others = _split_columns(table.column_names, path)
    ids = tuple("" if value is None else id_text(value) for value in table[id_column].to_pylist())
    try:
        arrays = [table[name].cast(pa.float64()).to_numpy() for name in columns]
    except pa.ArrowException as error:
        raise InputError(f"{path}: a statement column does not hold numbers ({error}); store probabilities") from error
    return PredictionTable(ids, task, columns, np.stack(arrays, axis=1).astype(np.float64), others)


# --- NumPy


def _array_table(path: Path, record_ids: Sequence[str]) -> PredictionTable:
    """An (n, c) array. Its columns are named in NAME.columns.txt, its rows in NAME.records.txt or by `record_ids`."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if values.ndim != 2 or values.dtype.kind not in "fiu":
            raise ValueError(f"it is an array of {values.dtype} and shape {values.shape}, not a table of numbers")
    except Exception as error:  # the header is a Python literal: a damaged one raises whatever Python's parser does
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not an array of records and classes ({reason:.200})") from error
    names = _lines_beside(path, COLUMN_NAMES_SUFFIX)
    if not names:
        raise InputError(
            f"{path}: which columns it has must stand in {path.with_suffix(COLUMN_NAMES_SUFFIX).name}, one a line"
        )
    ids = _lines_beside(path, RECORD_IDS_SUFFIX) or list(record_ids)
    for what, lines, count in (("columns", names, values.shape[1]), ("records", ids, values.shape[0])):
        if len(lines) != count:
            raise InputError(
                f"{path}: has {count} {what}, but {len(lines)} are named; write {path.with_suffix(f'.{what}.txt').name}"
            )
    _, task, columns, others = _split_columns([ID, *names], path)
    place = [names.index(name) for name in columns]
    return PredictionTable(tuple(ids), task, columns, np.asarray(values[:, place], dtype=np.float64), others)


def _lines_beside(path: Path, suffix: str) -> list[str]:
    file = path.with_suffix(suffix)
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text ({error})") from error
