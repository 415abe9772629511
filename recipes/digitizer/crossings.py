"""Waves that reach into the next row: which part of a common stroke belongs to which row of traces.

A downward wave of one row and an upward wave of the next often touch, and are one stroke from level to level. Where
they end before each other, that stroke has least ink across; where they end beside each other, it has that of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label, maximum_filter1d, median_filter, uniform_filter1d

from recipes.digitizer.picture import Array
from recipes.digitizer.traces import STROKE_INK, InkMap, Row, runs

_BESIDE_MM = 1.5  # from a row's level to where strokes are told apart
_LEVEL_MM = 30.0  # of the row, over which the median of its heights is its level there
_LETTER_MM = 2.5  # from the widest place of letters that touch a stroke to their ends
_NARROW_MM = 0.4  # of the mean over heights of the ink across a stroke
_BOTH = (1.3, 2.6)  # ink across two waves side by side, of the usual ink across one; letters have more
_LEAST_BOTH_MM = 0.8  # height over which they are


def separate_rows(ink: InkMap, px_per_mm: float, rows: Sequence[Row]) -> tuple[list[InkMap], list[NDArray[np.bool_]]]:
    """The ink of each row: that of the sheet without what belongs to the rows above and below; and (columns,) where it
    was one stroke with theirs.

    Args:
        ink: of the sheet.
        px_per_mm: pixels of the ink per mm.
        rows: of the sheet, from top to bottom.
    """
    inks = [ink.copy() for _ in rows]
    common = [np.zeros(ink.shape[1], dtype=np.bool_) for _ in rows]
    levels = [_local_level(row, ink.shape[1], px_per_mm) for row in rows]
    for upper in range(len(rows) - 1):
        top = levels[upper] + _BESIDE_MM * px_per_mm
        bottom = levels[upper + 1] - _BESIDE_MM * px_per_mm
        for box, stroke in _bridges(ink, top, bottom):
            across = np.where(stroke, ink[box], 0.0).sum(axis=1)
            inside = slice(  # where all of the stroke's columns are between the rows
                max(0, int(top[box[1]].max()) + 1 - box[0].start), int(bottom[box[1]].min()) - box[0].start
            )
            begin, end = (inside.start + place for place in _ends(across[inside], px_per_mm))
            inks[upper][box][end:][stroke[end:]] = 0.0
            inks[upper + 1][box][:begin][stroke[:begin]] = 0.0
            common[upper][box[1]] = common[upper + 1][box[1]] = True
    return inks, common


def _local_level(row: Row, columns: int, px_per_mm: float) -> Array:
    """The usual height (columns,) of the row around each column, pixels: the paper's baseline wanders."""
    step = max(1, round(px_per_mm))
    places = (np.arange(0, columns, step) + 0.5) / px_per_mm
    present = np.isfinite(row.y)
    heights = np.interp(places, row.x[present], row.y[present])
    usual = median_filter(heights, max(3, round(_LEVEL_MM)), mode="nearest")
    level: Array = np.interp((np.arange(columns) + 0.5) / px_per_mm, places, usual) * px_per_mm
    return level


def _bridges(ink: InkMap, top: Array, bottom: Array) -> list[tuple[tuple[slice, slice], NDArray[np.bool_]]]:
    """Strokes that reach from one height to another, each with the box around it.

    Args:
        ink: of the sheet.
        top: (columns,) the upper height in each column, pixels.
        bottom: (columns,) the lower height.
    """
    first, last = max(0, int(top.min())), min(ink.shape[0], int(bottom.max()) + 1)
    if first >= last:
        return []
    height = np.arange(first, last)[:, None]
    between = (ink[first:last] > STROKE_INK) & (height >= top) & (height < bottom)
    labels, _ = label(between, np.ones((3, 3)))
    bridges = []
    for number, box in enumerate(find_objects(labels), start=1):
        stroke = labels[box] == number
        rows = height[box[0], 0]
        reaches_top = (stroke & (rows[:, None] < top[box[1]] + 1)).any()
        reaches_bottom = (stroke & (rows[:, None] >= bottom[box[1]] - 1)).any()
        if reaches_top and reaches_bottom:
            bridges.append(((slice(first + box[0].start, first + box[0].stop), box[1]), stroke))
    return bridges


def _ends(across: NDArray[np.floating], px_per_mm: float) -> tuple[int, int]:
    """Where the wave of the lower row ends, and where that of the upper row does: places in across, (n,) ink.

    Args:
        across: ink across a stroke, pixels, from the upper row to the lower one.
        px_per_mm: pixels per mm.
    """
    if across.size < 3:
        return across.size // 2, across.size // 2
    smooth = uniform_filter1d(across.astype(np.float64), max(1, round(_NARROW_MM * px_per_mm)))
    usual = float(np.median(smooth))
    reach = 2 * round(_LETTER_MM * px_per_mm) + 1
    letters = maximum_filter1d((smooth > _BOTH[1] * usual).astype(np.int8), reach) > 0
    both = (smooth > _BOTH[0] * usual) & ~letters
    stretches = [start + np.flatnonzero(both[start:stop]) for start, stop in runs(both | letters)]
    longest = max(stretches, key=len, default=np.zeros(0, dtype=np.int64))
    if longest.size > _LEAST_BOTH_MM * px_per_mm:
        return int(longest[0]), int(longest[-1]) + 1
    bare = np.where(letters, np.inf, smooth) if not letters.all() else smooth
    least = np.flatnonzero(bare <= bare.min() + 0.1)
    middle = int(least[least.size // 2])
    return middle, middle
