"""Options said in words joined by commas, as on the command line: "6x2,cabrera", "photo,green".

A matter (paper speed, grid colour) has words, each with what it means; the first is the usual one. What the words
leave out is as usual; beside the word "mixed" it is drawn anew for every page, by published proportions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from render.errors import InputError
from render.suggest import nearest

MIXED = "mixed"

OptionGroups = Mapping[str, Mapping[str, Any]]
"""matter -> word -> what it means."""


def split_words(words: str) -> list[str]:
    """The single words, without the blanks around them."""
    return [part.strip() for part in str(words).split(",")]


def meanings(kind: str, words: str, matters: OptionGroups) -> dict[str, Any]:
    """matter -> meaning, for the matters that `words` speak of; `MIXED` is passed over.

    kind: what the words describe, for messages ("layout").
    Raises `InputError` for an unknown word, naming the nearest known one, and for two words on the same matter.
    """
    said: dict[str, tuple[str, Any]] = {}
    for word in split_words(words):
        if word == MIXED:
            continue
        matter, meaning = _meaning(kind, word, words, matters)
        if matter in said:
            raise InputError(f"{kind} {words!r} says both {said[matter][0]!r} and {word!r}; keep one of them")
        said[matter] = word, meaning
    return {matter: meaning for matter, (_, meaning) in said.items()}


def _meaning(kind: str, word: str, words: str, matters: OptionGroups) -> tuple[str, Any]:
    for matter, choices in matters.items():
        if word in choices:
            return matter, choices[word]
    raise InputError(unknown(kind, word, [MIXED, *(each for choices in matters.values() for each in choices)], words))


def unknown(kind: str, word: str, known: Sequence[str], words: str = "") -> str:
    """The message for a word that nobody knows."""
    # Without a cutoff: a user who typed "4x3" is better served by the nearest word than by none.
    closest = nearest(word, known, always=True)
    where = "" if words in ("", word) else f" in {words!r}"
    return f"{kind} {word!r}{where} is not known; the nearest is {closest!r} (known: {', '.join(known)})"


def words_of(values: Mapping[str, Any], matters: OptionGroups) -> list[str]:
    """The words for those of `values` (matter -> meaning) that are not the usual ones."""
    unusual = [m for m, choices in matters.items() if values[m] != next(iter(choices.values()))]
    return [word for m in unusual for word, meaning in matters[m].items() if meaning == values[m]]


def sample_words(proportions: Mapping[str, Mapping[str, float]], rng: np.random.Generator) -> dict[str, str]:
    """matter -> a word drawn by its share of the proportions.

    Every matter takes one number from `rng`, whatever becomes of it, so that naming one leaves the others as they are.
    """
    drawn = {}
    for matter, shares in proportions.items():
        bounds = np.cumsum(list(shares.values()))
        drawn[matter] = list(shares)[int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))]
    return drawn
