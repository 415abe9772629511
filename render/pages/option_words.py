"""Options as words joined by commas, as on the command line: "6x2,cabrera", "photo,green".

Words come in groups (paper speed, grid colour): at most one word of a group may be given, and the first word of a group
is its default. With the word "mixed", groups that are not given are sampled for every page from published proportions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from render.errors import InputError
from render.suggest import nearest

MIXED = "mixed"

OptionGroups = Mapping[str, Mapping[str, Any]]
"""group -> word -> the value it stands for."""


def split_words(words: str) -> list[str]:
    """The single words, without the blanks around them."""
    return [part.strip() for part in str(words).split(",")]


def parse_words(kind: str, words: str, groups: OptionGroups) -> dict[str, Any]:
    """group -> value, for the groups that `words` name; `MIXED` is skipped.

    Args:
        kind: what the words describe, for messages ("layout").

    Raises:
        InputError: For an unknown word, naming the nearest known one, and for two words of the same group.
    """
    choices: dict[str, tuple[str, Any]] = {}
    for word in split_words(words):
        if word == MIXED:
            continue
        group, value = _look_up(kind, word, words, groups)
        if group in choices:
            raise InputError(f"{kind} {words!r} has both {choices[group][0]!r} and {word!r}; keep one of them")
        choices[group] = word, value
    return {group: value for group, (_, value) in choices.items()}


def _look_up(kind: str, word: str, words: str, groups: OptionGroups) -> tuple[str, Any]:
    for group, values in groups.items():
        if word in values:
            return group, values[word]
    vocabulary = [MIXED, *(each for values in groups.values() for each in values)]
    raise InputError(unknown_word(kind, word, vocabulary, words))


def unknown_word(kind: str, word: str, vocabulary: Sequence[str], words: str = "") -> str:
    """The message for a word outside the vocabulary. words: all that the user gave, where it was more than one."""
    # Without a cutoff: a user who typed "4x3" is better served by the nearest word than by none.
    closest = nearest(word, vocabulary, always=True)
    where = "" if words in ("", word) else f" in {words!r}"
    return f"{kind} {word!r}{where} is not known; the nearest is {closest!r} (known: {', '.join(vocabulary)})"


def words_of(values: Mapping[str, Any], groups: OptionGroups) -> list[str]:
    """The words for those of `values` (group -> value) that are not the default."""
    changes = [group for group, words in groups.items() if values[group] != next(iter(words.values()))]
    return [word for group in changes for word, value in groups[group].items() if value == values[group]]


def sample_words(proportions: Mapping[str, Mapping[str, float]], rng: np.random.Generator) -> dict[str, str]:
    """group -> a word sampled by its share of the proportions.

    Every group takes one number from `rng`, whether its word is used or not: to give a word for one group leaves the
    samples of the others as they are.
    """
    sample = {}
    for group, shares in proportions.items():
        bounds = np.cumsum(list(shares.values()))
        sample[group] = list(shares)[int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))]
    return sample
