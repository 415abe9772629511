"""Rows of traces on the ink of a sheet: their height in each half column of pixels, and their calibration pulses.

The path of a row is the cheapest one through its ink from left to right (dynamic programming). The stroke around the
path then gives the height: the middle of its columns where it is level, the middle of its rows where it is steep, and
its ends where a wave turns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d, uniform_filter1d

from recipes.digitizer.picture import Array
from render.jit import jit

InkMap = NDArray[np.float32]
"""float32 (rows, columns) of a sheet: 0 bare paper or grid, 1 full ink."""

REACH_MM = 36.0
"""Largest distance of a trace from the usual level of its row, mm."""

USUAL_FOOT_MM = 1.5
"""Between a pulse and a trace that it runs into, where nothing tells more."""

STROKE_INK = 0.35
"""Of full ink: enough for a stroke."""
_ROW_APART_MM, _ROW_SMOOTH_MM = 9.0, 1.0  # least distance of two rows; of the mean over rows of pixels
_ROW_SHARE = 0.30  # of the coverage by ink of the row with the most
_LEAST_ROW_MM, _LEAST_STROKE_SHARE = 55.0, 0.6  # length of a row of traces, share of its columns with a stroke
_SAME_PLACE_MM, _SHARED = 0.3, 0.2  # between the heights of two rows; share of a row that lies on another
_FLAT_MM = 0.7  # a row whose heights differ less is a ruled line
_LEAST_TRACE_SHARE, _TEXT_GAPS_PER_MM = 0.82, 0.12  # a row with fewer strokes and more gaps is text
_FAR = 0.012  # cost of each mm of distance from the row's level
_OWN = 0.55  # of the distance to the next row: beyond, a stroke may belong to that row
_CLIMB = 0.12  # cost of one pixel up or down where there is no ink
_TURN_COLUMNS = 2  # half columns on either side of the end of a wave
_STEEP_END_MM = 1.2  # of a wave that begins or ends in the middle
_SPECK_MM = 0.4  # a shorter stroke before or behind a trace is noise
_GAP_MM = 0.8  # a longer gap in the ink is a gap in the trace
_PULSE_MM = (1.0, 11.5)  # width of a pulse: 0.2 s at 12.5 to 50 mm/s, and its edges; of some machines less
_WIDE_PULSE_MM, _SAME_PULSE_MM, _SAME_PULSE_HEIGHT = 2.5, 1.0, 0.08  # wider than a wave; place and height in other rows
_PULSE_HEIGHTS_MM = (5.0, 10.0, 20.0)  # 1 mV at the gains in use
_CORNER_MM = 0.2  # at either end of a plateau, where the pen turns
_FOOT_MM = 0.8  # of a pulse, at the end of the row
_LONGEST_FOOT_MM, _FLAT_FOOT_MM = 12.0, 0.15  # of a pulse, towards the trace; how far a foot leaves its height
_FEWEST_NAMED, _MOST_ROWS, _SAME_BEGIN_MM = 3, 0.6, 0.5  # rows with names before them; share of those that begin alike
_LEAST_PIECE_MM, _LEAST_NAME_MM, _LONGEST_NAME_MM = 40.0, 3.0, 30.0  # of a trace; from the first ink to the trace
_PULSE_ZONE_MM = 26.0  # from the end of a row, in which its pulse lies


@dataclass(frozen=True)
class CalibrationPulse:
    """A calibration pulse.

    Attributes:
        x0: left edge, mm.
        x1: right edge, mm.
        height: of its top above its foot, mm.
        half: whether a second step, half as high, follows: the sign of chest leads at half the gain.
    """

    x0: float
    x1: float
    height: float
    half: bool = False


@dataclass(frozen=True, eq=False)
class Row:
    """A row of traces, at two places for each pixel of the ink.

    Attributes:
        x: (n,) mm of the sheet, ascending.
        y: (n,) mm of the sheet, downwards; NaN where there is no trace.
        level: the usual y, mm.
        start: of the trace without pulses, mm.
        end: of the trace without pulses, mm.
        ink: (n,) 0-1 along the trace.
        overlap: (n,) whether another stroke or print touches the trace.
        pulses: calibration pulses, from left to right.
        latest_start: where the flat foot of a pulse that runs into the trace ends, mm; the trace begins at `start`,
            there or in between. Minus infinity where there is no pulse before it.
        earliest_end: the same of a pulse behind the trace. Infinity where there is none.
        pieces: left and right end of every stretch with a trace, mm, more exactly than `x`.
    """

    x: Array
    y: Array
    level: float
    start: float
    end: float
    ink: Array
    overlap: NDArray[np.bool_]
    pulses: tuple[CalibrationPulse, ...] = ()
    latest_start: float = -math.inf
    earliest_end: float = math.inf
    pieces: tuple[tuple[float, float], ...] = ()

    @property
    def step(self) -> float:
        """Between the row's places, mm."""
        return float((self.x[-1] - self.x[0]) / (self.x.size - 1))

    def between(self, x0: float, x1: float) -> NDArray[np.bool_]:
        """(n,) which of the row's places lie from x0 up to x1, mm."""
        inside: NDArray[np.bool_] = (self.x >= x0) & (self.x < x1)
        return inside

    def begins_near(self, x: float) -> float:
        """The left end of the stretch that begins nearest to x, mm; x where there is none."""
        return min((left for left, _ in self.pieces), key=lambda left: abs(left - x), default=x)

    def ends_near(self, x: float) -> float:
        """The right end of the stretch that ends nearest to x, mm; x where there is none."""
        return min((right for _, right in self.pieces), key=lambda right: abs(right - x), default=x)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First place and end, excluded, of every stretch in which a mask (n,) is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _row_levels(ink: InkMap, px_per_mm: float) -> list[float]:
    """Heights, mm, at which ink runs from left to right as in a row of traces."""
    column = max(1, round(px_per_mm))
    stroke = ink > STROKE_INK
    width = stroke.shape[1] // column * column
    columns = stroke[:, :width].reshape(stroke.shape[0], -1, column).any(axis=2)
    coverage = gaussian_filter1d(columns.mean(axis=1), _ROW_SMOOTH_MM * px_per_mm)
    if not coverage.size or coverage.max() < 0.05:
        return []
    # scipy.signal.find_peaks takes half a second to import
    reach = 2 * round(_ROW_APART_MM * px_per_mm) + 1
    highest, lowest = maximum_filter1d(coverage, reach, mode="constant"), minimum_filter1d(coverage, reach)
    peaks = np.flatnonzero(
        (coverage == highest) & (coverage > _ROW_SHARE * coverage.max()) & (coverage - lowest > 0.15 * coverage.max())
    )
    return [(float(peak) + 0.5) / px_per_mm for peak in peaks]


