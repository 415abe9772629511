"""The pen's way fitted to the ink: a polyline is drawn with a round pen, and moved until it leaves the ink that is there.

Where a wave is narrow its two ways run into one stroke, and no column of pixels says where either lies; what the whole
stroke looks like says it. Vertices stand half a pixel apart and move up and down only. A pixel depends on the two ends
of its nearest segment, so that one step of Gauss and Newton solves a system of five diagonals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from recipes.digitizer.layout import Span
from recipes.digitizer.traces import REACH_MM, Ink, Row, Trace, bridged, rows_apart, trace_band
from render.jit import jit

Array = NDArray[np.float64]

_STEPS = 14
_SMOOTH = 0.02  # weight of a second difference of one pixel beside a pixel's error of 1
_DAMPING = 0.02
_TURN = 1.0  # pixels of a second difference
_LONGEST_STEP = 3.0  # pixels
_LEAST_BLUR, _MOST_BLUR = 0.15, 1.5  # pixels
_MARK_INK, _MARK_ASIDE_MM, _LEAST_MARK_MM, _MARK_REACH_MM = 0.3, 0.6, 1.5, 16.0
_ROBUST = 0.5  # an error of a pixel from which on it counts less: other ink lies there


@jit
def _normal_equations(ink, y, pen, blur, depth, robust):  # type: ignore[no-untyped-def]  # numba infers these
    """Diagonal, off-diagonal and right side for a step of the heights y (2 * columns,), and sums for pen and blur."""
    rows, columns = ink.shape
    vertices = y.size
    diagonal, beside, right = np.zeros(vertices), np.zeros(vertices), np.zeros(vertices)
    shape = np.zeros(6)  # of the pen: squares and products of the derivatives by width and blur, with the error
    margin = pen / 2 + 4 * blur + 0.5
    reach = int(math.ceil(margin)) + 1
    for column in range(columns):
        first, last = max(0, 2 * (column - reach)), min(vertices - 1, 2 * (column + reach) + 1)
        top, bottom = 1e9, -1e9
        for j in range(max(0, 2 * column - 3), min(vertices, 2 * column + 5)):
            if not math.isnan(y[j]):
                top, bottom = min(top, y[j]), max(bottom, y[j])
        if top > bottom:
            continue
        for row in range(max(0, int(top - margin)), min(rows - 1, int(bottom + margin) + 1) + 1):
            best, at, share, up = margin * margin, -1, 0.0, 0.0
            for j in range(first, last):
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
            if at < 0:
                continue
            away = math.sqrt(best)
            value = 1.0 / (1.0 + math.exp(min(30.0, (away - pen / 2) / blur)))
            error = ink[row, column] - depth * value
            weight = 1.0 / (1.0 + (error / robust) ** 2)
            steep = depth * value * (1.0 - value) / blur  # minus the derivative by the distance
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
            shape[5] += weight * error * error
    return diagonal, beside, right, shape


def fit_pen(ink: NDArray[np.floating], heights: Array, pen: float) -> Array:
    """Heights (2 * columns,) of the pen in each half column, pixels, from heights near them; NaN stays.

    ink: (rows, columns), 0-1. pen: its width, pixels.
    """
    band = np.ascontiguousarray(ink, dtype=np.float64)
    y = heights.astype(np.float64).copy()
    present = np.isfinite(y)
    if present.sum() < 3:
        return y
    blur = 0.4
    bands = np.zeros((3, y.size))
    for _ in range(_STEPS):
        diagonal, beside, right, shape = _normal_equations(band, y, pen, blur, 1.0, _ROBUST)
        smooth = _second_differences(y)
        bands[0] = np.where(present, diagonal * (1 + _DAMPING) + 1e-4 + smooth[0], 1.0)
        bands[1] = beside + smooth[1]
        bands[2] = smooth[2]
        force = np.where(present, right - _product(smooth, np.where(present, y, 0.0)), 0.0)
        step = solveh_banded(bands, force, lower=True, check_finite=False)
        y += np.where(present, np.clip(step, -_LONGEST_STEP, _LONGEST_STEP), 0.0)
        pen, blur = _shape_step(pen, blur, shape)
    return y


def _shape_step(pen: float, blur: float, shape: Array) -> tuple[float, float]:
    """The pen's width and blur after a step of their own."""
    matrix = np.array([[shape[0], shape[1]], [shape[1], shape[2]]]) * (1 + 0.05 * np.eye(2)) + 1e-6 * np.eye(2)
    by_pen, by_blur = np.linalg.solve(matrix, shape[3:5])
    return (
        float(np.clip(pen + np.clip(by_pen, -0.3, 0.3), 0.6, 12.0)),
        float(np.clip(blur + np.clip(by_blur, -0.1, 0.1), _LEAST_BLUR, _MOST_BLUR)),
    )


