"""Rows of traces on the ink of a sheet: where they run, how high in each column, and their calibration pulses.

The path of a row is the cheapest way through its ink from left to right (dynamic programming). What a column holds of
the stroke at the path then gives the height: its middle on slopes, its end at peaks, which lie inside the column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d, uniform_filter1d
from scipy.signal import find_peaks

from render.jit import jit

Array = NDArray[np.float64]
Ink = NDArray[np.float32]

_INK = 0.35  # of full ink: a stroke
_ROW_APART_MM, _ROW_SMOOTH_MM = 9.0, 1.0
_ROW_SHARE = 0.30  # of the strongest row's
_LEAST_ROW_MM, _LEAST_INKED = 55.0, 0.6
_FLAT_MM, _LEAST_LETTERLESS, _TEXT_GAPS_PER_MM = 0.7, 0.82, 0.12
REACH_MM = 36.0
"""How far a trace may go from its usual level."""
_FAR = 0.012  # cost of each mm from there
_OWN = 0.55  # of the distance to the next row
_CLIMB = 0.12  # cost of one pixel up or down without ink, in columns without ink
_TURN_COLUMNS = 2  # half columns on either side of a wave's end
_GAP_MM = 0.8  # without ink a pen is lifted
_PULSE_MM = (2.0, 11.5)  # width
_PULSE_HEIGHTS_MM = (5.0, 10.0, 20.0)  # 1 mV at the gains in use
_PULSE_ZONE_MM = 26.0


@dataclass(frozen=True)
class Pulse:
    """A calibration pulse. x0, x1: its edges; height: of its top above its foot; foot: level of 0 mV; all mm."""

    x0: float
    x1: float
    height: float
    foot: float


@dataclass(frozen=True, eq=False)
class Row:
    """A row of traces. x, y: (n,) mm of the sheet, two places for each pixel, rising in x; y is NaN where there is no trace.

    level: the row's usual height, mm. start, end: of its trace without pulses, mm. ink: (n,) 0-1 along the trace.
    crowded: (n,) whether another stroke touches or print covers the trace there. pulses: of this row.
    """

    x: Array
    y: Array
    level: float
    start: float
    end: float
    ink: Array
    crowded: NDArray[np.bool_]
    pulses: tuple[Pulse, ...] = ()


def row_levels(ink: Ink, px_per_mm: float) -> list[float]:
    """Heights (mm) at which ink runs from left to right as a row of traces does."""
    column = max(1, round(px_per_mm))
    stroke = ink > _INK
    width = stroke.shape[1] // column * column
    columns = stroke[:, :width].reshape(stroke.shape[0], -1, column).any(axis=2)
    coverage = gaussian_filter1d(columns.mean(axis=1), _ROW_SMOOTH_MM * px_per_mm)
    if not coverage.size or coverage.max() < 0.05:
        return []
    peaks, _ = find_peaks(
        coverage,
        height=_ROW_SHARE * coverage.max(),
        distance=_ROW_APART_MM * px_per_mm,
        prominence=0.15 * coverage.max(),
    )
    return [(float(peak) + 0.5) / px_per_mm for peak in peaks]


@jit
def _cheapest_path(cost, climb):  # type: ignore[no-untyped-def]  # numba infers these
    """Row of each column on the way of least cost through (rows, columns); climb: of moving to a row, of that shape."""
    rows, columns = cost.shape
    total = cost[:, 0].copy()
    origin = np.zeros((columns, rows), np.int32)
    for column in range(1, columns):
        came = origin[column]
        for row in range(rows):
            came[row] = row
        for row in range(1, rows):
            if total[row - 1] + climb[row, column] < total[row]:
                total[row] = total[row - 1] + climb[row, column]
                came[row] = came[row - 1]
        for row in range(rows - 2, -1, -1):
            if total[row + 1] + climb[row, column] < total[row]:
                total[row] = total[row + 1] + climb[row, column]
                came[row] = came[row + 1]
        for row in range(rows):
            total[row] += cost[row, column]
    path = np.zeros(columns, np.int64)
    path[columns - 1] = np.argmin(total)
    for column in range(columns - 1, 0, -1):
        path[column - 1] = origin[column, path[column]]
    return path


@jit
def _strokes(ink, path, threshold, reach):  # type: ignore[no-untyped-def]
    """First and last row (fractions by the ink of the edge) of the stroke at the path in each column; -1 for none."""
    rows, columns = ink.shape
    first, last = np.full(columns, -1.0), np.full(columns, -1.0)
    for column in range(columns):
        seed = -1
        for away in range(reach + 1):
            for row in (path[column] - away, path[column] + away):
                if seed < 0 and 0 <= row < rows and ink[row, column] > threshold:
                    seed = row
        if seed < 0:
            continue
        top, bottom = seed, seed
        while top > 0 and ink[top - 1, column] > threshold:
            top -= 1
        while bottom < rows - 1 and ink[bottom + 1, column] > threshold:
            bottom += 1
        # The pixel beyond an edge holds the rest of the stroke.
        above = ink[top - 1, column] if top > 0 else 0.0
        below = ink[bottom + 1, column] if bottom < rows - 1 else 0.0
        first[column] = top - 0.5 + (1.0 - min(1.0, ink[top, column])) - above
        last[column] = bottom + 0.5 - (1.0 - min(1.0, ink[bottom, column])) + below
    return first, last


@dataclass(frozen=True, eq=False)
class Trace:
    """The pen's way through a band of ink, in pixels of the band.

    place, height: (2 * columns,) of the pen in each half column; height is NaN where there is no trace. first, last:
    (columns,) ends of the stroke in each column. strength: (columns,) ink on the way. thick: (columns,) whether the
    stroke is thicker than the pen where it is level. pen: its width.
    """

    place: Array
    height: Array
    first: Array
    last: Array
    strength: Array
    thick: NDArray[np.bool_]
    pen: float

    @property
    def inked(self) -> NDArray[np.bool_]:
        """(columns,) whether there is a stroke."""
        return self.first >= 0


def trace_band(band: Array, px_per_mm: float, level: float, apart: float) -> Trace:
    """The way through a band of ink (rows, columns) whose trace mostly runs at `level`, pixels.

    apart: pixels to the next row of traces.
    """
    away = np.abs(np.arange(band.shape[0]) + 0.5 - level) / px_per_mm
    # Far rows are nearer to another row's level: the same ink costs more there.
    cost = 1.0 - np.minimum(band, 0.8) / 0.8 + _FAR * away[:, None]
    path = _cheapest_path(cost, _CLIMB * (1.0 - np.minimum(band, 0.95)))
    first, last = _strokes(band, path, _INK, max(1, round(0.4 * px_per_mm)))
    inked = first >= 0
    pen = float(np.percentile((last - first)[inked], 30)) if inked.any() else 1.0
    # A stroke that goes on into the next row may be that row's: which of the two it is cannot be told here.
    shared = inked & ((first < level - _OWN * apart) | (last > level + _OWN * apart))
    place, height, thick = _heights(band, first, last, inked)
    return Trace(place, height, first, last, band[path, np.arange(band.shape[1])], thick | shared, pen)


def trace_row(ink: Ink, px_per_mm: float, level: float, apart_mm: float) -> Row | None:
    """The trace of the row near `level` (mm); None where what runs there is no trace (a line of text, say).

    apart_mm: to the next row.
    """
    reach_mm = float(np.clip(1.3 * apart_mm, 12.0, REACH_MM))
    top = max(0, round((level - reach_mm) * px_per_mm))
    bottom = min(ink.shape[0], round((level + reach_mm) * px_per_mm))
    band = np.ascontiguousarray(ink[top:bottom], dtype=np.float64)
    trace = trace_band(band, px_per_mm, level * px_per_mm - top, apart_mm * px_per_mm)
    span = _main_span(trace.inked, px_per_mm)
    if span is None:
        return None
    begin, end = span
    if (end - begin) / px_per_mm < _LEAST_ROW_MM or trace.inked[begin:end].mean() < _LEAST_INKED:
        return None
    columns = np.arange(ink.shape[1])
    present = trace.inked & (columns >= begin) & (columns < end)
    x = (trace.place + 0.5) / px_per_mm
    y = np.where(present.repeat(2), (top + trace.height + 0.5) / px_per_mm, np.nan)
    if _is_ruling(y[2 * begin : 2 * end]) or _is_text(trace.first[begin:end], trace.inked[begin:end], px_per_mm):
        return None
    return _without_pulses(
        Row(
            x,
            bridged(y, 2 * px_per_mm),
            level=float(np.nanmedian(y)),
            start=float(x[2 * begin]),
            end=float(x[2 * end - 1]),
            ink=np.where(present, trace.strength, 0.0).repeat(2),
            crowded=(trace.thick & present).repeat(2),
        )
    )


def _is_ruling(y: Array) -> bool:
    """Whether it is a line without waves: a table's, a frame's, or of the form's head."""
    y = y[np.isfinite(y)]
    x = np.linspace(-1, 1, y.size)
    rest = y - np.polyval(np.polyfit(x, y, 5), x)
    return float(np.percentile(rest, 98) - np.percentile(rest, 2)) < _FLAT_MM


