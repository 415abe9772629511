"""The flat sheet of paper in a picture: where each millimetre of it lies in the picture, and the ink on it.

The grid's homography removes angle and perspective. Curl and creases remain; they are measured by the phase of the
grid's lines, the thin ones if there are any: first as a polynomial, then place by place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial.legendre import legval
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter, label, map_coordinates, maximum_filter1d, minimum_filter1d

from recipes.digitizer.grid import Grid, line_signal
from recipes.digitizer.picture import Array, Homography, Picture, apply_homography, block_mean, interpolate

_SCALE = 4.0  # pixels per mm of the raster that the grid's phase is read from
_NODE_MM = 2.5  # between the nodes at which shifts are measured
_SMOOTH_MM, _LOCAL_MM = 5.0, 12.0  # standard deviations of the means around a node: of the lines, of what is left
_DRAWN_SMOOTH_MM = 2.0  # of the lines of a drawn page: two grids are mixed where they meet
_DEGREES = (2, 5)  # of the polynomials that describe curl; to the last, what differs from place to place is added
_LEAST_MISFIT_MM = 0.008  # of the grid's lines: as straight as a drawing on whole pixels allows
_BETTER = 0.65  # share of the misfit that a more complex phase must come below
_MISFIT_MM = 12.0  # standard deviation of the mean of the misfit
_NO_BEND_MM = 0.002  # between a node and the middle of its neighbours; a grid that begins anew gives 0.007 and more
_MOST_SKEW = 0.03  # of a drawn page's homography as found, whose grid may begin anew in every column
_LEVEL = 0.3  # radians between the two halves of a drawn grid's lines; a tilt of 0.02 degrees gives more
_APART = (1, 8)  # nodes between those that the pitch follows from, at first and then
_SPECTRUM = 64  # places between two frequencies of the phase
_ANEW, _ANEW_SHARE = 1.0, 0.02  # radians more than paper curls between such nodes; of all pairs
_ROUNDED_PX, _ROUNDED_PERCENTILE = 0.75, 80  # of the distances from an even pitch: rounding is at most half a pixel
_SAME_STEP = 0.15  # radians around the median of the differences between neighbours
_FAINT = 0.25  # of the upper quartile of the amplitude; the phase of a fainter grid is noise
_FILL_MM = 25.0  # standard deviation of the mean that replaces the phase of a faint grid
_LONGEST_MM = 700.0  # side of a sheet; a wrong homography would make it endless
_MARGIN_MM = 3.0
_BOX_MM = 5.0
_LEAST_TRUST = 1e-3  # weight of a difference between nodes that the polynomial takes in
_OUTLINE_POINTS = 24  # of a side
_CLEAR = 0.3  # amplitude at the nodes where there is a grid
_DARK, _MOST_DARK = 0.25, 0.3  # a pixel that is no paper; the share of such pixels in a line where the page ends
_DARK_RUN_MM = 2.0  # of pixels along such a line; the strokes of a frame's axis are dark as well, but apart
_INSIDE_MM, _HEAD_MM = 3.0, 12.0  # how far inside and outside the grid a side may lie
_ENOUGH_BOXES = 400  # for their median
_BARE, _EVERY = 0.8, 3  # share of a row that no trace fills; pixels from one that is looked at to the next
_MIXED = 0.08  # by which two lines that mix where they cross are darker
_DARK_LINE, _LINE_MM = 0.3, 0.5  # difference of full ink from a line on which it can hardly be seen; closed across it
_TILT_INK, _TILT_PIXELS, _WORD_MM = 0.5, 100_000, 15.0  # of full ink; pixels that are enough; letters that touch
_CLEAR_TILT = 1.05  # of the score without a tilt
_TILTS = np.arange(-80, 81) / 2000.0  # radians: at most 2.3 degrees; half a pixel at the end of a line of 1000
_LEAST_INK, _PEN_PERCENTILE = 0.15, 35  # darkness of ink; of the dark pixels, those that lie wholly under the pen


@dataclass(frozen=True, eq=False)
class FlatSheet:
    """A flat sheet over a picture. Places on it are in mm from its top left corner.

    Attributes:
        picture: of the paper.
        width: mm.
        height: mm.
        to_picture: homography from mm to pixels of the picture.
        shifts: (2, rows, columns) mm along x and y that are added to a place before the homography, at nodes
            `_NODE_MM` apart.
        grid_amplitude: (rows, columns) contrast of the grid at the nodes, 0 to about 1.
        picture_scale: pixels of the picture per mm.
    """

    picture: Picture
    width: float
    height: float
    to_picture: Homography
    shifts: Array
    grid_amplitude: Array
    picture_scale: float

    def place(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[Array, Array]:
        """Pixels x and y of the picture at places in mm, in the shape of the arguments."""
        nodes = [np.asarray(y) / _NODE_MM, np.asarray(x) / _NODE_MM]
        dx, dy = (map_coordinates(shift, nodes, order=1, mode="nearest") for shift in self.shifts)
        return apply_homography(self.to_picture, x + dx, y + dy)

    def outline(self) -> NDArray[np.float32]:
        """(n, 2) x and y in the picture, pixels: round the part of the paper that has the grid, clockwise."""
        x0, y0, x1, y1 = grid_box(self)
        along = np.linspace(0.0, 1.0, _OUTLINE_POINTS)
        x = np.concatenate(
            [x0 + (x1 - x0) * along, np.full(along.size, x1), x1 + (x0 - x1) * along, np.full(along.size, x0)]
        )
        y = np.concatenate(
            [np.full(along.size, y0), y0 + (y1 - y0) * along, np.full(along.size, y1), y1 + (y0 - y1) * along]
        )
        return np.stack(self.place(x, y), axis=1).astype(np.float32)

    def raster(self, px_per_mm: float) -> Picture:
        """The sheet as a picture (3, height * px_per_mm, width * px_per_mm); bare paper beyond the picture's edge."""
        rows, columns = self.grid_amplitude.shape
        y, x = np.mgrid[:rows, :columns] * _NODE_MM
        # Between two nodes the sheet is flat, so that what lies between them is between their places.
        px, py = (
            _between_nodes(
                place.astype(np.float32), round(self.height * px_per_mm), round(self.width * px_per_mm), px_per_mm
            )
            for place in self.place(x, y)
        )
        factor = max(1, round(self.picture_scale / px_per_mm))  # a line between two places would be missed
        middle = (factor - 1) / 2
        return interpolate(block_mean(self.picture, factor), (px - middle) / factor, (py - middle) / factor)