@jit
def _cheapest_path(cost, climb):  # type: ignore[no-untyped-def]  # numba infers these
    """The path of least cost through (rows, columns): the row in each column, (columns,).

    Args:
        cost: (rows, columns) of a place on the path.
        climb: (rows, columns) of one step up or down to a place.
    """
    rows, columns = cost.shape
    total = cost[:, 0].copy()
    origin = np.zeros((columns, rows), np.int32)
    for column in range(1, columns):
        source = origin[column]
        for row in range(rows):
            source[row] = row
        for row in range(1, rows):
            if total[row - 1] + climb[row, column] < total[row]:
                total[row] = total[row - 1] + climb[row, column]
                source[row] = source[row - 1]
        for row in range(rows - 2, -1, -1):
            if total[row + 1] + climb[row, column] < total[row]:
                total[row] = total[row + 1] + climb[row, column]
                source[row] = source[row + 1]
        for row in range(rows):
            total[row] += cost[row, column]
    path = np.zeros(columns, np.int64)
    path[columns - 1] = np.argmin(total)
    for column in range(columns - 1, 0, -1):
        path[column - 1] = origin[column, path[column]]
    return path


@jit
def _strokes(ink, path, threshold, reach):  # type: ignore[no-untyped-def]
    """First and last row (columns,) of the stroke at the path; -1 where there is none.

    They are fractions of a pixel, by the ink of the pixels at the edge.

    Args:
        ink: (rows, columns) 0-1.
        path: (columns,) rows.
        threshold: least ink of a stroke.
        reach: rows from the path within which the stroke begins.
    """
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
class PenPath:
    """The way of the pen through a band of ink, in pixels of the band.

    Attributes:
        place: (2 * columns,) x of the pen in each half column.
        height: (2 * columns,) y of the pen in each half column; NaN where there is no trace.
        first: (columns,) upper end of the stroke; -1 where there is none.
        last: (columns,) lower end of the stroke; -1 where there is none.
        strength: (columns,) ink on the path, 0-1.
        overlap: (columns,) whether the stroke is level and thicker than the pen, or reaches the next row.
        pen: width of the pen.
    """

    place: Array
    height: Array
    first: Array
    last: Array
    strength: Array
    overlap: NDArray[np.bool_]
    pen: float

    @property
    def stroke_mask(self) -> NDArray[np.bool_]:
        """Whether there is a stroke, (columns,)."""
        return self.first >= 0


