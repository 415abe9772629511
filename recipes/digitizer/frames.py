"""Frames around the leads, as plotting libraries draw them: what lies on them and outside of them is no trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, find_objects, label, maximum_filter, maximum_filter1d, minimum_filter1d

from recipes.digitizer.traces import STROKE_INK, InkMap, Row, runs

_LEAST_ALONG_MM, _LEAST_ACROSS_MM = 40.0, 12.0  # sides; no trace is as straight, no pulse as high at 10 mm/mV
_CORNER_MM = 2.0  # of a side's end, in which it meets the next: the strokes of an axis go on beyond
_LINE_MM = 0.8  # round a side: its stroke, and a gap at a corner
_RIM_MM, _LEAST_BORDER_MM = 3.0, 60.0  # from the outermost ink: waves reach farther from their row; length of a border
_LEAST_SHARE = 0.6  # of the ink that lies inside: else the frames are those of a table or of a report's head

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Frames:
    """The frames on a sheet.

    Attributes:
        sides: the middles of their left and right lines, mm.
        ends: the middles of their upper and lower lines, mm.
    """

    sides: tuple[float, ...] = ()
    ends: tuple[float, ...] = ()


def inside_frames(ink: InkMap, px_per_mm: float) -> tuple[InkMap, Frames]:
    """The ink (rows, columns) inside the frames on a sheet, and these. Where there are none, all of the ink but
    straight strokes along the upper or lower rim: a page's border, of which the picture cuts parts off.

    Args:
        ink: of the sheet.
        px_per_mm: pixels of the ink per mm.
    """
    stroke = ink > STROKE_INK
    corner, width = round(_CORNER_MM * px_per_mm), 2 * max(1, round(_LINE_MM * px_per_mm)) + 1
    straight = _straight(stroke, 1, _LEAST_ALONG_MM * px_per_mm)
    if not straight.any():
        return ink, Frames()
    inked, rim = np.flatnonzero(stroke.any(axis=1)), round(_RIM_MM * px_per_mm)
    inner = slice(inked[0] + rim, max(inked[0] + rim, inked[-1] + 1 - rim))
    border = _straight(straight, 1, _LEAST_BORDER_MM * px_per_mm)
    border[inner] = False
    ink = np.where(maximum_filter(border, 3), np.float32(0), ink) if border.any() else ink
    across = _between(_straight(stroke, 0, _LEAST_ACROSS_MM * px_per_mm), straight, 0, corner)
    along = _between(straight, across, 1, corner)
    if not along.any():
        return ink, Frames()
    lines: Mask = maximum_filter(along | across, width)
    inside = binary_fill_holes(lines) & ~lines
    if np.count_nonzero(stroke & inside) < _LEAST_SHARE * np.count_nonzero(stroke & ~lines):
        return ink, Frames()
    inside |= maximum_filter(inside, width) & ~maximum_filter(along | across, 3)
    frames = Frames(tuple(_middles(across.sum(axis=0), px_per_mm)), tuple(_middles(along.sum(axis=1), px_per_mm)))
    return np.where(inside, ink, np.float32(0)), frames


def beneath_frames(rows: Sequence[Row], frames: Frames) -> list[Row]:
    """The rows with those ends on a frame's side that reach it: a plot's trace ends beneath the line's middle."""

    def reach(end: float) -> float:
        return min(
            (side for side in frames.sides if abs(side - end) < _LINE_MM), key=lambda side: abs(side - end), default=end
        )

    return [
        replace(
            row,
            start=reach(row.start),
            end=reach(row.end),
            pieces=tuple((reach(left), reach(right)) for left, right in row.pieces),
        )
        for row in rows
    ]


def _middles(length: NDArray[np.integer], px_per_mm: float) -> Iterator[float]:
    """The middles, mm, of strokes of these lengths (n,) in each line of pixels along them."""
    for first, end in runs(length > 0):
        yield float(np.average(np.arange(first, end) + 0.5, weights=length[first:end])) / px_per_mm


def _straight(stroke: Mask, axis: int, length: float) -> Mask:
    """The strokes that run along an axis for so many pixels, in one line of pixels or two neighbouring ones."""
    size = round(length)
    beside = maximum_filter1d(stroke.view(np.uint8), 3, axis=1 - axis)
    lines = np.flatnonzero(beside.sum(axis=axis, dtype=np.int32) >= size)  # few, and the filters take most of the time
    part = np.take(beside, lines, axis=1 - axis)
    part = maximum_filter1d(minimum_filter1d(part, size, axis=axis), size, axis=axis)
    result = np.zeros_like(beside)
    result[(slice(None), lines) if axis == 0 else lines] = part
    straight: Mask = (result > 0) & stroke
    return straight


def _between(sides: Mask, others: Mask, axis: int, corner: int) -> Mask:
    """Those sides along an axis that have one of the others at both ends."""
    near = maximum_filter(others, 3)
    labels, _ = label(sides, np.ones((3, 3)))
    kept = np.zeros_like(sides)
    for number, box in enumerate(find_objects(labels), start=1):
        first, last = (
            tuple(slice(start, start + corner) if k == axis else part for k, part in enumerate(box))
            for start in (box[axis].start, max(0, box[axis].stop - corner))
        )
        if near[first].any() and near[last].any():
            kept[box] |= labels[box] == number
    return kept
