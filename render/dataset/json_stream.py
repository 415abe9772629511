"""A JSON list or JSONL file of any size, one sample after the other, in little memory."""

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
    listed = window.next_mark() == "["
    if listed:
        window.at += 1
    for number in count(1):
        mark = window.next_mark()
        if listed and number > 1 and mark == ",":
            window.at += 1
        elif listed and mark == "]":
            window.at += 1
            break
        elif not listed and mark == "":
            return
        elif listed and number > 1:
            raise InputError(f"{window.path}: after sample {number - 1}: neither a comma nor ]; {SAMPLE_HINT}")
        yield window.next_value(number)
    if window.next_mark():
        raise InputError(f"{window.path}: the list has ended, but the file goes on; {SAMPLE_HINT}")


class _Window:
    """A part of a JSON file. As Latin-1 one character is one byte, so places in the text are places in the file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self._file = file
        self._text = file.read(_CHUNK).decode("latin-1")
        self._start = 0  # of the text, in the file
        self._decoder = json.JSONDecoder()
        self.at = 3 if self._text.startswith("\xef\xbb\xbf") else 0  # behind a byte order mark

    def next_mark(self) -> str:
        """Go to the next character that is not white space and return it; "" at the file's end."""
        while True:
            while self._text[self.at : self.at + 1] in _SPACES:
                self.at += 1
            if self.at < len(self._text) or not self._more():
                return self._text[self.at : self.at + 1]

    def next_value(self, number: int) -> tuple[int, int, Any]:
        """(first byte, bytes, value) of the JSON value that begins here or behind white space: sample `number`."""
        self.next_mark()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self.at)
                raw = self._text[self.at : end]
                if not raw.isascii():
                    value = json.loads(raw.encode("latin-1").decode("utf-8"))
                break
            except (ValueError, RecursionError) as error:
                # Perhaps only cut off by the window.
                if len(self._text) - self.at > _LONGEST_SAMPLE or not self._more():
                    raise InputError(f"{self.path}: sample {number}: {_reason(error)}; {SAMPLE_HINT}") from error
        start = self._start + self.at
        self.at = end
        return start, len(raw), value

    def _more(self) -> bool:
        """Drop what lies behind, read on; False at the file's end."""
        kept = self._text[self.at :]
        read = self._file.read(max(_CHUNK, len(kept)))  # doubling: a long sample is not decoded a hundred times
        self._start += self.at
        self._text, self.at = kept + read.decode("latin-1"), 0
        return bool(read)


def _reason(error: Exception) -> str:
    """Without the place, which would be one of the window."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg})"
    return {UnicodeDecodeError: "not UTF-8", RecursionError: "nested too deep"}.get(type(error), str(error)[:100])