def _second_differences(y: Array) -> Array:
    """The three lower diagonals of the matrix that sums weighted squares of second differences of y.

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
    """The symmetric matrix with these lower diagonals, times values."""
    result: Array = bands[0] * values
    for k in (1, 2):
        result[k:] += bands[k, :-k] * values[:-k]
        result[:-k] += bands[k, :-k] * values[k:]
    return result


def fitted_rows(ink: Ink, px_per_mm: float, rows: Sequence[Row], spans: Sequence[Span]) -> list[Row]:
    """The rows with the pen fitted to the ink, each lead by itself, the marks between leads taken out first."""
    plain = _without_marks(ink, px_per_mm, rows, spans)
    apart = rows_apart([row.level for row in rows])
    return [
        _fitted(plain, px_per_mm, row, apart, [span for span in spans if span.row == number])
        for number, row in enumerate(rows)
    ]


def _fitted(ink: Ink, px_per_mm: float, row: Row, apart: float, spans: Sequence[Span]) -> Row:
    """The row traced again, each of its leads by itself: at their common end two leads run into one another."""
    places = (np.arange(2 * ink.shape[1]) - 0.5) / 2  # of the half columns' middles
    y, strength, thick = np.full(places.size, np.nan), np.zeros(places.size), np.zeros(places.size, dtype=np.bool_)
    top = max(0, round((row.level - REACH_MM) * px_per_mm))
    bottom = min(ink.shape[0], round((row.level + REACH_MM) * px_per_mm))
    for span in spans:
        begin, end = max(0, round(span.x0 * px_per_mm)), min(ink.shape[1], round(span.x1 * px_per_mm))
        if end - begin < 3:
            continue
        band = np.ascontiguousarray(ink[top:bottom, begin:end], dtype=np.float64)
        trace = trace_band(band, px_per_mm, row.level * px_per_mm - top, apart * px_per_mm)
        known = np.isfinite(trace.height)
        if not known.any():
            continue
        own = places[: 2 * (end - begin)]
        heights = np.where(known, np.interp(own, trace.place[known], trace.height[known]), np.nan)
        inside = slice(2 * begin, 2 * end)
        heights = fit_pen(band, bridged(heights, 2 * px_per_mm), trace.pen)
        if (wide := _stretched(heights, trace)) is not None:
            heights = fit_pen(band, wide, trace.pen)
        y[inside] = (heights + top + 0.5) / px_per_mm
        strength[inside], thick[inside] = trace.strength.repeat(2), trace.thick.repeat(2)
    return replace(row, x=(places + 0.5) / px_per_mm, y=y, ink=strength, crowded=thick)


def _stretched(heights: Array, trace: Trace) -> Array | None:
    """The heights, moved to the end of the stroke where they leave more than two pens of it without a way; or None."""
    size = 2 * (math.ceil(trace.pen / 2) + 1) + 1  # columns that a pen in the middle one can blacken
    columns = heights.reshape(-1, 2)
    low = minimum_filter1d(np.nan_to_num(columns, nan=np.inf).min(axis=1), size)
    high = maximum_filter1d(np.nan_to_num(columns, nan=-np.inf).max(axis=1), size)
    above, below = low - (trace.first + trace.pen / 2), (trace.last - trace.pen / 2) - high
    missing = trace.inked & np.isfinite(low) & (np.maximum(above, below) > 2 * trace.pen)
    if not missing.any():
        return None
    ends = np.where(above > below, trace.first + trace.pen / 2, trace.last - trace.pen / 2)
    return np.where((missing.repeat(2)) & np.isfinite(heights), ends.repeat(2), heights)


def _without_marks(ink: Ink, px_per_mm: float, rows: Sequence[Row], spans: Sequence[Span]) -> Ink:
    """The ink without the upright marks between leads: thin strokes at the same heights beside most rows."""
    plain = ink.copy()
    half = round(_MARK_REACH_MM * px_per_mm)
    for edge in sorted({span.x0 for span in spans} | {span.x1 for span in spans}):
        at = round(edge * px_per_mm)
        width = round(_MARK_ASIDE_MM * px_per_mm)
        if at < 2 * width + 2 or at >= ink.shape[1] - 2 * width - 2:
            continue
        numbers = sorted({span.row for span in spans if edge in (span.x0, span.x1)})
        thin, strips = [], []
        for number in numbers:
            level = round(rows[number].level * px_per_mm)
            window = np.zeros((2 * half, 4 * width + 1), dtype=np.float32)
            top, bottom = max(0, level - half), min(ink.shape[0], level + half)
            window[top - level + half : bottom - level + half] = ink[top:bottom, at - 2 * width : at + 2 * width + 1]
            middle = window[:, width : 3 * width + 1]
            centre = int(np.argmax(middle.sum(axis=0))) + width
            beside = np.maximum(window[:, centre - width], window[:, centre + width])
            thin.append((window[:, centre] > _MARK_INK) & (beside < _MARK_INK / 2))
            strips.append((top, bottom, level, at - 2 * width + centre))
        if len(numbers) < 2:
            continue
        common = np.mean(thin, axis=0) > 0.6
        if common.sum() < _LEAST_MARK_MM * px_per_mm:
            continue
        pen = max(1, width // 2)
        for own, (top, bottom, level, centre) in zip(thin, strips, strict=True):
            taken = (own & common)[top - level + half : bottom - level + half]
            plain[top:bottom, centre - pen : centre + pen + 1][taken] = 0.0
    return plain