def _is_text(first: Array, inked: NDArray[np.bool_], px_per_mm: float) -> bool:
    """Whether it is a line of letters: it leaves gaps everywhere, as no trace does."""
    gaps = np.count_nonzero(np.diff(inked.astype(np.int8)) < 0)
    return inked.mean() < _LEAST_LETTERLESS and gaps / (first.size / px_per_mm) > _TEXT_GAPS_PER_MM


def _main_span(inked: NDArray[np.bool_], px_per_mm: float) -> tuple[int, int] | None:
    """First and last (excluded) column of the stretch that holds most of the row."""
    dense = uniform_filter1d(inked.astype(np.float64), max(3, round(6 * px_per_mm))) > 0.5
    edges = np.flatnonzero(np.diff(np.concatenate([[0], dense.astype(np.int8), [0]])))
    if not edges.size:
        return None
    starts, ends = edges[::2], edges[1::2]
    joined = [[int(starts[0]), int(ends[0])]]
    for start, end in zip(starts[1:].tolist(), ends[1:].tolist(), strict=True):
        if start - joined[-1][1] < 25 * px_per_mm:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    begin, end = max(joined, key=lambda span: span[1] - span[0])
    columns = np.flatnonzero(inked[max(0, begin - round(3 * px_per_mm)) : end + round(3 * px_per_mm)])
    return max(0, begin - round(3 * px_per_mm)) + int(columns[0]), max(0, begin - round(3 * px_per_mm)) + int(
        columns[-1]
    ) + 1


