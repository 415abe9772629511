"""The options of a page's layout, and the words for them.

A layout is written as words joined by commas, as on the command line: a format and, where it differs from the
defaults, options. "6x2+1R,cabrera,50mm/s,half-chest" means two columns of six rows and a rhythm strip, limb leads in
Cabrera's order, 50 mm/s, chest leads at half the gain. `FORMATS` and `OPTION_WORDS` hold all words. With the word
"mixed", options that are not given are sampled for every page: see `LAYOUT_PROPORTIONS`.

Cabrera's order (Kligfield et al. 2007, AHA/ACC/HRS recommendations on the electrocardiogram) goes round the
frontal plane from aVL to III in steps of 30 degrees; aVR is inverted in it, as -aVR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from render.errors import InputError
from render.pages.option_words import MIXED, parse_words, sample_words, split_words, words_of


@dataclass(frozen=True)
class _Format:
    """A grid of leads, filled column by column, and rhythm strips below."""

    rows: int
    columns: int
    leads: Literal["all", "limb", "chest", "rhythm"]
    strips: int


CHEST_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6")
"""The leads to which `half_chest` gives half the gain."""

_RHYTHM = ("II", "V1", "V5")  # a page with one strip shows the first of them, a page with two strips the first two
_LIMB = MappingProxyType(
    {
        "standard": ("I", "II", "III", "aVR", "aVL", "aVF"),
        "cabrera": ("aVL", "I", "-aVR", "II", "aVF", "III"),
    }
)

# Rows, columns, groups of leads (the first is what "6x1" alone means), the largest number of rhythm strips.
_SHAPES: tuple[tuple[int, int, tuple[Literal["all", "limb", "chest", "rhythm"], ...], int], ...] = (
    (3, 4, ("all",), 3),
    (6, 2, ("all",), 1),
    (12, 1, ("all",), 0),
    (6, 1, ("limb", "chest"), 0),
    (3, 2, ("limb", "chest"), 0),
    (3, 1, ("limb", "rhythm"), 0),
)


def _formats() -> Iterator[tuple[str, _Format]]:
    for rows, columns, lead_groups, max_strips in _SHAPES:
        for group in lead_groups:
            for strips in range(max_strips + 1):
                suffix = "" if group == lead_groups[0] else f"-{group}"
                name = f"{rows}x{columns}{suffix}" + (f"+{strips}R" if strips else "")
                yield name, _Format(rows, columns, group, strips)


_FORMATS: Mapping[str, _Format] = MappingProxyType(dict(_formats()))

FORMATS: tuple[str, ...] = tuple(_FORMATS)
"""rows x columns, a group of leads where it is not the first of `_SHAPES`, +kR for k rhythm strips (II; V1; V5)."""

# 280 x 140 mm is 2:1: two square tiles of a vision model without waste. 250 mm of trace in the middle put the
# boundary between the second and third column at 140 mm, on the seam of the two tiles: no column is cut.
# 280 x 280 mm fills the four tiles of a square. A4 and Letter are landscape, as machines print them.
_HALF, _SQUARE = (280.0, 140.0), (280.0, 280.0)

OPTION_WORDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "order": {"standard": "standard", "cabrera": "cabrera"},
        "columns": {"sequential": "sequential", "simultaneous": "simultaneous"},
        "mm_per_s": {"25mm/s": 25.0, "50mm/s": 50.0},
        "mm_per_mv": {"10mm/mV": 10.0, "5mm/mV": 5.0, "20mm/mV": 20.0},
        "half_chest": {"full-chest": False, "half-chest": True},
        "pulse": {"pulse-start": "start", "pulse-end": "end", "no-pulse": "none"},
        "separators": {"separators": True, "no-separators": False},
        "lead_names": {"names": True, "no-names": False},
        "paper": {"280x140mm": _HALF, "280x280mm": _SQUARE, "A4": (297.0, 210.0), "Letter": (279.4, 215.9)},
    }
)
"""field of `PageOptions` -> word -> value; the first word is the default (paper: see `PageOptions`)."""


@dataclass(frozen=True)
class PageOptions:
    """The options of a layout. Raises `InputError` for a value that has no word.

    Attributes:
        format: one of `FORMATS`.
        order: of the limb leads.
        mm_per_s: paper speed.
        mm_per_mv: gain.
        columns: "sequential" columns follow each other in time, "simultaneous" ones all begin with the first
            sample.
        half_chest: chest leads, in strips too, at half the gain.
        pulse: the calibration pulse of every row at its "start", its "end", or "none".
        separators: ticks where one lead ends and the next begins.
        lead_names: the leads' names.
        paper: width and height in mm; None takes 280 x 140, or 280 x 280 for a format of more than six rows.
    """

    format: str = "3x4+1R"
    order: str = "standard"
    columns: str = "sequential"
    mm_per_s: float = 25.0
    mm_per_mv: float = 10.0
    half_chest: bool = False
    pulse: str = "start"
    separators: bool = True
    lead_names: bool = True
    paper: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        choices = {"format": FORMATS} | {field: tuple(words.values()) for field, words in OPTION_WORDS.items()}
        for field, values in choices.items():
            value = getattr(self, field)
            if value not in values and not (field == "paper" and value is None):
                raise InputError(f"page option {field}: {value!r} is not one of {', '.join(map(str, values))}")

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The leads' labels row by row, rhythm strips last; "-aVR" is an inverted aVR."""
        shape = _FORMATS[self.format]
        limb = _LIMB[self.order]
        leads = {"all": limb + CHEST_LEADS, "limb": limb, "chest": CHEST_LEADS, "rhythm": _RHYTHM}[shape.leads]
        leads = leads[: shape.rows * shape.columns]
        grid = tuple(leads[row :: shape.rows] for row in range(shape.rows))
        return grid + tuple((lead,) for lead in _RHYTHM[: shape.strips])

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the paper, mm."""
        return self.paper or self._default_paper()

    @property
    def name(self) -> str:
        """The shortest words for these options."""
        values = {field: getattr(self, field) for field in OPTION_WORDS} | {"paper": self.size}
        # The default paper depends on the format.
        papers = {"default": self._default_paper(), **OPTION_WORDS["paper"]}
        return ",".join([self.format, *words_of(values, {**OPTION_WORDS, "paper": papers})])

    def _default_paper(self) -> tuple[float, float]:
        return _HALF if len(self.rows) <= 6 else _SQUARE


_WORDS: Mapping[str, Mapping[str, Any]] = {"format": {name: name for name in FORMATS}, **OPTION_WORDS}


def options_named(words: str) -> PageOptions:
    """The options that `words`, joined by commas, name; the others keep their defaults.

    Raises:
        InputError: For an unknown word, naming the nearest known one, and for two words of the same group.
    """
    return replace(PageOptions(), **parse_words("layout", words, _WORDS))


LAYOUT_PROPORTIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "format": {
            "3x4+1R": 0.34, "3x4": 0.10, "3x4+2R": 0.04, "3x4+3R": 0.12, "6x2": 0.14, "6x2+1R": 0.10, "12x1": 0.08,
            "6x1": 0.02, "6x1-chest": 0.02, "3x2": 0.01, "3x2-chest": 0.01, "3x1": 0.01, "3x1-rhythm": 0.01,
        },
        "order": {"standard": 0.92, "cabrera": 0.08},
        "columns": {"sequential": 0.75, "simultaneous": 0.25},
        "mm_per_s": {"25mm/s": 0.88, "50mm/s": 0.12},
        "mm_per_mv": {"10mm/mV": 0.90, "5mm/mV": 0.06, "20mm/mV": 0.04},
        "half_chest": {"full-chest": 0.95, "half-chest": 0.05},
        "pulse": {"pulse-start": 0.62, "pulse-end": 0.13, "no-pulse": 0.25},
        "separators": {"separators": 0.6, "no-separators": 0.4},
        "lead_names": {"names": 0.98, "no-names": 0.02},
        "paper": {"280x140mm": 0.6, "280x280mm": 0.1, "A4": 0.2, "Letter": 0.1},
    }
)  # fmt: skip
"""What the word "mixed" samples from: group -> word -> share. A choice of this project, not a survey: the formats that
most machines print have the largest shares, and every word occurs often enough to be learnt."""


def sample_options(words: str, rng: np.random.Generator) -> PageOptions:
    """The options of one page: those that `words` name and, with "mixed" among them, sampled ones for the rest.

    Raises:
        InputError: Like `options_named`.
    """
    if MIXED not in split_words(words):
        return options_named(words)
    sample = {group: _WORDS[group][word] for group, word in sample_words(LAYOUT_PROPORTIONS, rng).items()}
    sample["paper"] = None if sample["paper"] == _HALF else sample["paper"]  # twelve rows need the square one instead
    return replace(PageOptions(), **sample | parse_words("layout", words, _WORDS))