def trace_band(band: Array, px_per_mm: float, level: float, apart: float) -> PenPath:
    """The way of the pen through a band of ink around one row of traces.

    Args:
        band: (rows, columns) of ink, 0-1.
        px_per_mm: pixels of the band per mm.
        level: the usual height of the trace, pixels.
        apart: distance to the next row of traces, pixels.
    """
    distance_mm = np.abs(np.arange(band.shape[0]) + 0.5 - level) / px_per_mm
    # Places far from the level are near to that of another row: the same ink costs more there.
    cost = 1.0 - np.minimum(band, 0.8) / 0.8 + _FAR * distance_mm[:, None]
    path = _cheapest_path(cost, _CLIMB * (1.0 - np.minimum(band, 0.95)))
    first, last = _strokes(band, path, STROKE_INK, max(1, round(0.4 * px_per_mm)))
    _follow_ends(band, path, first, last, round(_STEEP_END_MM * px_per_mm))
    stroke_mask = first >= 0
    pen = float(np.percentile((last - first)[stroke_mask], 30)) if stroke_mask.any() else 1.0
    # A stroke that goes on into the next row may belong to that row, which nothing here decides.
    ambiguous = stroke_mask & ((first < level - _OWN * apart) | (last > level + _OWN * apart))
    place, height, thick = _heights(band, first, last, stroke_mask)
    return PenPath(place, height, first, last, band[path, np.arange(band.shape[1])], thick | ambiguous, pen)