def _between_nodes(values: NDArray[np.float32], rows: int, columns: int, px_per_mm: float) -> NDArray[np.float32]:
    """Values at the nodes of a sheet, interpolated at the pixels (rows, columns) of its raster."""
    for axis, size in enumerate((rows, columns)):
        nodes = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(px_per_mm * _NODE_MM)
        first = np.minimum(nodes.astype(np.int64), values.shape[axis] - 2)
        share = np.expand_dims(nodes - first.astype(np.float32), 1 - axis)
        before, after = (np.take(values, first + step, axis=axis) for step in (0, 1))
        values = before + share * (after - before)
    return values


def straighten(picture: Picture, grid: Grid) -> FlatSheet:
    """The sheet on which the grid's heavy lines are straight and lie at multiples of 5 mm.

    Nothing is bent on a page as a program drew it, level to the pixel: lines on whole pixels, and a grid that begins
    anew in every column of leads, would be taken for curl.
    """
    plain = _without_shifts(picture, *_frame(grid.to_picture, picture.shape[2], picture.shape[1]), grid.px_per_mm)
    sheet = _with_phase(plain, grid, is_flat=False)
    bends = any(np.abs(np.diff(sheet.shifts, 2, axis)).max() > _NO_BEND_MM for axis in (1, 2))
    if bends and (drawn := _drawn_sheet(picture, grid)):
        return _with_phase(_with_phase(drawn, grid, is_flat=True), grid, is_flat=True)
    return _with_phase(sheet, grid, is_flat=False)


def _with_phase(sheet: FlatSheet, grid: Grid, *, is_flat: bool) -> FlatSheet:
    """The sheet with the grid's lines nearer to their places. is_flat: as `_simplest_phase` has it."""
    shifts, amplitude = _phase_shifts(sheet, thin_lines=grid.thin_lines, is_flat=is_flat)
    return replace(sheet, shifts=sheet.shifts + shifts, grid_amplitude=amplitude)