def _heights(
    band: Array, first: Array, last: Array, inked: NDArray[np.bool_]
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Place and height of the pen, (2 * columns,) pixels, in each half column; and where a stroke is thick, (columns,).

    Where the way is level each column says how high it lies; where it is steep each row says where it passes.
    """
    extent = np.where(inked, last - first, np.nan)
    pen = float(np.nanpercentile(extent, 30)) if inked.any() else 1.0
    sums, places, counts, tops, bottoms = _points(band, first, last, pen, _pen_weight(band, first, last, inked))
    heights = _turned_at_ends(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), tops, bottoms, pen)
    usual = (np.arange(heights.size) - 0.5) / 2
    place = np.where(counts > 0, places / np.maximum(counts, 1), usual)
    middle = np.where(inked, (first + last) / 2, np.nan).repeat(2)
    empty = ~np.isfinite(heights)
    if (~empty).sum() > 1:
        between = np.interp(usual, place[~empty], heights[~empty])
        heights = np.where(empty & np.isfinite(middle), between, heights)
    heights[~inked.repeat(2)] = np.nan
    crowded = inked & (extent > 3 * pen) & (np.abs(middle[::2] - np.roll(middle[::2], 2)) < pen / 2)
    return place, heights, crowded


def _pen_weight(band: Array, first: Array, last: Array, inked: NDArray[np.bool_]) -> float:
    """The ink across the pen's way where it is level, in pixels of full ink."""
    if not inked.any():
        return 1.0
    sums = np.concatenate([np.zeros((1, band.shape[1])), np.cumsum(band, axis=0)])
    columns = np.flatnonzero(inked)
    top = np.clip(np.floor(first[columns]).astype(int), 0, band.shape[0])
    bottom = np.clip(np.ceil(last[columns]).astype(int) + 1, 0, band.shape[0])
    return float(np.percentile(sums[bottom, columns] - sums[top, columns], 30))


@jit
def _points(ink, first, last, pen, pen_weight):  # type: ignore[no-untyped-def]
    """Sums of the pen's heights and places, their counts, least and greatest height in each half column."""
    columns = first.size
    sums, places, counts = np.zeros(2 * columns), np.zeros(2 * columns), np.zeros(2 * columns)
    tops, bottoms = np.full(2 * columns, np.inf), np.full(2 * columns, -np.inf)
    widest = 2.2 * pen + 1.0
    for column in range(columns):
        if first[column] < -0.9 and last[column] < -0.9:
            continue
        if last[column] - first[column] <= 1.7 * pen:
            middle = (first[column] + last[column]) / 2
            for half in range(2):
                sums[2 * column + half] += middle
                places[2 * column + half] += column - 0.25 + 0.5 * half
                counts[2 * column + half] += 1.0
            continue
        top, bottom = math.ceil(first[column] + pen / 2), math.floor(last[column] - pen / 2)
        for row in range(max(0, top), min(ink.shape[0] - 1, bottom) + 1):
            left, right = column, column  # the stroke that passes here, along the row
            while left > 0 and first[left - 1] - 0.5 <= row <= last[left - 1] + 0.5 and column - left < widest:
                left -= 1
            while (
                right < columns - 1
                and first[right + 1] - 0.5 <= row <= last[right + 1] + 0.5
                and right - column < widest
            ):
                right += 1
            if right - left + 1 > widest:
                continue
            weight, place = 0.0, 0.0
            for x in range(left, right + 1):
                weight += ink[row, x]
                place += ink[row, x] * x
            if weight > 0.0:
                centre = place / weight
                if column != math.floor(centre + 0.5):  # each stroke is counted once
                    continue
                # Near a wave's end its two ways run into one stroke, wider than the pen: they lie at its edges.
                aside = max(0.0, (weight - pen_weight) / 2)
                for side in (-1.0, 1.0):
                    at = centre + side * aside
                    half = min(2 * columns - 1, max(0, math.floor(2 * (at + 0.5))))
                    sums[half] += row
                    places[half] += at
                    counts[half] += 1.0
                    tops[half] = min(tops[half], max(row, first[column] + pen / 2))
                    bottoms[half] = max(bottoms[half], min(row, last[column] - pen / 2))
    return sums, places, counts, tops, bottoms


def _turned_at_ends(heights: Array, tops: Array, bottoms: Array, pen: float) -> Array:
    """Where the pen turns, both ways of a wave run into one stroke, whose end and not whose middle is the wave's."""
    places = np.flatnonzero(np.isfinite(heights))
    if places.size < 3:
        return heights
    own, top, bottom = heights[places], tops[places], bottoms[places]
    spread = bottom - top > 0.5 * pen
    reach = 2 * _TURN_COLUMNS + 1
    turned = heights.copy()
    peak = (
        spread
        & (top <= minimum_filter1d(np.minimum(top, own), reach))
        & (own < np.minimum(np.roll(own, 3), np.roll(own, -3)))
    )
    valley = spread & (bottom >= maximum_filter1d(np.maximum(bottom, own), reach))
    valley &= own > np.maximum(np.roll(own, 3), np.roll(own, -3))
    turned[places[peak]], turned[places[valley]] = tops[places[peak]], bottoms[places[valley]]
    return turned


def bridged(y: Array, px_per_mm: float) -> Array:
    """Gaps of up to `_GAP_MM` closed by straight lines: specks of light on a stroke, no lifted pen."""
    present = np.isfinite(y)
    if present.sum() < 2:
        return y
    columns = np.arange(y.size)
    nearest = np.searchsorted(columns[present], columns)
    left = columns[present][np.clip(nearest - 1, 0, present.sum() - 1)]
    right = columns[present][np.clip(nearest, 0, present.sum() - 1)]
    short = ~present & (right - left <= _GAP_MM * px_per_mm + 1) & (left < columns) & (columns < right)
    closed = y.copy()
    closed[short] = np.interp(columns[short], columns[present], y[present])
    return closed


def _without_pulses(row: Row) -> Row:
    """The row with its calibration pulses found and its trace's start and end set inside them."""
    step = float((row.x[-1] - row.x[0]) / (row.x.size - 1))
    pulses = [p for p in (_pulse(row, step, at_start=True), _pulse(row, step, at_start=False)) if p is not None]
    start, end = row.start, row.end
    middle = (row.start + row.end) / 2
    for pulse in pulses:
        if pulse.x0 < middle:
            start = _after_gap(row, pulse.x1, step)
        else:
            end = _before_gap(row, pulse.x0, step)
    return replace(row, start=start, end=end, pulses=tuple(pulses))


def _pulse(row: Row, step: float, *, at_start: bool) -> Pulse | None:
    """A plateau of a usual height with steep sides near the row's end; of several the one nearest to a usual height."""
    zone = (row.x < row.start + _PULSE_ZONE_MM) if at_start else (row.x > row.end - _PULSE_ZONE_MM)
    index = np.flatnonzero(zone & np.isfinite(row.y))
    if index.size < 2 / step:
        return None
    y = row.y[index]
    candidates: list[tuple[float, Pulse]] = []
    for height in _PULSE_HEIGHTS_MM:
        for foot in (row.level, float(np.nanpercentile(y, 85))):
            near = np.abs(foot - y - height) < 0.12 * height + 0.2
            edges = np.flatnonzero(np.diff(np.concatenate([[0], near.astype(np.int8), [0]])))
            for begin, stop in zip(edges[::2], edges[1::2], strict=True):
                x0, x1, top = float(row.x[index[begin]]), float(row.x[index[stop - 1]]), y[begin:stop]
                sides = (y[max(0, begin - round(1.5 / step)) : begin], y[stop : stop + round(1.5 / step)])
                if not _PULSE_MM[0] <= x1 - x0 + step <= _PULSE_MM[1] or np.ptp(top[1:-1]) > 0.05 * height + 0.25:
                    continue
                if not any(side.size for side in sides) or any(
                    side.size and side.max() < foot - 0.3 * height for side in sides
                ):
                    continue
                if any(side.size and side.min() < top.min() - 0.15 * height for side in sides):
                    continue  # a step on the way up
                measured = foot - float(np.median(top))
                candidates.append(
                    (abs(measured - height) / height + 0.05 * (height != 10.0), Pulse(x0, x1, measured, foot))
                )
    return min(candidates, key=lambda c: c[0])[1] if candidates else None


def _after_gap(row: Row, x: float, step: float) -> float:
    """Where the trace begins behind a pulse that ends at x: after the next gap if one is near, else after the foot."""
    index = int(np.searchsorted(row.x, x))
    near = np.flatnonzero(~np.isfinite(row.y[index : index + round(8.0 / step)]))
    if near.size:
        rest = np.flatnonzero(np.isfinite(row.y[index + near[0] :]))
        if rest.size:
            return float(row.x[index + near[0] + rest[0]])
    return x + 1.5


def _before_gap(row: Row, x: float, step: float) -> float:
    """Where the trace ends before a pulse that begins at x."""
    index = int(np.searchsorted(row.x, x))
    first = max(0, index - round(8.0 / step))
    near = np.flatnonzero(~np.isfinite(row.y[first:index]))
    if near.size:
        rest = np.flatnonzero(np.isfinite(row.y[: first + near[-1]]))
        if rest.size:
            return float(row.x[rest[-1]])
    return x - 1.5


def rows_apart(levels: Sequence[float]) -> float:
    """The usual distance between rows at these levels."""
    return float(np.median(np.diff(levels))) if len(levels) > 1 else REACH_MM


def find_rows(ink: Ink, px_per_mm: float) -> list[Row]:
    """The rows of traces from top to bottom."""
    levels = row_levels(ink, px_per_mm)
    apart = rows_apart(levels)
    rows = [row for row in (trace_row(ink, px_per_mm, level, apart) for level in levels) if row is not None]
    distinct: list[Row] = []
    for row in rows:
        twin = next((r for r in distinct if abs(r.level - row.level) < _ROW_APART_MM / 2), None)
        if twin is None:
            distinct.append(row)
    if not distinct:
        return []
    longest = max(row.end - row.start for row in distinct)
    return [row for row in distinct if row.end - row.start > 0.45 * longest]