def _follow_ends(band: Array, path: NDArray[np.int64], first: Array, last: Array, reach: int) -> None:
    """Follow the stroke beyond the ends of the path's pieces, in place: a trace that begins in the middle of a steep
    wave is met by the path only where it comes near the level.

    Args:
        band: (rows, columns) of ink, 0-1.
        path: (columns,) rows.
        first: (columns,) upper end of the stroke, -1 where there is none.
        last: (columns,) lower end of the stroke, -1 where there is none.
        reach: columns.
    """
    for begin, end in runs(first >= 0):
        for edge, step in ((begin, -1), (end - 1, 1)):
            for column in range(edge + step, edge + step * (reach + 1), step):
                if not 0 <= column < first.size or first[column] >= 0:
                    break
                top = max(0, math.floor(first[column - step]) - 1)
                touching = np.flatnonzero(band[top : math.ceil(last[column - step]) + 2, column] > STROKE_INK)
                if not touching.size:
                    break
                path[column] = top + touching[touching.size // 2]
                (first[column],), (last[column],) = _strokes(
                    band[:, column : column + 1], path[column : column + 1], STROKE_INK, 0
                )


def _piece_ends(band: Array, trace: PenPath) -> list[tuple[float, float]]:
    """Left and right end of every stretch with a stroke, to a fraction of a pixel by the ink of its last columns."""

    def reach(column: int, beyond: int) -> float:
        rows = slice(max(0, math.floor(trace.first[column])), math.ceil(trace.last[column]) + 1)
        own = float(band[rows, column].max())
        rest = float(band[rows, column + beyond].max()) if 0 <= column + beyond < band.shape[1] else 0.0
        return float(np.clip(min(own, 1.0) + rest, 0.3, 1.2))

    return [(begin + 0.5 - reach(begin, -1), end - 1.5 + reach(end - 1, 1)) for begin, end in runs(trace.stroke_mask)]


def _trace_row(ink: InkMap, px_per_mm: float, level: float, apart_mm: float) -> Row | None:
    """The row of traces near a level; None where the ink there is no trace (a line of text, for example).

    Args:
        ink: of the sheet.
        px_per_mm: pixels of the ink per mm.
        level: mm.
        apart_mm: distance to the next row, mm.
    """
    reach_mm = float(np.clip(1.3 * apart_mm, 12.0, REACH_MM))
    top = max(0, round((level - reach_mm) * px_per_mm))
    bottom = min(ink.shape[0], round((level + reach_mm) * px_per_mm))
    band = np.ascontiguousarray(ink[top:bottom], dtype=np.float64)
    trace = trace_band(band, px_per_mm, level * px_per_mm - top, apart_mm * px_per_mm)
    span = _main_span(trace.stroke_mask, px_per_mm)
    if span is None:
        return None
    begin, end = span
    if (end - begin) / px_per_mm < _LEAST_ROW_MM or trace.stroke_mask[begin:end].mean() < _LEAST_STROKE_SHARE:
        return None
    columns = np.arange(ink.shape[1])
    present = trace.stroke_mask & (columns >= begin) & (columns < end)
    x = (trace.place + 0.5) / px_per_mm
    y = np.where(present.repeat(2), (top + trace.height + 0.5) / px_per_mm, np.nan)
    if _is_ruling(y[2 * begin : 2 * end]) or _is_text(trace.stroke_mask[begin:end], px_per_mm):
        return None
    ends = [((left + 0.5) / px_per_mm, (right + 0.5) / px_per_mm) for left, right in _piece_ends(band, trace)]
    pieces = tuple(piece for piece in ends if x[2 * begin] - 1 < piece[0] and piece[1] < x[2 * end - 1] + 1)
    return Row(
        x,
        close_gaps(y, 2 * px_per_mm),
        level=float(np.nanmedian(y)),
        start=min((left for left, _ in pieces), default=float(x[2 * begin])),
        end=max((right for _, right in pieces), default=float(x[2 * end - 1])),
        ink=np.where(present, trace.strength, 0.0).repeat(2),
        overlap=(trace.overlap & present).repeat(2),
        pieces=pieces,
    )


def _is_ruling(y: Array) -> bool:
    """Whether heights (n,), mm, have no waves: a ruled line of a table, a frame or a form's head."""
    y = y[np.isfinite(y)]
    if not y.size:  # a solid bar, in which no pen has a place
        return True
    x = np.linspace(-1, 1, y.size)
    rest = y - np.polyval(np.polyfit(x, y, 5), x)
    return float(np.percentile(rest, 98) - np.percentile(rest, 2)) < _FLAT_MM


def _is_text(stroke_mask: NDArray[np.bool_], px_per_mm: float) -> bool:
    """Whether a row is a line of letters, which has gaps everywhere."""
    gaps = np.count_nonzero(np.diff(stroke_mask.astype(np.int8)) < 0)
    gaps_per_mm = gaps / (stroke_mask.size / px_per_mm)
    return bool(stroke_mask.mean() < _LEAST_TRACE_SHARE and gaps_per_mm > _TEXT_GAPS_PER_MM)


def _main_span(stroke_mask: NDArray[np.bool_], px_per_mm: float) -> tuple[int, int] | None:
    """First and last column, the last one excluded, of the longest stretch of the row; None for a row without ink."""
    dense = uniform_filter1d(stroke_mask.astype(np.float64), max(3, round(6 * px_per_mm))) > 0.5
    dense_runs = runs(dense)
    if not dense_runs:
        return None
    stretches = [list(dense_runs[0])]
    for start, end in dense_runs[1:]:
        if start - stretches[-1][1] < 25 * px_per_mm:
            stretches[-1][1] = end
        else:
            stretches.append([start, end])
    begin, end = max(stretches, key=lambda span: span[1] - span[0])
    margin = round(3 * px_per_mm)
    first = max(0, begin - margin)
    pieces = runs(stroke_mask[first : end + margin])
    whole = [piece for piece in pieces if piece[1] - piece[0] > _SPECK_MM * px_per_mm] or pieces
    return first + whole[0][0], first + whole[-1][1]


def _heights(
    band: Array, first: Array, last: Array, stroke_mask: NDArray[np.bool_]
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Place and height of the pen in each half column, (2 * columns,) pixels; and where a stroke is thick, (columns,).

    Where the trace is level, each column gives its height; where it is steep, each row gives its place.
    """
    extent = np.where(stroke_mask, last - first, np.nan)
    pen = float(np.nanpercentile(extent, 30)) if stroke_mask.any() else 1.0
    sums, places, counts, tops, bottoms = _points(band, first, last, pen, _pen_weight(band, first, last, stroke_mask))
    heights = _extend_to_stroke_ends(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), tops, bottoms, pen)
    usual = (np.arange(heights.size) - 0.5) / 2
    place = np.where(counts > 0, places / np.maximum(counts, 1), usual)
    middle = np.where(stroke_mask, (first + last) / 2, np.nan).repeat(2)
    empty = ~np.isfinite(heights)
    if (~empty).sum() > 1:
        between = np.interp(usual, place[~empty], heights[~empty])
        heights = np.where(empty & np.isfinite(middle), between, heights)
    heights[~stroke_mask.repeat(2)] = np.nan
    thick = stroke_mask & (extent > 3 * pen) & (np.abs(middle[::2] - np.roll(middle[::2], 2)) < pen / 2)
    return place, heights, thick


def _pen_weight(band: Array, first: Array, last: Array, stroke_mask: NDArray[np.bool_]) -> float:
    """The ink across a level stroke of the pen, in pixels of full ink."""
    if not stroke_mask.any():
        return 1.0
    sums = np.concatenate([np.zeros((1, band.shape[1])), np.cumsum(band, axis=0)])
    columns = np.flatnonzero(stroke_mask)
    top = np.clip(np.floor(first[columns]).astype(int), 0, band.shape[0])
    bottom = np.clip(np.ceil(last[columns]).astype(int) + 1, 0, band.shape[0])
    return float(np.percentile(sums[bottom, columns] - sums[top, columns], 30))


@jit
def _points(ink, first, last, pen, pen_weight):  # type: ignore[no-untyped-def]
    """Sums of the pen's heights and places, their counts, least and greatest height: five arrays (2 * columns,).

    Args:
        ink: (rows, columns) 0-1.
        first: (columns,) upper end of the stroke, -1 for none.
        last: (columns,) lower end of the stroke, -1 for none.
        pen: width, pixels.
        pen_weight: ink across the pen, pixels of full ink.
    """
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
            left, right = column, column  # the extent of the stroke along the row
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
                if column != math.floor(centre + 0.5):  # count each stroke once
                    continue
                # Near the end of a wave its two flanks are one stroke, wider than the pen: they lie at its edges.
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


def _extend_to_stroke_ends(heights: Array, tops: Array, bottoms: Array, pen: float) -> Array:
    """Heights (2 * columns,) with the ends of the stroke where the pen turns.

    There both flanks of a wave are one stroke, and its end, not its middle, is the end of the wave.
    """
    places = np.flatnonzero(np.isfinite(heights))
    if places.size < 3:
        return heights
    own, top, bottom = heights[places], tops[places], bottoms[places]
    tall = bottom - top > 0.5 * pen
    reach = 2 * _TURN_COLUMNS + 1
    rotate_sheet = heights.copy()
    peak = (
        tall
        & (top <= minimum_filter1d(np.minimum(top, own), reach))
        & (own < np.minimum(np.roll(own, 3), np.roll(own, -3)))
    )
    valley = tall & (bottom >= maximum_filter1d(np.maximum(bottom, own), reach))
    valley &= own > np.maximum(np.roll(own, 3), np.roll(own, -3))
    rotate_sheet[places[peak]], rotate_sheet[places[valley]] = tops[places[peak]], bottoms[places[valley]]
    return rotate_sheet


def close_gaps(y: Array, px_per_mm: float) -> Array:
    """Heights (n,) with straight lines in gaps of up to `_GAP_MM`, which are specks of light on a stroke."""
    present = np.isfinite(y)
    if present.sum() < 2:
        return y
    columns = np.arange(y.size)
    nearest = np.searchsorted(columns[present], columns)
    left = columns[present][np.clip(nearest - 1, 0, present.sum() - 1)]
    right = columns[present][np.clip(nearest, 0, present.sum() - 1)]
    short = ~present & (right - left <= _GAP_MM * px_per_mm + 1) & (left < columns) & (columns < right)
    result = y.copy()
    result[short] = np.interp(columns[short], columns[present], y[present])
    return result


def _read_pulses(rows: Sequence[Row]) -> list[Row]:
    """The rows with their calibration pulses, and the start and end of their traces inside them.

    Some machines print pulses as narrow as a wave. They count where two rows have them at the same place, equally high.
    """
    pulses = [[p for p in (_pulse(row, at_start=True), _pulse(row, at_start=False)) if p is not None] for row in rows]
    others = [(number, pulse) for number, own in enumerate(pulses) for pulse in own]

    def is_sure(number: int, pulse: CalibrationPulse) -> bool:
        return pulse.x1 - pulse.x0 >= _WIDE_PULSE_MM or any(
            abs(other.x0 - pulse.x0) < _SAME_PULSE_MM and abs(other.height / pulse.height - 1) < _SAME_PULSE_HEIGHT
            for row, other in others
            if row != number
        )

    return [
        _without_pulses(row, [pulse for pulse in own if is_sure(number, pulse)])
        for number, (row, own) in enumerate(zip(rows, pulses, strict=True))
    ]


def _without_pulses(row: Row, pulses: Sequence[CalibrationPulse]) -> Row:
    """The row with these pulses, and the start and end of its trace inside them."""
    step = row.step
    middle = (row.start + row.end) / 2
    for pulse in pulses:
        if pulse.x0 < middle:
            start = _after_gap(row, pulse.x1, step)
            row = replace(row, start=start, latest_start=start + _foot_mm(row.y[row.x >= start], step))
        else:
            end = _before_gap(row, pulse.x0, step)
            row = replace(row, end=end, earliest_end=end - _foot_mm(row.y[row.x <= end][::-1], step))
    return replace(row, pulses=tuple(pulses))


def _foot_mm(y: Array, step: float) -> float:
    """How far heights (n,) stay as level as the foot of a pulse, mm."""
    near = y[: round(_LONGEST_FOOT_MM / step)]
    away = np.flatnonzero(~(np.abs(near - np.median(near[: max(1, round(_FOOT_MM / step))])) < _FLAT_FOOT_MM))
    return float(away[0] * step) if away.size else _LONGEST_FOOT_MM


def _pulse(row: Row, *, at_start: bool) -> CalibrationPulse | None:
    """The calibration pulse at one end of the row, None without one: a plateau with steep sides.

    Of several candidates, that with the height nearest to 1 mV at a usual gain.
    """
    step = row.step
    zone = (row.x < row.start + _PULSE_ZONE_MM) if at_start else (row.x > row.end - _PULSE_ZONE_MM)
    index = np.flatnonzero(zone & np.isfinite(row.y))
    if index.size < 2 / step:
        return None
    x, y = row.x[index], row.y[index]
    candidates: list[tuple[float, CalibrationPulse]] = []
    end = max(1, round(_FOOT_MM / step))
    own_foot = float(np.median(y[:end] if at_start else y[-end:]))  # some machines draw it below the trace's level
    for height in _PULSE_HEIGHTS_MM:
        for foot in (row.level, float(np.nanpercentile(y, 85)), own_foot):
            for pulse in _plateaus(x, y, foot, height, step):
                misfit = abs(pulse.height - height) / height + 0.05 * (height != 10.0)
                candidates.append((misfit, pulse))
    return min(candidates, key=lambda c: c[0])[1] if candidates else None


def _plateaus(x: Array, y: Array, foot: float, height: float, step: float) -> Iterator[CalibrationPulse]:
    """Plateaus about `height` above `foot` that are as wide, as flat and as steep as a calibration pulse; all mm."""
    near = np.abs(foot - y - height) < 0.12 * height + 0.2
    beside, corner = round(1.5 / step), max(1, round(_CORNER_MM / step))
    for begin, stop in runs(near):
        x0, x1, top = float(x[begin]), float(x[stop - 1]), y[begin:stop]
        flat = top[corner : top.size - corner]
        if not flat.size or not _PULSE_MM[0] <= x1 - x0 + step <= _PULSE_MM[1] or np.ptp(flat) > 0.05 * height + 0.25:
            continue
        sides = [side for side in (y[max(0, begin - beside) : begin], y[stop : stop + beside]) if side.size]
        edge = max(1, round(0.4 / step))  # of the stroke between the steps
        after = y[stop + edge : stop + beside]
        half = bool(after.size and np.abs(foot - height / 2 - after).max() < 0.06 * height + 0.15)
        # Where a row begins or ends with the edge of a pulse, the middle of that stroke is all there is of it.
        reaches_foot = all(
            side.max() >= foot - (0.3 if side.size == beside else 0.6) * height
            for side in (sides[:1] if half else sides)
        )
        is_step = any(side.min() < top.min() - 0.15 * height for side in sides)  # on the way up to a higher wave
        if sides and reaches_foot and not is_step:
            yield CalibrationPulse(x0, 2 * x1 - x0 if half else x1, foot - float(np.median(top)), half)


def _after_gap(row: Row, x: float, step: float) -> float:
    """Start of the trace, mm, behind a pulse that ends at x: after the next gap if one is near, else after the foot."""
    index = int(np.searchsorted(row.x, x))
    near = np.flatnonzero(~np.isfinite(row.y[index : index + round(8.0 / step)]))
    if near.size:
        rest = np.flatnonzero(np.isfinite(row.y[index + near[0] :]))
        if rest.size:
            return row.begins_near(float(row.x[index + near[0] + rest[0]]))
    return x + USUAL_FOOT_MM


def _before_gap(row: Row, x: float, step: float) -> float:
    """End of the trace, mm, before a pulse that begins at x."""
    index = int(np.searchsorted(row.x, x))
    first = max(0, index - round(8.0 / step))
    near = np.flatnonzero(~np.isfinite(row.y[first:index]))
    if near.size:
        rest = np.flatnonzero(np.isfinite(row.y[: first + near[-1]]))
        if rest.size:
            return row.ends_near(float(row.x[rest[-1]]))
    return x - USUAL_FOOT_MM


def row_distance(levels: Sequence[float]) -> float:
    """The usual distance between rows at these levels, in their unit."""
    return float(np.median(np.diff(levels))) if len(levels) > 1 else REACH_MM


def _are_distinct(row: Row, other: Row) -> bool:
    """Whether two rows of a sheet are two traces: neither at one level nor, for much of their length, at one place."""
    shared = np.mean(np.abs(row.y - other.y)[np.isfinite(row.y)] < _SAME_PLACE_MM)
    return abs(other.level - row.level) >= _ROW_APART_MM / 2 and bool(shared < _SHARED)


def find_rows(ink: InkMap, px_per_mm: float, *, regular: bool = False) -> list[Row]:
    """The rows of traces on a sheet, from top to bottom.

    Args:
        ink: of the sheet.
        px_per_mm: pixels of the ink per mm.
        regular: look for a trace also where a row is missing among rows at equal distances, or before and behind them:
            one that wanders or leaves the paper has little ink at any one height.
    """
    levels = _row_levels(ink, px_per_mm)
    apart = row_distance(levels)
    if regular and len(levels) > 1:
        steps = np.arange(-1, round((levels[-1] - levels[0]) / apart) + 2)
        places = levels[0] + steps * (levels[-1] - levels[0]) / max(1, steps.size - 3)
        missing = [float(p) for p in places if np.abs(np.array(levels) - p).min() > apart / 2]
        levels = sorted(levels + [p for p in missing if 0 < p * px_per_mm < ink.shape[0]])
    traced = [(level, row) for level in levels if (row := _trace_row(ink, px_per_mm, level, apart)) is not None]
    distinct: list[Row] = []
    # From the level of a line of print the same trace is found, and left for the print where it ends.
    for _, row in sorted(traced, key=lambda pair: abs(pair[1].level - pair[0])):
        if all(_are_distinct(row, other) for other in distinct):
            distinct.append(row)
    distinct.sort(key=lambda row: row.level)
    if not distinct:
        return []
    longest = max(row.end - row.start for row in distinct)
    return _behind_names(_read_pulses([row for row in distinct if row.end - row.start > 0.45 * longest]))


def _behind_names(rows: Sequence[Row]) -> list[Row]:
    """The rows without names that stand before their traces, at their height: most traces begin at one place behind."""
    long = ([left for left, right in row.pieces if right - left > _LEAST_PIECE_MM] for row in rows)
    begins = np.array([left[0] for left in long if left])
    if len(rows) < _FEWEST_NAMED or not begins.size:
        return list(rows)
    near = np.abs(begins[:, None] - begins) < _SAME_BEGIN_MM
    most = int(near.sum(axis=0).argmax())
    begin = float(np.median(begins[near[most]]))
    first = float(np.median([min((left for left, _ in row.pieces), default=row.start) for row in rows]))
    if near[most].sum() < _MOST_ROWS * len(rows) or not _LEAST_NAME_MM < begin - first < _LONGEST_NAME_MM:
        return list(rows)
    behind = []
    for row in rows:
        before = row.x < begin - row.step
        for pulse in row.pulses:
            before &= ~row.between(pulse.x0 - USUAL_FOOT_MM, pulse.x1 + USUAL_FOOT_MM)
        row = replace(row, y=np.where(before, np.nan, row.y))
        if row.start < begin - _SAME_BEGIN_MM:
            pieces = tuple((left, right) for left, right in row.pieces if right > begin)
            row = replace(row, start=begin, latest_start=-math.inf, pieces=pieces)
        behind.append(row)
    return behind