def sheet_at_scale(picture: Picture, px_per_mm: float, tilt: float = 0.0) -> FlatSheet:
    """The picture as a sheet of the given scale, for pages without a grid. tilt: of its lines, radians clockwise."""
    cosine, sine = px_per_mm * np.cos(tilt), px_per_mm * np.sin(tilt)
    to_picture = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    matrix, size = _frame(to_picture, picture.shape[2], picture.shape[1])
    return _without_shifts(picture, matrix, size, px_per_mm)


def tilt_of(ink: NDArray[np.float32], px_per_mm: float) -> float:
    """The tilt of the lines of print on ink, (rows, columns), radians clockwise: turned back by this angle, the letters
    fill the fewest rows and columns of pixels. 0 where no angle is clearly better than none."""
    labels, _ = label(ink > _TILT_INK, structure=np.ones((3, 3)))
    longest = [max(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in find_objects(labels)]
    is_letter = np.array([False, *(side < _WORD_MM * px_per_mm for side in longest)])  # traces wander
    y, x = np.nonzero(is_letter[labels])
    step = max(1, y.size // _TILT_PIXELS)
    y, x = y[::step].astype(np.float64), x[::step].astype(np.float64)
    size = sum(ink.shape)  # more than any place, on either side of 0
    scores = [
        sum(
            float(np.square(np.bincount(np.rint(place).astype(np.int64) + size, minlength=3 * size)).sum())
            for place in (y - angle * x, x + angle * y)
        )
        for angle in _TILTS
    ]
    best = int(np.argmax(scores))
    return float(_TILTS[best]) if scores[best] > _CLEAR_TILT * scores[_TILTS.size // 2] else 0.0


def rotate_sheet(sheet: FlatSheet, quarters: int) -> FlatSheet:
    """The sheet with its content rotated counter-clockwise by so many quarter turns."""
    result = sheet
    for _ in range(quarters % 4):
        result = _quarter_turn(result)
    return result


def _quarter_turn(sheet: FlatSheet) -> FlatSheet:
    """One quarter turn counter-clockwise: the new place (x, y) shows the old (width - y, x)."""
    size = (sheet.height, sheet.width)
    to_old = np.array([[0.0, -1.0, sheet.width], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rows, columns = _node_counts(*size)
    y, x = np.mgrid[:rows, :columns] * _NODE_MM
    old_x, old_y = apply_homography(to_old, x, y)
    nodes = [old_y / _NODE_MM, old_x / _NODE_MM]
    dx, dy = (map_coordinates(shift, nodes, order=1, mode="nearest") for shift in sheet.shifts)
    amplitude = map_coordinates(sheet.grid_amplitude, nodes, order=1, mode="nearest")
    matrix = sheet.to_picture @ to_old
    return FlatSheet(sheet.picture, *size, matrix / matrix[2, 2], np.stack([dy, -dx]), amplitude, sheet.picture_scale)


def _node_counts(width: float, height: float) -> tuple[int, int]:
    """Rows and columns of nodes on a sheet of this size, mm."""
    return int(height / _NODE_MM) + 2, int(width / _NODE_MM) + 2


def _without_shifts(picture: Picture, matrix: Homography, size: tuple[float, float], px_per_mm: float) -> FlatSheet:
    """The sheet of this size (width, height; mm) by the homography alone."""
    nodes = _node_counts(*size)
    return FlatSheet(picture, *size, matrix, np.zeros((2, *nodes)), np.zeros(nodes), px_per_mm)


def _frame(to_picture: Homography, width: int, height: int) -> tuple[Homography, tuple[float, float]]:
    """The homography from mm of a sheet that begins at the picture's corner, and the sheet's width and height, mm."""
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=float)
    x, y = apply_homography(np.linalg.inv(to_picture), corners[:, 0], corners[:, 1])
    (left, right), (top, bottom) = _extent(x), _extent(y)
    matrix = to_picture @ np.array([[1, 0, left - _MARGIN_MM], [0, 1, top - _MARGIN_MM], [0, 0, 1.0]])
    return matrix / matrix[2, 2], (right - left + 2 * _MARGIN_MM, bottom - top + 2 * _MARGIN_MM)


def _extent(values: Array) -> tuple[float, float]:
    """The smallest and the largest value, each at most half of `_LONGEST_MM` from the median."""
    middle = float(np.median(values))
    low, high = middle - _LONGEST_MM / 2, middle + _LONGEST_MM / 2
    return float(np.clip(values.min(), low, high)), float(np.clip(values.max(), low, high))


def _drawn_sheet(picture: Picture, grid: Grid) -> FlatSheet | None:
    """The sheet by the grid's pitch, of a page whose grid is level to the pixel and whose lines lie at their pitch, but
    for rounding to whole pixels, or begin anew; None for others."""
    height, width = picture.shape[1:]
    middle = apply_homography(np.linalg.inv(grid.to_picture), np.array([width / 2]), np.array([height / 2]))
    x, y = (float(np.round(place[0] / _BOX_MM)) * _BOX_MM for place in middle)
    px, py = apply_homography(grid.to_picture, np.array([x, x + _BOX_MM, x]), np.array([y, y, y + _BOX_MM]))
    pitch = np.array([px[1] - px[0], py[2] - py[0]]) / _BOX_MM
    if max(abs(px[2] - px[0]), abs(py[1] - py[0])) > _MOST_SKEW * _BOX_MM * pitch.min():
        return None
    order = _lines_per_box(thin_lines=grid.thin_lines)
    radians = 2 * np.pi * order * _NODE_MM / _BOX_MM  # between nodes

    def sheet_of(pitch: Array) -> FlatSheet:
        matrix = np.diag([*pitch, 1.0])
        matrix[:2, 2] = px[0] - pitch[0] * x, py[0] - pitch[1] * y
        return _without_shifts(picture, *_frame(matrix, width, height), grid.px_per_mm)

    def waves_of(pitch: Array) -> list[NDArray[np.complex128]]:
        """Of the lines across x and across y, each with the axis along its rows."""
        across_x, across_y = _grid_waves(sheet_of(pitch), order, _DRAWN_SMOOTH_MM)
        return [across_x, across_y.T]

    for distance in _APART:
        waves = waves_of(pitch)
        if distance == _APART[0] and not all(map(_is_level, waves)):
            return None
        steps = np.array([_usual_step(wave, distance) for wave in waves])
        if np.isnan(steps).any():
            return None
        pitch = pitch * (1 - steps / radians)
    even = pitch * (1 - np.array([_even_step(wave) for wave in waves_of(pitch)]) / radians)
    waves = waves_of(even)
    pixel = 2 * np.pi * order / (_BOX_MM * grid.px_per_mm)
    is_even = np.array([_is_even(wave, pixel) for wave in waves])
    anew = np.array([_begins_anew(wave) for wave in waves])
    return sheet_of(np.where(is_even, even, pitch)) if (is_even | anew).all() else None


def _is_level(wave: NDArray[np.complex128]) -> bool:
    """Whether most of the lines along the columns of nodes keep their phase over half the sheet."""
    steps, clear = _steps(wave, wave.shape[0] // 2)
    return bool(clear.any() and np.median(np.abs(steps[clear])) < _LEVEL)


def _usual_step(wave: NDArray[np.complex128], distance: int) -> float:
    """The difference of phase between neighbours in a row of nodes, radians, from nodes so far apart.

    Those between which a grid begins anew are left out. NaN where no two are alike.
    """
    differences, clear = _steps(wave.T, distance)
    steps = differences[clear]
    usual = steps[np.abs(steps - np.median(steps)) < _SAME_STEP] if steps.size else steps
    return float(usual.mean()) / distance if usual.size else float("nan")


def _even_step(wave: NDArray[np.complex128]) -> float:
    """The difference of phase between neighbours in a row of nodes, radians, at which most of the wave lies: that of
    lines on whole pixels, too, which are off by up to half a pixel each, if they do not begin anew."""
    size = _SPECTRUM * wave.shape[1]
    power = np.square(np.abs(np.fft.fft(wave, size, axis=1))).sum(axis=0)
    return float(2 * np.pi * np.fft.fftfreq(size)[int(power.argmax())])


def _is_even(wave: NDArray[np.complex128], pixel: float) -> bool:
    """Whether the lines lie at their pitch but for rounding to whole pixels.

    Args:
        pixel: radians of a pixel of the picture.
    """
    amplitude = _relative_amplitude(wave)
    weight = np.where(amplitude > _CLEAR, amplitude**2, 0.0)
    rest = np.abs(np.angle(wave * (wave * weight).sum().conj()))[weight > 0]
    return bool(rest.size and np.percentile(rest, _ROUNDED_PERCENTILE) < _ROUNDED_PX * pixel)


def _begins_anew(wave: NDArray[np.complex128]) -> bool:
    """Whether the phase jumps somewhere along the rows of nodes."""
    steps, clear = _steps(wave.T, _APART[-1])
    return bool(clear.any() and np.mean(np.abs(steps[clear]) > _ANEW) >= _ANEW_SHARE)


def _steps(wave: NDArray[np.complex128], distance: int) -> tuple[Array, NDArray[np.bool_]]:
    """Differences of phase between nodes so many rows apart, radians, and where both have a clear grid."""
    amplitude = _relative_amplitude(wave)
    clear: NDArray[np.bool_] = np.minimum(amplitude[distance:], amplitude[:-distance]) > _CLEAR
    return np.angle(wave[distance:] * wave[:-distance].conj()), clear


def _phase_shifts(sheet: FlatSheet, *, thin_lines: bool, is_flat: bool) -> tuple[Array, Array]:
    """Distances of the grid's lines from their places, (2, rows, columns) mm, and the grid's amplitude at the nodes."""
    order = _lines_per_box(thin_lines=thin_lines)
    radians_per_mm = 2 * np.pi * order / _BOX_MM
    waves = _grid_waves(sheet, order, _SMOOTH_MM)
    shifts = []
    for wave in waves:
        relative = _relative_amplitude(wave)
        # A mean that reaches beyond the grid's edge is of half a wave, whose phase is wrong.
        covered = gaussian_filter((relative > _CLEAR).astype(np.float64), _SMOOTH_MM / _NODE_MM, mode="constant")
        weight = relative**2 * np.clip(2 * covered - 1, 0.0, 1.0)
        shifts.append(-_simplest_phase(wave, weight, _LEAST_MISFIT_MM * radians_per_mm, is_flat) / radians_per_mm)
    first, second = (np.abs(wave) / max(float(np.percentile(np.abs(wave), 90)), 1e-9) for wave in waves)
    return np.stack(shifts), np.minimum(first, second)


def _lines_per_box(*, thin_lines: bool) -> int:
    return 5 if thin_lines else 1


def _grid_waves(sheet: FlatSheet, order: int, smooth_mm: float) -> list[NDArray[np.complex128]]:
    """The complex amplitude at the nodes of the lines across x and of those across y. order: lines per 5 mm."""
    signal = line_signal(sheet.raster(_SCALE))
    y, x = (np.asarray((np.arange(n) + 0.5) / _SCALE, dtype=np.float64) for n in signal.shape)
    return [_wave_at_nodes(signal, place, order, sheet, smooth_mm) for place in (x[None, :], y[:, None])]


def _relative_amplitude(wave: NDArray[np.complex128]) -> Array:
    """0-1 at each node; 1 at the clearer ones."""
    amplitude = np.abs(wave)
    return np.asarray(np.minimum(amplitude / max(float(np.percentile(amplitude, 60)), 1e-9), 1.0))


def _simplest_phase(wave: NDArray[np.complex128], weight: Array, least: float, is_flat: bool) -> Array:
    """The phase of the nodes, radians: the smoothest one that the grid allows.

    A flat sheet has a misfit as well where its grid was drawn on whole pixels, and no curl of the sheet explains that:
    a more complex phase must be much better.

    Args:
        wave: (rows, columns) amplitude of the lines at the nodes.
        weight: (rows, columns) 0-1.
        least: radians; a phase with a smaller misfit is not improved.
        is_flat: the lines are straight and lie at their pitch, in parts whose phases may differ.
    """
    phase = _smooth_phase(wave, weight, 1)
    misfit = _misfit(wave, weight, phase)
    if is_flat and misfit >= least:
        return np.full(wave.shape, np.angle((wave * weight).sum()))
    for degree in _DEGREES:
        if misfit < least:
            break
        bent = _smooth_phase(wave, weight, degree)
        if degree == _DEGREES[-1]:
            rest = _blur(wave * np.exp(-1j * bent), _LOCAL_MM / _NODE_MM)
            bent = bent + _fill_faint(np.angle(rest), np.abs(rest))
        bent_misfit = _misfit(wave, weight, bent)
        if bent_misfit < _BETTER * misfit:
            phase, misfit = bent, bent_misfit
    return phase


def _smooth_phase(wave: NDArray[np.complex128], weight: Array, degree: int) -> Array:
    """A polynomial through the phase of the nodes, radians, from the differences between neighbours.

    Differences wrap only where neighbours are half a period apart, which no paper reaches; outliers count little.
    """
    rows, columns = wave.shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i) if i + j > 0]
    along_x, along_y = ([legval(axis, np.eye(i + 1)[i]) for i in range(degree + 1)] for axis in (x, y))
    basis = np.stack([along_x[i] * along_y[j] for i, j in powers])
    differences = [np.angle(wave[:, 1:] * wave[:, :-1].conj()), np.angle(wave[1:] * wave[:-1].conj())]
    weights = [np.minimum(weight[:, 1:], weight[:, :-1]), np.minimum(weight[1:], weight[:-1])]
    design = np.concatenate(
        [np.diff(basis, axis=2).reshape(len(powers), -1), np.diff(basis, axis=1).reshape(len(powers), -1)], axis=1
    )
    target, trust = (np.concatenate([part.ravel() for part in parts]) for parts in (differences, weights))
    clear = trust > _LEAST_TRUST
    phase: Array = np.einsum(
        "i,irc->rc", _robust_fit(design[:, clear], target[clear], trust[clear], (np.inf, 0.5, 0.2, 0.1)), basis
    )
    phase += np.angle((wave * weight * np.exp(-1j * phase)).sum())
    # Differences say little of the whole page, since those at its edges count as much; the phase itself, which no
    # longer wraps, says more.
    full = np.concatenate([np.ones((1, rows * columns)), basis.reshape(len(powers), -1)])
    for width in (0.5, 0.2, 0.1):
        rest = np.angle(wave * np.exp(-1j * phase)).ravel()
        phase = phase + (_robust_fit(full, rest, weight.ravel(), (np.inf, width)) @ full).reshape(rows, columns)
    return phase


def _robust_fit(design: Array, target: Array, trust: Array, widths: Sequence[float]) -> Array:
    """Coefficients (k,) of design (k, n) for target (n,), by least squares in which errors above a width count little.

    Args:
        trust: (n,) weights.
        widths: of one fit after the other.
    """
    small = 1e-6 * np.eye(len(design)) * max(float(np.square(design).sum()) / len(design), 1e-9)
    rest = np.zeros_like(target)
    solution: Array = np.zeros(len(design))
    for width in widths:
        robust = design * (trust / (1 + (rest / width) ** 2))
        # einsum, not BLAS: the threads of the latter take seconds for this on a busy machine.
        normal, force = np.einsum("in,jn->ij", robust, design), np.einsum("in,n->i", robust, target)
        solution = np.linalg.solve(normal + small, force)
        rest = target - np.einsum("i,in->n", solution, design)
    return solution


def _misfit(wave: NDArray[np.complex128], weight: Array, phase: Array) -> float:
    """Distance of the nodes from a phase, radians: the 90th percentile of those with a clear grid."""
    rest = np.abs(np.angle(_blur(wave * np.exp(-1j * phase), _MISFIT_MM / _NODE_MM)))
    return float(np.percentile(rest[weight > _CLEAR], 90)) if (weight > _CLEAR).any() else 0.0


def _blur(values: NDArray[np.complex128], width: float) -> NDArray[np.complex128]:
    """The Gaussian mean around each node. width: its standard deviation, nodes."""
    result: NDArray[np.complex128] = gaussian_filter(values.real, width) + 1j * gaussian_filter(values.imag, width)
    return result


def _wave_at_nodes(
    signal: NDArray[np.float32], place: Array, order: int, sheet: FlatSheet, smooth_mm: float
) -> NDArray[np.complex128]:
    """The complex amplitude of the lines at each node, (rows, columns).

    Args:
        signal: (height, width) of the sheet at `_SCALE`.
        place: mm along the axis, of the signal's columns (1, width) or rows (height, 1).
        order: lines per 5 mm.
        smooth_mm: standard deviation of the mean around a node.
    """
    wave = signal * np.exp(-2j * np.pi * order * place / _BOX_MM).astype(np.complex64)
    block = round(_NODE_MM * _SCALE)
    rows, columns = _node_counts(sheet.width, sheet.height)
    blocks = np.zeros((rows * block, columns * block), dtype=np.complex64)
    half = block // 2  # a node is the middle of its block
    part = wave[: blocks.shape[0] - half, : blocks.shape[1] - half]
    blocks[half : half + part.shape[0], half : half + part.shape[1]] = part
    means = blocks.reshape(rows, block, columns, block).mean(axis=(1, 3))
    return _blur(means, smooth_mm / _NODE_MM)


def _fill_faint(shift: Array, amplitude: Array) -> Array:
    """The shifts of the nodes; where the grid is faint, the mean of the nodes around."""
    reference = float(np.percentile(amplitude, 75))
    weight = np.clip(amplitude / max(reference, 1e-9) / _FAINT - 0.5, 0.0, 1.0)
    width = _FILL_MM / _NODE_MM
    around = gaussian_filter(shift * weight, width) / (gaussian_filter(weight, width) + 1e-6)
    result: Array = weight * shift + (1 - weight) * around
    return result


def grid_box(sheet: FlatSheet) -> tuple[float, float, float, float]:
    """The part of the sheet with a grid, (x0, y0, x1, y1) mm; the whole sheet where there is no grid."""
    clear = sheet.grid_amplitude > _CLEAR
    sides: list[float] = []
    for axis, length in ((0, sheet.width), (1, sheet.height)):
        share = clear.mean(axis=axis)
        inside = np.flatnonzero(share > 0.35 * share.max()) if share.max() > 0.1 else np.array([])
        if not inside.size:
            return 0.0, 0.0, sheet.width, sheet.height
        sides += [inside[0] * _NODE_MM, min(length, inside[-1] * _NODE_MM)]
    return sides[0], sides[2], sides[1], sides[3]


def ink_of(sheet: FlatSheet, px_per_mm: float) -> NDArray[np.float32]:
    """Ink on the sheet at px_per_mm, (height, width): 0 for bare paper or grid, 1 for full ink.

    The grid repeats every 5 mm: the median over all boxes is paper and grid, and what is darker is ink.
    """
    raster = sheet.raster(px_per_mm)
    x0, y0, x1, y1 = _paper_box(raster, px_per_mm, grid_box(sheet))
    ink = np.zeros(raster.shape[1:], dtype=np.float32)
    ink[y0:y1, x0:x1] = _ink(raster[:, y0:y1, x0:x1], round(_BOX_MM * px_per_mm))
    return ink


def _paper_box(
    raster: NDArray[np.float32], px_per_mm: float, box: tuple[float, float, float, float]
) -> tuple[int, int, int, int]:
    """The box (mm) with the bare paper around it, pixels: each side moves out while the line at it is mostly bare.

    Tall waves leave the grid, into a report's white head. The edge of a page and the table beyond it are dark.
    """
    dark = 1.0 - raster.mean(axis=0) > _DARK
    x0, y0, x1, y1 = (round(v * px_per_mm) for v in box)
    step, inner, outer = max(1, round(0.5 * px_per_mm)), round(_INSIDE_MM * px_per_mm), round(_HEAD_MM * px_per_mm)
    run = max(1, round(_DARK_RUN_MM * px_per_mm))
    across, down = (
        maximum_filter1d(minimum_filter1d(part.view(np.uint8), run, axis=axis), run, axis=axis).mean(axis=axis)
        for axis, part in enumerate((dark[y0:y1], dark[:, x0:x1]))
    )

    def outer_side(line: Array, side: int, direction: int) -> int:
        place = side - direction * inner
        while abs(place - side + direction * inner) < inner + outer and 0 <= place < line.size:
            part = line[min(place, place + direction * step) : max(place, place + direction * step) + 1]
            if part.size and part.min() > _MOST_DARK:  # not a line alone: the grid ends in a heavy one
                break
            place += direction * step
        return min(max(place - direction * step, 0), line.size)

    return outer_side(across, x0, -1), outer_side(down, y0, -1), outer_side(across, x1, 1), outer_side(down, y1, 1)


def _ink(raster: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """The ink (height, width) of a raster (3, height, width) with `box` pixels between heavy lines."""
    rows, columns = (n // box for n in raster.shape[1:])
    if rows < 2 or columns < 2:
        return np.zeros(raster.shape[1:], dtype=np.float32)
    boxes = raster[:, : rows * box, : columns * box].reshape(3, rows, box, columns, box)
    boxes = boxes.transpose(0, 2, 4, 1, 3).reshape(3, box, box, -1)
    usual = np.median(boxes[..., :: max(1, boxes.shape[-1] // _ENOUGH_BOXES)], axis=-1)
    repeats = (1, rows + 1, columns + 1)
    ground = np.tile(usual, repeats)[:, : raster.shape[1], : raster.shape[2]]
    across, down = _full_lines(raster, 2), _full_lines(raster, 1)
    ground = np.minimum(ground, _crossed(across, down, raster))
    depth = _darkness(ground - raster)
    strong = depth > max(_LEAST_INK, 0.5 * float(np.percentile(depth, 99.5)))
    if np.count_nonzero(strong) < 100:
        return np.zeros(raster.shape[1:], dtype=np.float32)
    # Full ink is equally dark on a grid's line and beside it, so its difference from the line is smaller.
    pen = np.percentile(raster[:, strong], _PEN_PERCENTILE, axis=1).astype(np.float32)[:, None, None]
    full = np.maximum(_darkness(ground - pen), _LEAST_INK)
    ink: NDArray[np.float32] = np.clip(depth / full, 0.0, 1.0)
    # On a line as dark as ink, only what lies on either side of it tells.
    width = round(_LINE_MM * box / _BOX_MM)
    for axis, lines in enumerate((across, down)):
        dark = _darkness(lines - pen) < _DARK_LINE
        if dark.any():
            closed = minimum_filter1d(maximum_filter1d(ink, width, axis=axis), width, axis=axis)
            ink = np.where(dark, closed, ink)
    return ink


def _full_lines(raster: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Of each row (axis 2) or column (axis 1) of a raster (3, height, width), what no trace darkens: a drawing's lines.

    Lines on whole pixels are off their usual place by parts of one, and a median over boxes does not know them.
    """
    every = raster[:, :, ::_EVERY] if axis == 2 else raster[:, ::_EVERY]
    place = round(_BARE * (every.shape[axis] - 1))
    return np.take(np.partition(every, place, axis=axis), [place], axis=axis)


def _crossed(
    across: NDArray[np.float32], down: NDArray[np.float32], raster: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The full lines of the rows (3, height, 1) and columns (3, 1, width) of a raster (3, height, width) together.

    Where two of them cross, the one lies on the other in some drawings, and in others they mix and are darker.
    """
    over: NDArray[np.float32] = np.minimum(across, down)
    mixed: NDArray[np.float32] = across * down
    every = (slice(None), slice(None, None, _EVERY), slice(None, None, _EVERY))
    darker = (over - mixed)[every]
    crossing = darker > _MIXED
    is_mixed = crossing.any() and np.median((over - raster)[every][crossing]) > np.median(darker[crossing]) / 2
    return mixed if is_mixed else over


def _darkness(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Darkness (rows, columns) of a difference (3, rows, columns): ink darkens all channels, a grid one or two."""
    darkness: NDArray[np.float32] = 0.5 * (difference.min(axis=0) + difference.mean(axis=0))
    return darkness
