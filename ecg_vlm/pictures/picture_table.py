"""A folder of pictures with a table of labels: CSV, TSV or JSONL."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ecg_vlm.pictures.labelled_picture import LabelledPicture, picture_path
from eval.answer_files import table_delimiter
from eval.parser.parse import parse
from render.dataset.llava import guess_form, guess_task
from render.dialogues.language import language_of
from render.errors import InputError
from render.record import sorted_statements
from render.statements import PREVALENCE, STATEMENTS
from render.suggest import did_you_mean

FILE_COLUMNS = ("file", "file_name")
"""Columns that name the picture; the second is that of the imagefolder data sets of `datasets`."""

LABEL_COLUMNS = ("statements", "report", "messages")
"""Columns of labels; each row has one of them at least."""

OTHER_COLUMNS = ("id", "patient_id", "fold", "page")

_SUFFIXES = (".csv", ".tsv", ".jsonl")
_USUAL_STEMS = ("metadata", "labels")  # taken where a folder holds several tables
_MOST_BYTES = 1 << 30
_SEPARATORS = re.compile(r"[\s,;|]+")
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
_IMAGE = "<image>"


class PictureTable:
    """The pictures that a table lists, in its order. A picture's id is its column `id`, or its path without suffix.

    path: a folder that holds one table, or the table; the pictures lie in the table's folder or below.
    folds: keep only the pictures of these folds.
    lenient: pictures may be missing.

    The whole table is checked at once. Raises `InputError` with file and line for a damaged line, a missing picture or
    one outside the folder, an unknown statement, a row without labels, and an id that occurs twice.
    """

    name = "pictures"
    dialogue_file: str | None = None

    def __init__(
        self,
        path: str | Path,
        folds: Collection[int] | None = None,
        *,
        limit: int | None = None,
        lenient: bool = False,
    ) -> None:
        self.index = _table_in(Path(path))
        self._lenient = lenient
        self._pictures: list[LabelledPicture] = []
        lines: dict[str, int] = {}
        for number, row in _rows(self.index):
            picture = self._picture(row, f"{self.index}: line {number}")
            first = lines.setdefault(picture.record_id, number)
            if first != number:
                raise InputError(
                    f"{picture.where}: id {picture.record_id!r} occurs in line {first} too; give each picture its own "
                    f"in a column id"
                )
            if folds is None or picture.fold in folds:
                self._pictures.append(picture)
        if not self._pictures:
            what = f"no picture in fold {', '.join(map(str, folds))} (column fold)" if folds else "no row"
            raise InputError(f"{self.index}: {what}; list the pictures, one a line")
        if limit is not None:
            del self._pictures[limit:]

    def __len__(self) -> int:
        return len(self._pictures)

    def picture(self, i: int) -> LabelledPicture:
        """Picture i."""
        return self._pictures[i]

    def prevalence(self) -> Mapping[str, float]:
        """Statement -> its share among the pictures with statements; that of PTB-XL for those that none has.

        A table of few statements would otherwise get hardly a question that is answered with no.
        """
        label_sets = [picture.statements for picture in self._pictures if picture.statements]
        counts = Counter(code for codes in label_sets for code in codes)
        return {**PREVALENCE["ptbxl"], **{code: n / len(label_sets) for code, n in counts.items()}}

    def _picture(self, row: Mapping[str, Any], where: str) -> LabelledPicture:
        file = next((_text(row, column, where) for column in FILE_COLUMNS if row.get(column)), "")
        if not file:
            raise InputError(f"{where}: names no picture; write its path in column file")
        report = _text(row, "report", where)
        codes = _codes(row.get("statements"), where)
        uncertain: tuple[str, ...] = ()
        provenance = "human"
        if not codes and report:
            reading = parse(report)
            codes, uncertain, provenance = reading.present, reading.uncertain, "machine"
        dialogues = _dialogues(row.get("messages"), where)
        if not (codes or report or dialogues):
            raise InputError(f"{where}: has no label; fill one of {', '.join(LABEL_COLUMNS)}, or delete the row")
        return LabelledPicture(
            where,
            picture_path(self.index.parent, file, where, lenient=self._lenient),
            _text(row, "id", where) or str(PurePosixPath(file.replace("\\", "/")).with_suffix("")),
            self.name,
            page=_whole(row, "page", where, 10_000),
            statements=codes,
            uncertain=uncertain,
            report=report,
            provenance=provenance,
            dialogues=dialogues,
            patient_id=_text(row, "patient_id", where),
            fold=_whole(row, "fold", where, 10),
        )


def _table_in(path: Path) -> Path:
    """The table that `path` names, or the one in the folder `path`."""
    if path.is_file():
        if path.suffix.lower() in _SUFFIXES:
            return path
        raise InputError(
            f"{path}: is no table; name a folder, or a {', '.join(_SUFFIXES)} file of columns {_columns()}"
        )
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; check the path")
    tables = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    usual = [table for table in tables if table.stem.lower() in _USUAL_STEMS]
    if len(usual or tables) == 1:
        return (usual or tables)[0]
    if not tables:
        raise InputError(f"{path}: no table of labels; write labels.csv with columns {_columns()}")
    names = ", ".join(table.name for table in (usual or tables)[:3])
    raise InputError(f"{path}: several tables of labels ({names}); name one: pictures:{(usual or tables)[0]}")


def _columns() -> str:
    return f"file and {' or '.join(LABEL_COLUMNS)}"


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number of the line, row) of each row of a table."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: more than {_MOST_BYTES >> 30} GiB; split it into several tables")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    yield from _json_rows(path, text) if path.suffix.lower() == ".jsonl" else _csv_rows(path, text)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row = _json(line, f"{path}: line {number}")
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number}: is no JSON object; write one with keys {_columns()}")
        _require_columns(list(row), f"{path}: line {number}")
        yield number, row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    delimiter = table_delimiter(text.partition("\n")[0], path.name)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    names: list[str] = []
    try:
        for fields in reader:
            if not names:
                names = [name.strip() for name in fields]
                _require_columns(names, f"{path}: line 1")
            elif any(field.strip() for field in fields):
                if len(fields) != len(names):
                    raise InputError(f"{path}: line {line}: {len(fields)} fields, not {len(names)}; quote its texts")
                yield line, dict(zip(names, fields, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: no CSV ({error}); quote its texts") from error


def _require_columns(names: Sequence[str], where: str) -> None:
    for valid in (FILE_COLUMNS, LABEL_COLUMNS):
        if not set(valid) & set(names):
            other = next((hint for name in names if (hint := did_you_mean(name, valid))), "")
            raise InputError(
                f"{where}: no column {' or '.join(valid)} among {', '.join(map(str, names))[:200] or 'none'}"
                f"{other or f'; write {_columns()}'}"
            )


def _codes(value: Any, where: str) -> tuple[str, ...]:
    """Statement codes of a list, or of a text that separates them by spaces, commas, semicolons or bars."""
    words = _SEPARATORS.split(value.strip()) if isinstance(value, str) else [] if value is None else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{where}: statements {str(value)[:60]!r} are no list of codes; write them like: SR, LVH")
    codes = [word for word in words if word]
    for code in codes:
        if code not in STATEMENTS:
            hint = did_you_mean(code, STATEMENTS) or "; ecg-vlm list statements prints the 71"
            raise InputError(f"{where}: statement {code[:60]!r} is none of PTB-XL's codes{hint}")
    return sorted_statements(codes)


def _dialogues(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """The dialogues of a column `messages`: one list of messages, several such lists, or either as JSON text."""
    if isinstance(value, str):
        value = _json(value, f"{where}: messages") if value.strip() else None
    if value in (None, []):
        return ()
    conversations = value if isinstance(value, list) and isinstance(value[0], list) else [value]
    return tuple(_dialogue(messages, f"{where}: messages") for messages in conversations)


def _dialogue(value: Any, where: str) -> dict[str, Any]:
    """One dialogue as a row of the column `dialogues`; system messages, which are no part of it, are left out."""
    if not isinstance(value, list):
        raise InputError(f"{where} {str(value)[:60]!r} are no list; write {_MESSAGES}")
    messages: list[dict[str, str]] = []
    for k, message in enumerate(value):
        role = _ROLES.get(str(message.get("role"))) if isinstance(message, dict) else None
        if role == "system":
            continue
        if role != ("assistant" if len(messages) % 2 else "user"):
            raise InputError(f"{where}[{k}]: user and assistant must alternate; write {_MESSAGES}")
        messages.append({"role": role, "content": _content(message.get("content"), f"{where}[{k}]")})
    if not messages or len(messages) % 2:
        raise InputError(f"{where}: the last question has no answer; write {_MESSAGES}")
    question, answer = messages[0]["content"], messages[1]["content"]
    return {
        "task": guess_task(question, answer),
        "form": guess_form(question, answer),
        "messages": messages,
        "statements": [],
        "provenance": "human",
        "language": language_of(answer) or "en",
    }


_MESSAGES = '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'


def _content(value: Any, where: str) -> str:
    """A message's text without image tokens. It may be a list of parts, as chat templates take it."""
    if isinstance(value, list):
        parts = [part.get("text", "") for part in value if isinstance(part, dict)]
        value = "".join(part for part in parts if isinstance(part, str))
    text = value.replace(_IMAGE, "").strip() if isinstance(value, str) else ""
    if not text:
        raise InputError(f"{where}: content is no text; write {_MESSAGES}")
    return text


def _json(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character (\ud8xx) cannot be written
        return value
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:100]
        raise InputError(f"{where}: is no JSON ({reason}); mend or delete this line") from error


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # ids are often numbers
    if not isinstance(value, str | None):
        raise InputError(f"{where}: {column} {str(value)[:60]!r} is no text; write a text")
    return (value or "").strip()


def _whole(row: Mapping[str, Any], column: str, where: str, most: int) -> int | None:
    """A whole number from 1 on; None where the field is empty. Spreadsheets write some as "3.0"."""
    text = str(row.get(column, "") if row.get(column) is not None else "").strip().removesuffix(".0")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise InputError(f"{where}: {column} {text[:60]!r} is no whole number from 1 to {most}; correct it")
    return int(text)
