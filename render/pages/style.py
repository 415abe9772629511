"""How a page looks, besides where things stand on it: its paper and what befell the picture, in words.

A style is said in words joined by commas: "photo" (a preset of `render.pages.augment.pipeline`), "green,dots"
(`render.pages.paper`), "muse" (the text a machine prints), "blur=0.4" (one effect of its own strength). With the word
"mixed" among them, what is not said is drawn anew for every page by `STYLE_PROPORTIONS`. `STYLE_WORDS` holds all words.
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
from render.pages.option_words import MIXED, meanings, sample_words, split_words, unknown, words_of
from render.pages.paper import PAPER_PROPORTIONS, PAPER_WORDS, Paper

STYLE_WORDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"preset": {name: name for name in pipeline.PRESETS}, **PAPER_WORDS}
)
"""matter -> word -> value; the first word is the usual one."""

STYLE_PROPORTIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"preset": pipeline.PRESET_PROPORTIONS, **PAPER_PROPORTIONS}
)
"""What the word "mixed" draws from: matter -> word -> share."""


_USUAL = Paper()


@dataclass(frozen=True)
class Style:
    """How one page looks.

    paper: what it is printed on and with. preset: of `render.pages.augment.pipeline`.
    effects: (name, strength 0-1) of `render.pages.augment.pipeline`, in place of what the preset draws for them.
    """

    paper: Paper = _USUAL
    preset: str = "clean"
    effects: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """The shortest words that say this style."""
        values = {field: getattr(self.paper, field) for field in PAPER_WORDS} | {"preset": self.preset}
        effects = (f"{name}={strength:g}" for name, strength in self.effects)
        return ",".join([*words_of(values, STYLE_WORDS), *effects]) or "clean"

    def effect_strengths(self, rng: np.random.Generator) -> dict[str, float]:
        """The effects that one page suffers: drawn by the preset, then as `effects` say."""
        return pipeline.effect_strengths(self.preset, rng) | dict(self.effects)


def sample_style(words: str, rng: np.random.Generator) -> Style:
    """The style of one page: what `words` say, the usual for the rest or, with "mixed" among them, drawn from `rng`.

    Raises `InputError` for an unknown word or effect, naming the nearest known one, for a strength outside 0 to 1, and
    for two words on the same matter.
    """
    parts = split_words(words)
    effects = tuple(sorted(_effect(part) for part in parts if "=" in part))
    rest = [part for part in parts if "=" not in part]
    said = meanings("style", ",".join(rest), STYLE_WORDS) if rest else {}
    drawn: dict[str, Any] = {}
    if MIXED in parts:
        drawn = {matter: STYLE_WORDS[matter][word] for matter, word in sample_words(STYLE_PROPORTIONS, rng).items()}
    values = drawn | said
    preset = values.pop("preset", Style.preset)
    return Style(replace(_USUAL, **values), preset, effects)


def _effect(part: str) -> tuple[str, float]:
    name, _, strength = (piece.strip() for piece in part.partition("="))
    if name not in pipeline.EFFECTS:
        raise InputError(unknown("style effect", name, pipeline.EFFECTS))
    if not re.fullmatch(r"0(\.\d+)?|1(\.0+)?", strength):
        raise InputError(f"style effect {name}: strength {strength!r} is not a number from 0 to 1")
    return name, float(strength)
