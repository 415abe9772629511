"""A straight sheet from a picture: millimetres of the paper, where each lies in the picture, and the ink on it.

The grid's homography takes away angle and perspective. What curl and creases leave is read from the phase of the
grid's lines, the thin ones where they show: a polynomial through it first, then what differs from place to place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from recipes.digitizer.grid import Grid, line_signal
from recipes.digitizer.picture import Matrix, Picture, moved, reduced, sampled

_SCALE = 4.0  # pixels per mm of the raster that the grid's phase is read from
_NODE_MM = 2.5
_SMOOTH_MM, _LOCAL_MM = 5.0, 12.0
_DEGREES = (2, 5)  # of the polynomials that follow curl; the last is followed by what is left from place to place
_LEAST_MISFIT_MM, _BETTER, _MISFIT_MM = 0.015, 0.65, 12.0  # of the grid's lines, share, width of the mean
_FAINT = 0.25  # of the median amplitude: below it the grid's phase is noise
_FILL_MM = 25.0
_LONGEST_MM = 700.0
_MARGIN_MM = 3.0
_BOX_MM = 5.0
_CLEAR = 0.3  # amplitude of a grid that is there
_INK_SCALE = 6.0
_DARK, _MOST_DARK = 0.25, 0.3  # of paper and of a line across it: beyond, the page ends
_INSIDE_MM, _HEAD_MM = 3.0, 12.0  # how far inside and outside the grid a side may lie
_LEAST_INK, _PEN_PERCENTILE = 0.15, 35  # darkness of ink; of the dark pixels those that lie wholly under the pen


@dataclass(frozen=True, eq=False)
class Sheet:
    """A flat sheet over a picture.

    width, height: mm; the place (0, 0) is its top left corner, and the grid's heavy lines lie at multiples of 5 mm.
    to_picture: homography from mm to pixels. shifts: (2, rows, columns) mm along x and y that are added before it, at
    nodes `_NODE_MM` apart. grid_amplitude: (rows, columns) how clearly the grid shows at the nodes, 0 to about 1.
    """

    picture: Picture
    width: float
    height: float
    to_picture: Matrix
    shifts: NDArray[np.float64]
    grid_amplitude: NDArray[np.float64]
    picture_scale: float
    _reductions: dict[int, Picture] = field(default_factory=dict)

    def place(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.float64], ...]:
        """Pixels x and y of the picture, for places in mm."""
        nodes = [np.asarray(y) / _NODE_MM, np.asarray(x) / _NODE_MM]
        dx, dy = (map_coordinates(shift, nodes, order=1, mode="nearest") for shift in self.shifts)
        return moved(self.to_picture, x + dx, y + dy)

    def seen(self, x: NDArray[np.floating], y: NDArray[np.floating], px_per_mm: float) -> torch.Tensor:
        """Pixels (3, *x.shape) at places in mm that lie about 1 / px_per_mm apart; paper where the picture ends."""
        factor = max(1, int(self.picture_scale / px_per_mm))
        if factor not in self._reductions:
            self._reductions[factor] = reduced(self.picture, factor)
        px, py = self.place(x, y)
        middle = (factor - 1) / 2
        return sampled(self._reductions[factor], (px - middle) / factor, (py - middle) / factor)

    def raster(self, px_per_mm: float) -> torch.Tensor:
        """The whole sheet, (3, height * px_per_mm, width * px_per_mm)."""
        y, x = np.mgrid[: round(self.height * px_per_mm), : round(self.width * px_per_mm)].astype(np.float32)
        return self.seen((x + 0.5) / px_per_mm, (y + 0.5) / px_per_mm, px_per_mm)


def straighten(picture: Picture, grid: Grid) -> Sheet:
    """The sheet on which the grid's lines are straight and 5 mm apart."""
    matrix, size = _framed(grid.to_picture, picture.shape[2], picture.shape[1])
    sheet = _flat(picture, matrix, size, grid.px_per_mm)
    for _ in range(2):
        shifts, amplitude = _phase_shifts(sheet, thin_lines=grid.thin_lines)
        sheet = Sheet(picture, *size, matrix, sheet.shifts + shifts, amplitude, grid.px_per_mm)
    return sheet


