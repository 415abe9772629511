"""The paper of a page: its colours, its grid, and the format of the text at its head and foot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Colours:
    """RGB, 0-255, of the paper, of its grid's heavy lines, and of the ink."""

    paper: Rgb
    line: Rgb
    ink: Rgb


_BLACK: Rgb = (18.0, 18.0, 24.0)

PAPER_WORDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Red and orange thermal paper, the brown of old rolls, green and blue of Japanese makers, a laser's grey.
        "colours": {
            "red": Colours((255.0, 251.0, 249.0), (234.0, 130.0, 130.0), _BLACK),
            "pink": Colours((255.0, 240.0, 243.0), (240.0, 158.0, 178.0), _BLACK),
            "orange": Colours((255.0, 249.0, 240.0), (240.0, 160.0, 96.0), _BLACK),
            "brown": Colours((250.0, 243.0, 230.0), (190.0, 150.0, 116.0), (40.0, 30.0, 30.0)),
            "green": Colours((246.0, 252.0, 246.0), (126.0, 190.0, 138.0), _BLACK),
            "blue": Colours((246.0, 250.0, 255.0), (130.0, 170.0, 224.0), (20.0, 24.0, 70.0)),
            "grey": Colours((255.0, 255.0, 255.0), (176.0, 176.0, 176.0), (0.0, 0.0, 0.0)),
        },
        # Lines every millimetre and every fifth; dots instead of the thin lines; every fifth line only; no lines.
        "grid": {"lines": "lines", "dots": "dots", "5mm-lines": "5mm-lines", "no-grid": "no-grid"},
        "text": {"plain": "plain", "muse": "muse", "pagewriter": "pagewriter", "cardiovit": "cardiovit", "no-text": ""},
        "findings": {"no-findings": False, "findings": True},
    }
)
"""field of `Paper` -> word -> value; the first word is the default."""

PAPER_PROPORTIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "colours": {
            "red": 0.34, "pink": 0.2, "orange": 0.14, "brown": 0.06, "green": 0.06, "blue": 0.06, "grey": 0.14
        },
        "grid": {"lines": 0.72, "dots": 0.14, "5mm-lines": 0.07, "no-grid": 0.07},
        "text": {"plain": 0.25, "muse": 0.25, "pagewriter": 0.2, "cardiovit": 0.15, "no-text": 0.15},
    }
)  # fmt: skip
"""What the word "mixed" samples from: group -> word -> share; findings are printed only where they are asked for.
A choice of this project, not a survey: most paper is red or pink, and every word occurs often enough to be learnt."""


@dataclass(frozen=True)
class Paper:
    """The paper of one page, and the text that a machine prints on it.

    Attributes:
        colours: of the paper.
        grid: of the paper.
        text: the machine whose head and foot are printed, "" for none (see `render.pages.header`).
        findings: whether the head has the record's statements, which tell a reader the answer.
    """

    colours: Colours = PAPER_WORDS["colours"]["red"]
    grid: str = "lines"
    text: str = "plain"
    findings: bool = False
