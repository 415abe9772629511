"""Traces at a fraction of a pixel: the polyline whose drawing with a round pen is most like the ink.

The two flanks of a narrow wave are one stroke, and no single column of pixels shows either of them; the shape of the
whole stroke does. The vertices of the polyline are half a pixel apart and move up and down only. A pixel depends on the
two ends of its nearest segment, so that each Gauss-Newton step solves a system of five diagonals.

Where a wave crosses another row, the row is traced once more on what the drawings of the others leave of the ink, and
the trace is kept that makes all drawings together most like it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from scipy.ndimage import find_objects, label, maximum_filter1d, minimum_filter1d, uniform_filter1d

from recipes.digitizer.crossings import separate_rows
from recipes.digitizer.layout import Span
from recipes.digitizer.picture import Array
from recipes.digitizer.traces import REACH_MM, InkMap, PenPath, Row, close_gaps, row_distance, runs, trace_band
from render.jit import jit

_STEPS = 14
_SMOOTH = 0.02  # weight of a second difference of one pixel, relative to an error of 1 in a pixel's ink
_DAMPING = 0.02
_TURN = 1.0  # pixels: a larger second difference is the turn of a wave and counts less
_LONGEST_STEP, _LEAST_STEP = 3.0, 0.03  # pixels
_FIRST_BLUR, _LEAST_BLUR, _MOST_BLUR = 0.4, 0.15, 1.5  # pixels
_ROBUST = 0.5  # ink: a pixel with a larger error counts less, since other ink lies there
_SAME_APART_MM = 0.7  # from the trace of another row; nearer over that long and much, it is the same trace
_SAME_MM, _SAME_SHARE = 10.0, 0.9
_REACHED_MM, _AROUND_MM = 2.0, 2.0  # from a row's level to another's wave; columns on both sides of it
_COVERED, _HIDDEN = 0.4, 0.3  # ink of others under which a row's own is not seen; what is taken for it
_SWEEPS, _LEAST_GAIN_MM = 3, 1.0  # over all rows, at most; of a stroke that is one pixel wide, better explained
_FOREIGN, _FOREIGN_MM, _ASIDE_PX = 0.5, 2.0, 2  # ink of a stroke of no row; its length at least; from a trace's drawing
_MARK_INK = 0.3  # of a mark between leads; half of it at most beside the mark
_MARK_ROWS, _MARK_REST = 0.6, 0.3  # share of the rows with a mark; of its length, a stroke's rest that is no part of it
_MARK_ASIDE_MM, _LEAST_MARK_MM, _MARK_REACH_MM = 0.6, 1.5, 16.0  # to its bare sides; its length; from the row's level


@jit
def _rows_near(y, column, margin, rows):  # type: ignore[no-untyped-def]  # numba infers these
    """First row and end, excluded, of the pixels of a column that the polyline y (2 * columns,) may blacken."""
    top, bottom = math.inf, -math.inf
    for j in range(max(0, 2 * column - 3), min(y.size, 2 * column + 5)):
        if not math.isnan(y[j]):
            top, bottom = min(top, y[j]), max(bottom, y[j])
    if top > bottom:
        return 0, 0
    return max(0, int(top - margin)), min(rows - 1, int(bottom + margin) + 1) + 1


@jit
def _nearest(y, row, column, margin):  # type: ignore[no-untyped-def]
    """The polyline's segment nearest to a pixel: square of the distance; its number, or -1 beyond the margin; where on
    it, 0-1; how far the pixel is below that place."""
    reach = math.ceil(margin) + 1
    best, at, share, up = margin * margin, -1, 0.0, 0.0
    for j in range(max(0, 2 * (column - reach)), min(y.size - 1, 2 * (column + reach) + 1)):
        a, b = y[j], y[j + 1]
        if math.isnan(a) or math.isnan(b):
            continue
        if row < min(a, b) - margin or row > max(a, b) + margin:
            continue
        dx, dy = column - (j - 0.5) / 2, row - a
        slope = b - a
        t = (dx * 0.5 + dy * slope) / (0.25 + slope * slope)
        t = min(1.0, max(0.0, t))
        ex, ey = dx - 0.5 * t, dy - slope * t
        distance = ex * ex + ey * ey
        if distance < best:
            best, at, share, up = distance, j, t, ey
    return best, at, share, up


@jit
def _draw(ink, y, pen, blur):  # type: ignore[no-untyped-def]
    """Draw the polyline y (2 * columns,) on ink (rows, columns), in place; pen and blur as in `_normal_equations`."""
    margin = pen / 2 + 4 * blur + 0.5
    for column in range(ink.shape[1]):
        first, last = _rows_near(y, column, margin, ink.shape[0])
        for row in range(first, last):
            best, at, _, _ = _nearest(y, row, column, margin)
            if at >= 0:
                value = 1.0 / (1.0 + math.exp(min(30.0, (math.sqrt(best) - pen / 2) / blur)))
                ink[row, column] = max(ink[row, column], value)


@jit
def _normal_equations(ink, y, pen, blur):  # type: ignore[no-untyped-def]
    """The Gauss-Newton step of heights, pen and blur.

    Args:
        ink: float64 (rows, columns) 0-1; NaN where other ink lies over it.
        y: (2 * columns,) heights of the vertices, pixels; NaN where there is no trace.
        pen: width, pixels.
        blur: of the edge of a stroke, pixels.

    Returns:
        Diagonal, next diagonal and right side of the system for y, each (2 * columns,); and (5,) for pen and blur:
        squares and product of the derivatives by both, and the products with the error.
    """
    columns, vertices = ink.shape[1], y.size
    diagonal, beside, right = np.zeros(vertices), np.zeros(vertices), np.zeros(vertices)
    shape = np.zeros(5)
    margin = pen / 2 + 4 * blur + 0.5
    for column in range(columns):
        first, last = _rows_near(y, column, margin, ink.shape[0])
        for row in range(first, last):
            if math.isnan(ink[row, column]):
                continue
            best, at, share, up = _nearest(y, row, column, margin)
            if at < 0:
                continue
            away = math.sqrt(best)
            value = 1.0 / (1.0 + math.exp(min(30.0, (away - pen / 2) / blur)))
            error = ink[row, column] - value
            weight = 1.0 / (1.0 + (error / _ROBUST) ** 2)
            steep = value * (1.0 - value) / blur  # minus the derivative by the distance
            direction = up / max(away, 1e-6)
            left_by, right_by = steep * (1.0 - share) * direction, steep * share * direction
            diagonal[at] += weight * left_by * left_by
            diagonal[at + 1] += weight * right_by * right_by
            beside[at] += weight * left_by * right_by
            right[at] += weight * left_by * error
            right[at + 1] += weight * right_by * error
            by_pen, by_blur = steep / 2, steep * (away - pen / 2) / blur
            shape[0] += weight * by_pen * by_pen
            shape[1] += weight * by_pen * by_blur
            shape[2] += weight * by_blur * by_blur
            shape[3] += weight * by_pen * error
            shape[4] += weight * by_blur * error
    return diagonal, beside, right, shape


def fit_pen(ink: NDArray[np.floating], heights: Array, pen: float) -> tuple[Array, float, float]:
    """Heights (2 * columns,) of the pen in each half column, pixels (NaN stays NaN); its width; the blur of its edge.

    Args:
        ink: (rows, columns) 0-1; NaN where other ink lies over it. The centre of the top left pixel is at (0, 0).
        heights: (2 * columns,) pixels, to start from; within a few pixels of the stroke.
        pen: about its width, pixels; it is fitted too.
    """
    band = np.ascontiguousarray(ink, dtype=np.float64)
    y = heights.astype(np.float64).copy()
    present = np.isfinite(y)
    blur = _FIRST_BLUR
    if present.sum() < 3:
        return y, pen, blur
    bands = np.zeros((3, y.size))
    for _ in range(_STEPS):
        diagonal, beside, right, shape = _normal_equations(band, y, pen, blur)
        smooth = _second_differences(y)
        bands[0] = np.where(present, diagonal * (1 + _DAMPING) + 1e-4 + smooth[0], 1.0)
        bands[1] = beside + smooth[1]
        bands[2] = smooth[2]
        force = np.where(present, right - _product(smooth, np.where(present, y, 0.0)), 0.0)
        step = solveh_banded(bands, force, lower=True, check_finite=False)
        step = np.where(present, np.clip(step, -_LONGEST_STEP, _LONGEST_STEP), 0.0)
        y += step
        pen, blur = _shape_step(pen, blur, shape)
        if np.abs(step).max() < _LEAST_STEP:
            break
    return y, pen, blur


def _shape_step(pen: float, blur: float, shape: Array) -> tuple[float, float]:
    """Width and blur of the pen after their step, from the sums (5,) of `_normal_equations`."""
    matrix = np.array([[shape[0], shape[1]], [shape[1], shape[2]]]) * (1 + 0.05 * np.eye(2)) + 1e-6 * np.eye(2)
    by_pen, by_blur = np.linalg.solve(matrix, shape[3:5])
    return (
        float(np.clip(pen + np.clip(by_pen, -0.3, 0.3), 0.6, 12.0)),
        float(np.clip(blur + np.clip(by_blur, -0.1, 0.1), _LEAST_BLUR, _MOST_BLUR)),
    )


def _second_differences(y: Array) -> Array:
    """The main and the two lower diagonals (3, n) of the matrix that sums weighted squares of second differences of y.

    A difference of several pixels counts little: there a wave turns.
    """
    second = np.nan_to_num(y[:-2] - 2 * y[1:-1] + y[2:], nan=np.inf)
    weight = _SMOOTH / (1.0 + (second / _TURN) ** 2)
    n = y.size
    bands = np.zeros((3, n))
    bands[0, :-2] += weight
    bands[0, 1:-1] += 4 * weight
    bands[0, 2:] += weight
    bands[1, : n - 2] += -2 * weight
    bands[1, 1 : n - 1] += -2 * weight
    bands[2, : n - 2] += weight
    return bands


def _product(bands: Array, values: Array) -> Array:
    """The symmetric matrix with the diagonals `bands` (3, n) times values (n,)."""
    result: Array = bands[0] * values
    for k in (1, 2):
        result[k:] += bands[k, :-k] * values[:-k]
        result[:-k] += bands[k, :-k] * values[k:]
    return result


def refine_rows(ink: InkMap, px_per_mm: float, rows: Sequence[Row], spans: Sequence[Span]) -> list[Row]:
    """The rows with the pen fitted to the ink: each lead separately, without the marks between leads.

    Args:
        ink: of the sheet.
        px_per_mm: pixels of the ink per mm.
        rows: of the sheet, as `recipes.digitizer.traces.find_rows` gives them.
        spans: the leads' places on the rows.
    """
    plain = _without_marks(ink, px_per_mm, rows, spans)
    apart = row_distance([row.level for row in rows])
    inks, common = separate_rows(plain, px_per_mm, rows)
    traced = [
        _refine_row(inks[number], px_per_mm, row, apart, [span for span in spans if span.row == number])
        for number, row in enumerate(rows)
    ]
    traced = _retrace(plain, px_per_mm, traced, common, apart, spans)
    foreign = _touched(plain, px_per_mm, traced)
    refined_rows = [
        replace(trace.row, overlap=trace.row.overlap | (strokes | touched).repeat(2))
        for trace, strokes, touched in zip(traced, common, foreign, strict=True)
    ]
    return [_without_other_traces(row, refined_rows, px_per_mm) for row in refined_rows]


@dataclass(frozen=True, eq=False)
class _Traced:
    """A row with the pen that drew it: its width and the blur of its edge, pixels."""

    row: Row
    pen: float
    blur: float

    def drawn(self, columns: slice, ink: InkMap, px_per_mm: float, wider: float = 0.0) -> InkMap:
        """What the row alone blackens in some columns of the ink, with a pen that is `wider` by so many pixels."""
        alone = np.zeros_like(ink[:, columns])
        y = self.row.y[2 * columns.start : 2 * columns.stop] * px_per_mm - 0.5
        _draw(alone, y, self.pen + wider, self.blur)
        return alone


def _retrace(
    ink: InkMap,
    px_per_mm: float,
    traced: Sequence[_Traced],
    common: Sequence[NDArray[np.bool_]],
    apart: float,
    spans: Sequence[Span],
) -> list[_Traced]:
    """The rows traced again where waves of others touch or cross them, on the ink that these leave.

    What is traced is kept where all rows together then look more like the ink.

    Args:
        ink: of the sheet, without marks between leads.
        px_per_mm: pixels of the ink per mm.
        traced: the rows, each traced by itself.
        common: (columns,) of each row, where it was one stroke with its neighbours'.
        apart: distance of two rows, mm.
        spans: the leads' places on the rows.
    """
    result = list(traced)
    tried: dict[tuple[int, int, int], Array] = {}  # heights of the other rows, by which a row's new trace is determined
    for _ in range(_SWEEPS):
        before = list(result)
        for number, strokes in enumerate(common):
            crossed = _crossed(result, number, strokes, px_per_mm)
            for first, last in (_columns(span, ink, px_per_mm) for span in spans if span.row == number):
                for begin, end in runs(crossed[first:last]):
                    columns = slice(first + begin, first + end)
                    others = np.array([t.row.y[2 * columns.start : 2 * columns.stop] for t in result])
                    others[number] = 0.0
                    place = (number, columns.start, columns.stop)
                    if place not in tried or not np.array_equal(others, tried[place], equal_nan=True):
                        result[number] = _retrace_columns(ink, px_per_mm, result, number, columns, apart)
                        tried[place] = others
        if all(new is old for new, old in zip(result, before, strict=True)):
            break
    return result


def _retrace_columns(
    ink: InkMap, px_per_mm: float, traced: Sequence[_Traced], number: int, columns: slice, apart: float
) -> _Traced:
    """The row of this number, traced again in these columns; the very same where the ink is no better explained."""
    current = traced[number]
    others = np.max(
        [trace.drawn(columns, ink, px_per_mm) for other, trace in enumerate(traced) if other != number], axis=0
    )
    rest = ink[:, columns]
    piece = _trace_piece(np.where(others > _COVERED, np.nan, rest), px_per_mm, current.row.level, apart)
    if piece is None:
        return current
    places = slice(2 * columns.start, 2 * columns.stop)
    y, strength = current.row.y.copy(), current.row.ink.copy()
    y[places], strength[places] = piece.y, piece.strength
    again = replace(current, row=replace(current.row, y=y, ink=strength))
    now, then = (
        np.abs(np.maximum(others, trace.drawn(columns, ink, px_per_mm)) - rest).sum() for trace in (current, again)
    )
    return again if then < now - _LEAST_GAIN_MM * px_per_mm else current


def _touched(ink: InkMap, px_per_mm: float, traced: Sequence[_Traced]) -> list[NDArray[np.bool_]]:
    """Columns (n,) of each row in which ink that no row draws touches its trace, as handwriting and print do."""
    drawings = [trace.drawn(slice(0, ink.shape[1]), ink, px_per_mm, wider=2 * _ASIDE_PX) for trace in traced]
    strokes, _ = label((ink > _FOREIGN) & (np.max(drawings, axis=0) < _FOREIGN), np.ones((3, 3)))
    places = find_objects(strokes)
    result = [np.zeros(ink.shape[1], dtype=np.bool_) for _ in traced]
    for trace, touched in zip(traced, result, strict=True):
        around = trace.drawn(slice(0, ink.shape[1]), ink, px_per_mm, wider=4 * _ASIDE_PX) > _FOREIGN
        for number in np.unique(strokes[around])[1:]:
            rows, columns = places[number - 1]
            if max(rows.stop - rows.start, columns.stop - columns.start) > _FOREIGN_MM * px_per_mm:
                touched[columns] = True
    return result


def _crossed(traced: Sequence[_Traced], number: int, strokes: NDArray[np.bool_], px_per_mm: float) -> NDArray[np.bool_]:
    """Columns (n,) in and around which a wave of another row touches or reaches this one."""
    level = traced[number].row.level
    near = strokes.copy()
    for other, trace in enumerate(traced):
        if other != number:
            beyond = (trace.row.y - level) * np.sign(trace.row.level - level) < _REACHED_MM
            near |= beyond.reshape(-1, 2).any(axis=1)
    around: NDArray[np.bool_] = maximum_filter1d(near.astype(np.int8), 2 * round(_AROUND_MM * px_per_mm) + 1) > 0
    return around


def _refine_row(ink: InkMap, px_per_mm: float, row: Row, apart: float, spans: Sequence[Span]) -> _Traced:
    """The row traced again, each of its leads separately, since the strokes of two leads join at their common end."""
    places = (np.arange(2 * ink.shape[1]) - 0.5) / 2  # middles of the half columns
    y, strength, overlap = np.full(places.size, np.nan), np.zeros(places.size), np.zeros(places.size, dtype=np.bool_)
    pieces = []
    for begin, end in (_columns(span, ink, px_per_mm) for span in spans):
        piece = _trace_piece(ink[:, begin:end], px_per_mm, row.level, apart)
        if piece is None:
            continue
        inside = slice(2 * begin, 2 * end)
        y[inside], strength[inside], overlap[inside] = piece.y, piece.strength, piece.overlap
        pieces.append(piece)
    pen = float(np.median([piece.pen for piece in pieces] or [1.0]))
    blur = float(np.median([piece.blur for piece in pieces] or [_FIRST_BLUR]))
    refined = replace(row, x=(places + 0.5) / px_per_mm, y=y, ink=strength, overlap=overlap)
    return _Traced(refined, pen, blur)


def _columns(span: Span, ink: InkMap, px_per_mm: float) -> tuple[int, int]:
    """First column of the ink with a lead, and its end, excluded."""
    return max(0, round(span.x0 * px_per_mm)), min(ink.shape[1], round(span.x1 * px_per_mm))


@dataclass(frozen=True, eq=False)
class _Piece:
    """A stretch of a row, at two places for each column of ink: y in mm of the sheet, `strength` as `Row.ink`, and the
    pen as in `_Traced`."""

    y: Array
    strength: Array
    overlap: NDArray[np.bool_]
    pen: float
    blur: float


def _trace_piece(ink: NDArray[np.floating], px_per_mm: float, level: float, apart: float) -> _Piece | None:
    """A row's trace in some columns (all rows of the sheet) of ink; None where there is none.

    Args:
        ink: NaN where that of other rows lies over it.
        px_per_mm: pixels of the ink per mm.
        level: of the row, mm.
        apart: distance of two rows, mm.
    """
    top = max(0, round((level - REACH_MM) * px_per_mm))
    bottom = min(ink.shape[0], round((level + REACH_MM) * px_per_mm))
    band = np.ascontiguousarray(ink[top:bottom], dtype=np.float64)
    if band.shape[1] < 3:
        return None
    seen = np.nan_to_num(band, nan=_HIDDEN)
    trace = trace_band(seen, px_per_mm, level * px_per_mm - top, apart * px_per_mm)
    if not np.isfinite(trace.height).any():
        return None
    heights, pen, blur = _fit_trace(band, trace, px_per_mm)
    nearest = np.clip(np.rint(np.nan_to_num(heights)).astype(np.int64), 0, band.shape[0] - 1)
    strength = seen[nearest, np.arange(nearest.size) // 2]
    return _Piece((heights + top + 0.5) / px_per_mm, strength, trace.overlap.repeat(2), pen, blur)


def _without_other_traces(row: Row, rows: Sequence[Row], px_per_mm: float) -> Row:
    """The row without what is the trace of a row whose level is nearer: its own lead is missing there."""
    window = max(3, round(2 * _SAME_MM * px_per_mm))
    y = row.y.copy()
    for other in rows:
        same = np.abs(row.y - other.y) < _SAME_APART_MM
        same &= np.abs(row.y - other.level) < np.abs(row.y - row.level)
        stays = uniform_filter1d(same.astype(np.float64), window) > _SAME_SHARE
        y[(maximum_filter1d(stays.astype(np.int8), window) > 0) & same] = np.nan
    return replace(row, y=y)


def _fit_trace(band: Array, trace: PenPath, px_per_mm: float) -> tuple[Array, float, float]:
    """As `fit_pen` in a band of ink, from the trace through it."""
    present = np.isfinite(trace.height)
    places = (np.arange(present.size) - 0.5) / 2
    heights = np.where(present, np.interp(places, trace.place[present], trace.height[present]), np.nan)
    fit = fit_pen(band, close_gaps(heights, 2 * px_per_mm), trace.pen)
    if (longer := _move_to_stroke_ends(fit[0], trace)) is not None:
        fit = fit_pen(band, longer, trace.pen)
    return fit


def _move_to_stroke_ends(heights: Array, trace: PenPath) -> Array | None:
    """Heights at the end of the stroke where more than two pens' widths of it lie beyond the polyline.

    None where there is no such place, and the fit is complete.
    """
    size = 2 * (math.ceil(trace.pen / 2) + 1) + 1  # columns that a pen in the middle one can blacken
    columns = heights.reshape(-1, 2)
    low = minimum_filter1d(np.nan_to_num(columns, nan=np.inf).min(axis=1), size)
    high = maximum_filter1d(np.nan_to_num(columns, nan=-np.inf).max(axis=1), size)
    above, below = low - (trace.first + trace.pen / 2), (trace.last - trace.pen / 2) - high
    missing = trace.stroke_mask & np.isfinite(low) & (np.maximum(above, below) > 2 * trace.pen)
    if not missing.any():
        return None
    ends = np.where(above > below, trace.first + trace.pen / 2, trace.last - trace.pen / 2)
    return np.where(missing.repeat(2) & np.isfinite(heights), ends.repeat(2), heights)


def _without_marks(ink: InkMap, px_per_mm: float, rows: Sequence[Row], spans: Sequence[Span]) -> InkMap:
    """The ink without the vertical marks between leads, which are thin strokes at the same heights in most rows."""
    plain = ink.copy()
    half, width = round(_MARK_REACH_MM * px_per_mm), round(_MARK_ASIDE_MM * px_per_mm)
    for edge in sorted({span.x0 for span in spans} | {span.x1 for span in spans}):
        column = round(edge * px_per_mm)
        numbers = sorted({span.row for span in spans if edge in (span.x0, span.x1)})
        inside = 2 * width + 2 <= column < ink.shape[1] - 2 * width - 2
        if not inside or len(numbers) < 2:
            continue
        levels = [round(rows[number].level * px_per_mm) for number in numbers]
        strokes = [_thin_stroke(ink, column, level, half, width) for level in levels]
        common = np.mean([thin for thin, _ in strokes], axis=0) > _MARK_ROWS
        if common.sum() < _LEAST_MARK_MM * px_per_mm:
            continue
        # Where columns begin in the middle of a heartbeat, its waves are strokes as well, of different lengths.
        alike = [(thin & ~common).sum() < _MARK_REST * common.sum() for thin, _ in strokes]
        if np.mean(alike) <= _MARK_ROWS:
            continue
        pen = max(1, width // 2)
        for level, (thin, centre) in zip(levels, strokes, strict=True):
            plain[level - half + np.flatnonzero(thin & common), centre - pen : centre + pen + 1] = 0.0
    return plain


def _thin_stroke(ink: InkMap, column: int, level: int, half: int, width: int) -> tuple[NDArray[np.bool_], int]:
    """Where the darkest vertical stroke near a column has bare paper on both sides, (2 * half,); and its column.

    Args:
        ink: of the sheet.
        column: pixels.
        level: pixels; the result begins `half` pixels above it.
        half: pixels.
        width: from the stroke to its bare sides, pixels, and how far it may be from the column.
    """
    window = np.zeros((2 * half, 4 * width + 1), dtype=np.float32)
    top, bottom = max(0, level - half), min(ink.shape[0], level + half)
    window[top - level + half : bottom - level + half] = ink[top:bottom, column - 2 * width : column + 2 * width + 1]
    centre = int(np.argmax(window[:, width : 3 * width + 1].sum(axis=0))) + width
    beside = np.maximum(window[:, centre - width], window[:, centre + width])
    return (window[:, centre] > _MARK_INK) & (beside < _MARK_INK / 2), column - 2 * width + centre