def flat_sheet(picture: Picture, px_per_mm: float) -> Sheet:
    """The picture as it stands, where no grid says more."""
    matrix, size = _framed(np.diag([px_per_mm, px_per_mm, 1.0]), picture.shape[2], picture.shape[1])
    return _flat(picture, matrix, size, px_per_mm)


def turned(sheet: Sheet, quarters: int) -> Sheet:
    """The sheet seen after so many quarter turns counter-clockwise of its content."""
    turned_sheet = sheet
    for _ in range(quarters % 4):
        turned_sheet = _quarter_turn(turned_sheet)
    return turned_sheet


def _quarter_turn(sheet: Sheet) -> Sheet:
    """Content turns counter-clockwise: the new place (x, y) shows the old (width - y, x)."""
    size = (sheet.height, sheet.width)
    to_old = np.array([[0.0, -1.0, sheet.width], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rows, columns = _node_counts(*size)
    y, x = np.mgrid[:rows, :columns] * _NODE_MM
    old_x, old_y = moved(to_old, x, y)
    dx, dy = (
        map_coordinates(shift, [old_y / _NODE_MM, old_x / _NODE_MM], order=1, mode="nearest") for shift in sheet.shifts
    )
    amplitude = map_coordinates(sheet.grid_amplitude, [old_y / _NODE_MM, old_x / _NODE_MM], order=1, mode="nearest")
    matrix = sheet.to_picture @ to_old
    return Sheet(sheet.picture, *size, matrix / matrix[2, 2], np.stack([dy, -dx]), amplitude, sheet.picture_scale)


def _node_counts(width: float, height: float) -> tuple[int, int]:
    return int(height / _NODE_MM) + 2, int(width / _NODE_MM) + 2


def _flat(picture: Picture, matrix: Matrix, size: tuple[float, float], px_per_mm: float) -> Sheet:
    nodes = _node_counts(*size)
    return Sheet(picture, *size, matrix, np.zeros((2, *nodes)), np.zeros(nodes), px_per_mm)


def _framed(to_picture: Matrix, width: int, height: int) -> tuple[Matrix, tuple[float, float]]:
    """The homography from mm of a sheet that begins at the picture's corner, and the sheet's width and height, mm."""
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=float)
    x, y = moved(np.linalg.inv(to_picture), corners[:, 0], corners[:, 1])
    middle_x, middle_y = float(np.median(x)), float(np.median(y))
    left, right = (
        float(np.clip(v, middle_x - _LONGEST_MM / 2, middle_x + _LONGEST_MM / 2)) for v in (x.min(), x.max())
    )
    top, bottom = (
        float(np.clip(v, middle_y - _LONGEST_MM / 2, middle_y + _LONGEST_MM / 2)) for v in (y.min(), y.max())
    )
    matrix = to_picture @ np.array([[1, 0, left - _MARGIN_MM], [0, 1, top - _MARGIN_MM], [0, 0, 1.0]])
    return matrix / matrix[2, 2], (right - left + 2 * _MARGIN_MM, bottom - top + 2 * _MARGIN_MM)


def _phase_shifts(sheet: Sheet, *, thin_lines: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the grid's lines lie beside their places: (2, rows, columns) mm at the nodes, and the grid's amplitude."""
    signal = line_signal(sheet.raster(_SCALE))
    y, x = ((np.arange(n) + 0.5) / _SCALE for n in signal.shape)
    order = 5 if thin_lines else 1
    radians_per_mm = 2 * np.pi * order / _BOX_MM
    shifts, amplitudes = [], []
    for axis in (0, 1):
        wave = _wave_at_nodes(signal, x[None, :] if axis == 0 else y[:, None], order, sheet)
        amplitude = np.abs(wave)
        weight = np.minimum(amplitude / max(float(np.percentile(amplitude, 60)), 1e-9), 1.0) ** 2
        phase = _simplest_phase(wave, weight, _LEAST_MISFIT_MM * radians_per_mm)
        shifts.append(-phase / radians_per_mm)
        amplitudes.append(amplitude / max(float(np.percentile(amplitude, 90)), 1e-9))
    return np.stack(shifts), np.minimum(*amplitudes)


def _simplest_phase(wave: NDArray[np.complex128], weight: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """The phase of the nodes, radians: as smooth as the grid allows.

    A flat sheet leaves a misfit too where its grid was drawn on whole pixels; bending the sheet does not mend that.
    """
    phase = _smooth_phase(wave, weight, 1)
    misfit = _misfit(wave, weight, phase)
    for degree in _DEGREES:
        if misfit < least:
            break
        bent = _smooth_phase(wave, weight, degree)
        if degree == _DEGREES[-1]:
            rest = _blurred(wave * np.exp(-1j * bent), _LOCAL_MM / _NODE_MM)
            bent = bent + _filled(np.angle(rest), np.abs(rest))
        bent_misfit = _misfit(wave, weight, bent)
        if bent_misfit < _BETTER * misfit:
            phase, misfit = bent, bent_misfit
    return phase


def _smooth_phase(wave: NDArray[np.complex128], weight: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """A polynomial through the phase of the nodes, radians, from the differences between neighbours.

    Differences wrap only where neighbours are half a period apart, which no paper does; outliers count little.
    """
    rows, columns = wave.shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i) if i + j > 0]
    basis = np.stack([np.polynomial.legendre.legval(x, np.eye(i + 1)[i]) * np.polynomial.legendre.legval(y, np.eye(j + 1)[j])
                      for i, j in powers])  # fmt: skip
    differences = [np.angle(wave[:, 1:] * wave[:, :-1].conj()), np.angle(wave[1:] * wave[:-1].conj())]
    weights = [np.minimum(weight[:, 1:], weight[:, :-1]), np.minimum(weight[1:], weight[:-1])]
    design = np.concatenate(
        [np.diff(basis, axis=2).reshape(len(powers), -1), np.diff(basis, axis=1).reshape(len(powers), -1)], axis=1
    )
    target, trust = (np.concatenate([part.ravel() for part in parts]) for parts in (differences, weights))
    rest = np.zeros_like(target)
    for width in (np.inf, 0.5, 0.2, 0.1):
        robust = trust / (1 + (rest / width) ** 2)
        normal = (design * robust) @ design.T + 1e-6 * np.trace(design @ design.T) / len(powers) * np.eye(len(powers))
        solution = np.linalg.solve(normal, (design * robust) @ target)
        rest = target - solution @ design
    phase = np.tensordot(solution, basis, axes=1)
    offset = np.angle((wave * weight * np.exp(-1j * phase)).sum())
    result: NDArray[np.float64] = phase + offset
    return result


def _misfit(wave: NDArray[np.complex128], weight: NDArray[np.float64], phase: NDArray[np.float64]) -> float:
    """How far the nodes lie from a smooth phase, radians, at the 90th percentile of those where the grid shows."""
    rest = np.abs(np.angle(_blurred(wave * np.exp(-1j * phase), _MISFIT_MM / _NODE_MM)))
    return float(np.percentile(rest[weight > _CLEAR], 90)) if (weight > _CLEAR).any() else 0.0


def _blurred(values: NDArray[np.complex128], width: float) -> NDArray[np.complex128]:
    blurred: NDArray[np.complex128] = gaussian_filter(values.real, width) + 1j * gaussian_filter(values.imag, width)
    return blurred


def _wave_at_nodes(
    signal: NDArray[np.float32], place: NDArray[np.float64], order: int, sheet: Sheet
) -> NDArray[np.complex128]:
    """The complex amplitude of the lines' harmonic near each node."""
    wave = signal * np.exp(-2j * np.pi * order * place / _BOX_MM).astype(np.complex64)
    block = round(_NODE_MM * _SCALE)
    rows, columns = _node_counts(sheet.width, sheet.height)
    padded = np.zeros((rows * block, columns * block), dtype=np.complex64)
    half = block // 2  # a node is the middle of its block
    part = wave[: padded.shape[0] - half, : padded.shape[1] - half]
    padded[half : half + part.shape[0], half : half + part.shape[1]] = part
    means = padded.reshape(rows, block, columns, block).mean(axis=(1, 3))
    return _blurred(means, _SMOOTH_MM / _NODE_MM)


def _filled(shift: NDArray[np.float64], amplitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shifts, and where the grid is faint those of the places around."""
    reference = float(np.percentile(amplitude, 75))
    weight = np.clip(amplitude / max(reference, 1e-9) / _FAINT - 0.5, 0.0, 1.0)
    width = _FILL_MM / _NODE_MM
    around = gaussian_filter(shift * weight, width) / (gaussian_filter(weight, width) + 1e-6)
    result: NDArray[np.float64] = weight * shift + (1 - weight) * around
    return result


def grid_box(sheet: Sheet) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) mm: where the grid lies; the whole sheet where none shows."""
    clear = sheet.grid_amplitude > _CLEAR
    sides: list[float] = []
    for axis, length in ((0, sheet.width), (1, sheet.height)):
        share = clear.mean(axis=axis)
        inside = np.flatnonzero(share > 0.35 * share.max()) if share.max() > 0.1 else np.array([])
        if not inside.size:
            return 0.0, 0.0, sheet.width, sheet.height
        sides += [inside[0] * _NODE_MM, min(length, inside[-1] * _NODE_MM)]
    return sides[0], sides[2], sides[1], sides[3]


def ink_of(sheet: Sheet, px_per_mm: float = _INK_SCALE) -> NDArray[np.float32]:
    """(height, width) of the sheet at px_per_mm: 0 bare paper or grid, 1 full ink.

    The grid repeats every 5 mm: what most boxes look like at a place is paper and grid, what is darker is ink.
    """
    raster = sheet.raster(px_per_mm).numpy()
    x0, y0, x1, y1 = _paper_box(raster, px_per_mm, grid_box(sheet))
    ink = np.zeros(raster.shape[1:], dtype=np.float32)
    ink[y0:y1, x0:x1] = _ink(raster[:, y0:y1, x0:x1], round(_BOX_MM * px_per_mm))
    return ink


def _paper_box(
    raster: NDArray[np.float32], px_per_mm: float, box: tuple[float, float, float, float]
) -> tuple[int, int, int, int]:
    """The box (mm) with the paper around it, pixels: each side moves out while its line is mostly bare paper.

    Tall waves leave the grid, into a report's white head. A page's edge and the table beyond are dark.
    """
    dark = 1.0 - raster.mean(axis=0) > _DARK
    height, width = dark.shape
    x0, y0, x1, y1 = (round(v * px_per_mm) for v in box)
    step, inner, outer = max(1, round(0.5 * px_per_mm)), round(_INSIDE_MM * px_per_mm), round(_HEAD_MM * px_per_mm)
    lines = (dark[y0:y1].mean(axis=0), dark[:, x0:x1].mean(axis=1))

    def moved_out(line: NDArray[np.float64], side: int, direction: int) -> int:
        place = side - direction * inner
        while abs(place - side + direction * inner) < inner + outer and 0 <= place < line.size:
            part = line[min(place, place + direction * step) : max(place, place + direction * step) + 1]
            if part.size and part.max() > _MOST_DARK:
                break
            place += direction * step
        return min(max(place - direction * step, 0), line.size)

    return moved_out(lines[0], x0, -1), moved_out(lines[1], y0, -1), moved_out(lines[0], x1, 1), moved_out(lines[1], y1, 1)


def _ink(raster: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """The ink of a raster (3, height, width) with `box` pixels between heavy lines."""
    rows, columns = (n // box for n in raster.shape[1:])
    if rows < 2 or columns < 2:
        return np.zeros(raster.shape[1:], dtype=np.float32)
    boxes = raster[:, : rows * box, : columns * box].reshape(3, rows, box, columns, box)
    usual = np.median(boxes.transpose(0, 2, 4, 1, 3).reshape(3, box, box, -1), axis=-1)
    repeats = (1, rows + 1, columns + 1)
    ground = np.tile(usual, repeats)[:, : raster.shape[1], : raster.shape[2]]
    depth = _darkness(ground - raster)
    strong = depth > max(_LEAST_INK, 0.5 * float(np.percentile(depth, 99.5)))
    if np.count_nonzero(strong) < 100:
        return np.zeros(raster.shape[1:], dtype=np.float32)
    # Full ink is equally dark on a grid's line and beside it, and so differs less from the line.
    pen = np.percentile(raster[:, strong], _PEN_PERCENTILE, axis=1)
    full = np.maximum(_darkness(ground - pen[:, None, None].astype(np.float32)), _LEAST_INK)
    ink: NDArray[np.float32] = np.clip(depth / full, 0.0, 1.0)
    return ink


def _darkness(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows, columns) of a difference (3, rows, columns): ink darkens all channels, the lines of a grid one or two."""
    darkness: NDArray[np.float32] = 0.5 * (difference.min(axis=0) + difference.mean(axis=0))
    return darkness
