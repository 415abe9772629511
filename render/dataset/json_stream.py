"""Reads a JSON list or JSONL file of any size sample by sample, in little memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from render.errors import InputError

SAMPLE_HINT = "mend or delete this sample, or download the file again"
_CHUNK, _LONGEST_SAMPLE = 1 << 20, 16 << 20  # bytes; published samples are 1 to 4 kB long
_SPACES = frozenset(" \t\r\n")


def samples_in(path: Path) -> Iterator[tuple[int, int, Any]]:
    """(first byte, bytes, value) of each element of a JSON list or JSONL file, read in chunks."""
    try:
        with path.open("rb") as file:
            yield from _elements(_Window(file, path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a .json or .jsonl file") from error


def _elements(window: _Window) -> Iterator[tuple[int, int, Any]]:
    is_list = window.next_mark() == "["
    if is_list:
        window.at += 1
    for number in count(1):
        mark = window.next_mark()
        if is_list and number > 1 and mark == ",":
            window.at += 1
        elif is_list and mark == "]":
            window.at += 1
            break
        elif not is_list and mark == "":
            return
        elif is_list and number > 1:
            raise InputError(f"{window.path}: after sample {number - 1}: neither a comma nor ]; {SAMPLE_HINT}")
        yield window.next_value(number)
    if window.next_mark():
        raise InputError(f"{window.path}: the list has ended, but more text follows; {SAMPLE_HINT}")


class _Window:
    """A part of a JSON file, decoded as Latin-1: one character is one byte, so text positions are file positions."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self._file = file
        self._text = file.read(_CHUNK).decode("latin-1")
        self._start = 0  # file position of the text
        self._decoder = json.JSONDecoder()
        self.at = 3 if self._text.startswith("\xef\xbb\xbf") else 0  # after a byte order mark

    def next_mark(self) -> str:
        """Move to the next character that is not white space and return it; "" at the end of the file."""
        while True:
            while self._text[self.at : self.at + 1] in _SPACES:
                self.at += 1
            if self.at < len(self._text) or not self._more():
                return self._text[self.at : self.at + 1]

    def next_value(self, number: int) -> tuple[int, int, Any]:
        """(first byte, bytes, value) of the next JSON value, which is sample `number`."""
        self.next_mark()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self.at)
                raw = self._text[self.at : end]
                if not raw.isascii():
                    value = json.loads(raw.encode("latin-1").decode("utf-8"))
                break
            except (ValueError, RecursionError) as error:
                # The value may only be cut off by the window.
                if len(self._text) - self.at > _LONGEST_SAMPLE or not self._more():
                    raise InputError(f"{self.path}: sample {number}: {_reason(error)}; {SAMPLE_HINT}") from error
        start = self._start + self.at
        self.at = end
        return start, len(raw), value

    def _more(self) -> bool:
        """Drop the text before `at` and read more; False at the end of the file."""
        rest = self._text[self.at :]
        chunk = self._file.read(max(_CHUNK, len(rest)))  # doubling: a long sample is not decoded a hundred times
        self._start += self.at
        self._text, self.at = rest + chunk.decode("latin-1"), 0
        return bool(chunk)


def _reason(error: Exception) -> str:
    """The error without its position, which would be relative to the window."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg})"
    return {UnicodeDecodeError: "not UTF-8", RecursionError: "nested too deep"}.get(type(error), str(error)[:100])
