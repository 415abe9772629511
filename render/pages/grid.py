"""The paper's grid: lines every millimetre and every fifth, as tones of a page's palette."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from render.pages.raster import INK_LEVELS, MAX_TONES

# Width in mm and strength of the grid's lines: thin and pale every millimetre, wider and full every fifth. Dots, which
# replace thin lines, must be darker to be as visible.
_MINOR, _MAJOR, _DOT = (0.20, 0.45), (0.25, 1.0), (0.30, 0.9)
# The line of every millimetre, and that of every fifth.
_PENS: Mapping[str, tuple[tuple[float, float] | None, tuple[float, float] | None]] = {
    "lines": (_MINOR, _MAJOR),
    "dots": (_DOT, _MAJOR),
    "5mm-lines": (None, _MAJOR),
    "no-grid": (None, None),
}


@dataclass(frozen=True, eq=False)
class RuledPaper:
    """Paper without ink. Arrays are read-only.

    Attributes:
        bare: uint8 (height, width), tone * `INK_LEVELS`.
        levels: (tones,), how much of a heavy line's colour each tone has.
    """

    bare: NDArray[np.uint8]
    levels: NDArray[np.float64]

    def lines(self) -> NDArray[np.bool_]:
        """(height, width), True on the lines of the grid."""
        on_line: NDArray[np.bool_] = (self.levels >= _MINOR[1] / 2)[self.bare // INK_LEVELS]
        return on_line


@lru_cache(maxsize=16)
def ruled_paper(width_mm: float, height_mm: float, grid_top: float, width: int, grid: str) -> RuledPaper:
    """Paper of that size at `width` pixels, with a grid below `grid_top` (mm). grid: a word of `render.pages.paper`."""
    px_per_mm = width / width_mm
    height = round(height_mm * px_per_mm)
    thin, heavy = _PENS[grid]
    pens = ((1.0, thin), (5.0, heavy))
    down = [_rulings(height, px_per_mm, height_mm, grid_top, *pen) for pen in pens]
    across = [_rulings(width, px_per_mm, width_mm, 0.0, *pen) for pen in pens]
    # The header is bare: rows above the grid's first line carry no vertical lines either.
    inside = np.arange(height) > grid_top * px_per_mm - 0.5
    # The page has few different rows and columns: their crossings are computed once for each pair.
    rows, row = np.unique(np.stack([*down, inside], axis=1), axis=0, return_inverse=True)
    columns, column = np.unique(np.stack(across, axis=1), axis=0, return_inverse=True)
    strength = _crossings(rows, columns, dots=grid == "dots")
    levels = np.unique(np.round(strength, 3))
    if levels.size > MAX_TONES:  # at odd widths every line has another offset from the pixels
        levels = np.linspace(0.0, strength.max(), MAX_TONES)
    tones = np.searchsorted((levels[1:] + levels[:-1]) / 2, strength).astype(np.uint8)
    bare = (tones * np.uint8(INK_LEVELS))[:, column][row]
    for array in (bare, levels):
        array.setflags(write=False)
    return RuledPaper(bare, levels)


def _crossings(rows: NDArray[np.float64], columns: NDArray[np.float64], *, dots: bool) -> NDArray[np.float64]:
    """Strength 0-1 where rows (n, 3: thin, heavy, inside the grid) cross columns (m, 2: thin, heavy): (n, m)."""
    thin, heavy = (np.where(rows[:, 2:] > 0, columns[None, :, k], 0.0) for k in (0, 1))
    along = (np.minimum if dots else np.maximum)(rows[:, :1], thin)
    return np.maximum(along, np.maximum(rows[:, 1:2], heavy))


def _rulings(
    pixels: int, px_per_mm: float, length_mm: float, first_mm: float, step: float, pen: tuple[float, float] | None
) -> NDArray[np.float64]:
    """Strength 0-1, per pixel, of parallel lines `step` mm apart from `first_mm` on: the share of the pixel they cover.

    pen: width in mm and full strength of a line; None draws nothing.
    """
    if pen is None:
        return np.zeros(pixels)
    centre = np.arange(pixels)[:, None]
    lines = np.arange(first_mm, length_mm + step, step)[None, :] * px_per_mm
    half = pen[0] * px_per_mm / 2
    coverage = np.minimum(centre + 0.5, lines + half) - np.maximum(centre - 0.5, lines - half)
    strength: NDArray[np.float64] = np.clip(coverage, 0.0, 1.0).sum(axis=1) * pen[1]
    return strength
