"""What a person reads, in German: one table for the page of `serve`, the printable report and `ask`.

The code speaks English, and so do the API and every JSON object. `messages_de.json` has its sentences as they stand in
the code, with {placeholders}, and the German of each; page/text.js reads the same table in the same way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

Language = Literal["en", "de"]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_AS_IT_IS = "source"  # the placeholder of a file's name


def translate(text: str, language: str) -> str:
    """A sentence of the program in a language; unchanged in English, and where the table does not have it."""
    if language != "de":
        return text
    for parts, names, german in _rows():
        values = _values(text, parts)
        if values is not None:
            words = [
                value if name == _AS_IT_IS else translate(value, language)
                for name, value in zip(names, values, strict=True)
            ]
            return german.format_map(dict(zip(names, words, strict=True)))
    return text


@cache
def _rows() -> list[tuple[list[str], list[str], str]]:
    """What stands between the placeholders of each sentence, their names, and its German; the most words first."""
    table = json.loads((files("ecg_vlm") / "messages_de.json").read_text(encoding="utf-8"))
    rows = [(_PLACEHOLDER.split(english), german) for english, german in table.items()]
    rows.sort(key=lambda row: -sum(map(len, row[0][::2])))
    return [(pieces[::2], pieces[1::2], german) for pieces, german in rows]


def _values(text: str, parts: Sequence[str]) -> list[str] | None:
    """What stands in a text between some parts of it, each at its first place; None where they are not all there."""
    if not text.startswith(parts[0]):
        return None
    values = []
    start = len(parts[0])
    for number, part in enumerate(parts[1:], 2):
        end = text.find(part, start) if number < len(parts) else len(text) - len(part)
        if end < start or not text.startswith(part, end):
            return None
        values.append(text[start:end])
        start = end + len(part)
    return values if start == len(text) else None
