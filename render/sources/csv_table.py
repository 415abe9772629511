"""A data set's CSV table, read one row at a time: only the byte offsets of its rows stay in memory.

PTB-XL's table has 21,799 rows and MIMIC-IV-ECG's 800,035. As 8-byte offsets they take a few megabytes, so that a
source can be sent to every worker process. Of a table at a URL each process that reads rows makes a copy.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from render.errors import InputError
from render.io import local_copy


class CsvFile:
    """The rows of one CSV file with a header line, in the file's order.

    `key` is the only column that stays in memory: `keys[i]` belongs to row i.
    Raises `InputError` when the file is missing, is not text, lacks one of `columns`, or has no row. `mend` ends
    those messages: how the user gets a complete file.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: str, mend: str) -> None:
        self.path = path
        self.keys: list[str] = []
        self._mend = mend
        self._offsets = array("q")
        if not path.is_file():
            raise InputError(f"{path}: no such file; {mend}")
        try:
            with local_copy(path).open("rb") as file:
                self._scan(file, columns, key)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        if not self.keys:
            raise InputError(f"{path}: the table has no row; {mend}")

    def __len__(self) -> int:
        return len(self._offsets)

    def row(self, i: int) -> dict[str, str]:
        """Row i as column -> text. Raises `InputError` when its number of fields differs from the header's."""
        try:
            with local_copy(self.path).open("rb") as file:
                file.seek(self._offsets[i])
                fields = next(self._records(_lines(file)))
        except (OSError, StopIteration) as error:
            raise InputError(
                f"{self.path}: row {i + 1} is missing; the file has changed since it was opened"
            ) from error
        width = len(self._names)
        if len(fields) != width:
            raise InputError(f"{self.path}: row {i + 1} has {len(fields)} of {width} fields; {self._mend}")
        return dict(zip(self._names, fields, strict=True))

    def drop_keys(self) -> None:
        """Free the memory of the key column, for a caller that has its own copy."""
        self.keys = []

    def _scan(self, file: BinaryIO, columns: Sequence[str], key: str) -> None:
        lines = _LineOffsets(file)
        records = self._records(lines)
        self._names = [name.removeprefix("\ufeff").strip() for name in next(records, [])]
        for column in (*columns, key):
            if column not in self._names:
                raise InputError(f"{self.path}: column {column!r} is missing; {self._mend}")
        column_index = self._names.index(key)
        start = lines.offset
        for fields in records:
            if fields:  # a blank line is no row
                self._offsets.append(start)
                self.keys.append(fields[column_index] if column_index < len(fields) else "")
            start = lines.offset

    def _records(self, lines: Iterator[str]) -> Iterator[list[str]]:
        try:
            yield from csv.reader(lines)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{self.path}: not a CSV table in UTF-8 ({error}); {self._mend}") from error


class _LineOffsets:
    """The decoded lines of a file. offset: of the byte behind the last line read."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = iter(file)
        self.offset = 0

    def __iter__(self) -> _LineOffsets:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.offset += len(line)
        return line.decode("utf-8")


def _lines(file: BinaryIO) -> Iterator[str]:
    return (line.decode("utf-8") for line in file)
