"""Files of answers as people have them: JSON Lines, a JSON list, CSV, or text with one answer a line.

Only the answer is required. Its field may be called by any name of `ANSWER_FIELDS`, the record's by one of
`RECORD_FIELDS`; further fields are passed on.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from render.errors import InputError

ANSWER_FIELDS = ("answer", "response", "output", "prediction", "text")
"""Names of the field with the answer, in the order of preference."""
RECORD_FIELDS = ("record_id", "ecg_id", "id")
"""Names of the field with the record."""

_PTBXL_NAME = re.compile(r"(?:.*/)?0*([1-9]\d*)(?:\.0)?(?:_[hl]r)?(?:\.\w+)?")  # records500/00000/00015_hr
_LONGEST_CELL = 1 << 27  # characters; the default of the csv module, 131,072, is less than some answers have


@dataclass(frozen=True)
class AnswerRow:
    """One answer of a file.

    Attributes:
        question: "" where the file has none.
        fields: all fields of the row, the answer's too; empty for a line of text.
        where: file and line or row, for messages.
    """

    answer: str
    question: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def record_id(self) -> str:
        """The record that the answer is about; "" where the row does not say."""
        value = first_of(self.fields, RECORD_FIELDS)
        return "" if value is None else id_text(value)


def id_text(value: object) -> str:
    """A record id as text; a whole number that a table stored as 15.0 becomes "15"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def matching_ids(ids: Iterable[str], record_ids: Iterable[str]) -> list[str]:
    """Each id as it is written in `record_ids`: the number of a PTB-XL record for the name of its file, the path of a
    record for its last part where no other path has it; the id itself where it is none of them."""
    valid = set(record_ids)
    names = Counter(record_id.rpartition("/")[2] for record_id in valid)
    paths = {name: path for path in valid if names[name := path.rpartition("/")[2]] == 1}
    return [text if text in valid else _matching_id(text, valid, paths) for text in ids]


def _matching_id(text: str, valid: Set[str], paths: Mapping[str, str]) -> str:
    number = _PTBXL_NAME.fullmatch(text)
    return number[1] if number and number[1] in valid else paths.get(text.rpartition("/")[2], text)


def first_of(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value under the first of `names` that a row has; None without."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def answer_rows(file: str) -> Iterator[AnswerRow]:
    """The answers of a file in their order, read while they are used where the format allows.

    file: the name decides (.csv, .tsv, .json, .jsonl; anything else is text in which lines that begin with a brace are
    JSON). "-" is standard input: a header with a column of `ANSWER_FIELDS` makes it CSV, a list in brackets JSON.

    Raises:
        InputError: That names the file, the line or row, and what is wrong there.
    """
    name = "standard input" if file == "-" else file
    with _text(file, name) as stream:
        suffix = Path(file).suffix.lower()
        if suffix in (".csv", ".tsv"):
            yield from _table_rows(stream, name)
        elif suffix == ".json":
            yield from _list_rows(stream.read(), name)
        else:
            yield from _unnamed_rows(stream, name, only_json=suffix == ".jsonl", any_format=file == "-")


def _unnamed_rows(stream: TextIO, name: str, *, only_json: bool, any_format: bool) -> Iterator[AnswerRow]:
    first = stream.readline()
    if any_format and _is_header(first):
        yield from _table_rows(chain([first], stream), name)
    elif any_format and first.lstrip().startswith("[") and first.lstrip()[1:].lstrip()[:1] in ("{", ""):
        yield from _list_rows(first + stream.read(), name)
    else:
        for number, line in enumerate(chain([first] if first else [], stream), 1):
            text, where = line.rstrip("\n"), f"{name}, line {number}"
            if text.lstrip().startswith("{") or (only_json and text.strip()):
                yield _row(_json(text, where), where)
            elif not only_json:
                yield AnswerRow(text, "", where=where)


def _is_header(line: str) -> bool:
    cells = [cell.strip() for cell in line.split(table_delimiter(line))]
    return len(cells) > 1 and any(name in cells for name in ANSWER_FIELDS)


def _list_rows(text: str, name: str) -> Iterator[AnswerRow]:
    values = _json(text, name)
    rows = values if isinstance(values, list) else [values]
    for number, value in enumerate(rows, 1):
        where = f"{name}, item {number}"
        yield _row(value, where)


def table_delimiter(header: str, name: str = "") -> str:
    """What separates the cells of a table: spreadsheets of some countries write semicolons into a .csv file."""
    return "\t" if name.lower().endswith(".tsv") else max(",;\t", key=header.count)


def _table_rows(lines: Iterator[str] | TextIO, name: str) -> Iterator[AnswerRow]:
    csv.field_size_limit(_LONGEST_CELL)
    first = next(iter(lines), "")
    table = csv.reader(chain([first], lines), delimiter=table_delimiter(first, name), strict=True)
    try:
        header = [column.strip() for column in next(table, [])]
        if not any(column in ANSWER_FIELDS for column in header):
            columns = ", ".join(header)[:200] or "missing"
            raise InputError(
                f"{name}: no column of answers, named {' or '.join(ANSWER_FIELDS)}, and none of scores, named as "
                f"`ecg-vlm list statements` prints the codes (columns are {columns})"
            )
        for cells in table:
            where = f"{name}, line {table.line_num}"
            if len(cells) > len(header):
                raise InputError(f"{where}: more fields than the header has; put texts with commas in quotes")
            if cells:
                yield _row(dict(zip(header, cells, strict=False)), where)
    except csv.Error as error:
        raise InputError(f"{name}, line {table.line_num}: not CSV ({error})") from error


def _row(fields: object, where: str) -> AnswerRow:
    if not isinstance(fields, dict):
        raise InputError(f"{where}: needs a JSON object with a text under answer, not {type(fields).__name__}")
    answer, question = first_of(fields, ANSWER_FIELDS), fields.get("question") or ""
    if not isinstance(answer, str):
        raise InputError(
            f"{where}: needs a text under answer (or {', '.join(ANSWER_FIELDS[1:])}), not {answer!r:.60}; "
            f"it has {', '.join(map(str, fields))[:200] or 'no field'}"
        )
    if not isinstance(question, str):
        raise InputError(f"{where}: question is {question!r:.60}, expected text")
    return AnswerRow(answer, question, fields, where)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON that can be read ({error})") from error


@contextmanager
def _text(file: str, name: str) -> Iterator[TextIO]:
    try:
        if file == "-":
            yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline=None)  # whatever the locale says
        else:
            with open(file, encoding="utf-8-sig") as stream:
                yield stream
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); name a file of answers") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text (byte {error.start}); save it as CSV or text in UTF-8") from error
