"""A page's style: its paper, its printed text and the effects of scanning or photographing it, in words.

A style is written as words joined by commas: "photo" (a preset of `render.pages.augment.pipeline`), "green,dots"
(`render.pages.paper`), "muse" (the text that a machine prints), "blur=0.4" (one effect with its strength). With the
word "mixed", groups that are not given are sampled for every page by `STYLE_PROPORTIONS`. All words: `STYLE_WORDS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from render.errors import InputError
from render.pages.augment import pipeline
from render.pages.option_words import MIXED, parse_words, sample_words, split_words, unknown_word, words_of
from render.pages.paper import PAPER_PROPORTIONS, PAPER_WORDS, Paper

STYLE_WORDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"preset": {name: name for name in pipeline.PRESETS}, **PAPER_WORDS}
)
"""group -> word -> value; the first word is the default."""

STYLE_PROPORTIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"preset": pipeline.PRESET_PROPORTIONS, **PAPER_PROPORTIONS}
)
"""What the word "mixed" samples from: group -> word -> share."""


_DEFAULT_PAPER = Paper()


@dataclass(frozen=True)
class Style:
    """The style of one page.

    Attributes:
        paper: colours, grid and printed text.
        preset: of `render.pages.augment.pipeline`.
        effects: (name, strength 0-1) of `render.pages.augment.pipeline`, in place of what the preset samples for
            them.
    """

    paper: Paper = _DEFAULT_PAPER
    preset: str = "clean"
    effects: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """The shortest words for this style."""
        values = {field: getattr(self.paper, field) for field in PAPER_WORDS} | {"preset": self.preset}
        effects = (f"{name}={strength:g}" for name, strength in self.effects)
        return ",".join([*words_of(values, STYLE_WORDS), *effects]) or "clean"

    def effect_strengths(self, rng: np.random.Generator) -> dict[str, float]:
        """The effects of one page and their strengths: sampled by the preset, then replaced by `effects`."""
        return pipeline.effect_strengths(self.preset, rng) | dict(self.effects)


def sample_style(words: str, rng: np.random.Generator) -> Style:
    """The style of one page: what `words` name; the rest by default or, with "mixed" among them, sampled from `rng`.

    Raises:
        InputError: For an unknown word or effect, naming the nearest known one, for a strength outside 0 to 1, and
            for two words of the same group.
    """
    parts = split_words(words)
    effects = tuple(sorted(_effect(part) for part in parts if "=" in part))
    rest = [part for part in parts if "=" not in part]
    explicit = parse_words("style", ",".join(rest), STYLE_WORDS) if rest else {}
    sample: dict[str, Any] = {}
    if MIXED in parts:
        sample = {group: STYLE_WORDS[group][word] for group, word in sample_words(STYLE_PROPORTIONS, rng).items()}
    values = sample | explicit
    preset = values.pop("preset", Style.preset)
    return Style(replace(_DEFAULT_PAPER, **values), preset, effects)


def _effect(part: str) -> tuple[str, float]:
    name, _, strength = (piece.strip() for piece in part.partition("="))
    if name not in pipeline.EFFECTS:
        raise InputError(unknown_word("style effect", name, pipeline.EFFECTS))
    if not re.fullmatch(r"0(\.\d+)?|1(\.0+)?", strength):
        raise InputError(f"style effect {name}: strength {strength!r} is not a number from 0 to 1")
    return name, float(strength)
