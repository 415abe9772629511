"""The paper's grid in a picture: pitch and angle in patches, and one homography through them.

A grid is a lattice of lines every millimetre, every fifth millimetre heavier. In the Fourier transform of a patch its
lines are a comb of harmonics along two directions; the spacing of the comb is the local number of lines per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares

from recipes.digitizer.picture import Array, Homography, Picture, block_mean
from render.jit import jit

_LONGEST = 2200  # pixels, about, to which a larger picture is reduced for the search
_PATCH = 256  # pixels a side: four heavy lines or more, and perspective changes little within it
_LINE_PERCENTILE, _PALEST_LINE = 94, 0.03  # of the darkness of all pixels; darkness of the palest line that counts
_FEWEST_LINES = 12  # that lie far apart: a frame, a table or ruled paper has fewer, or in one direction
_SURROUNDINGS_PX, _BLOCK = 12.0, 4  # standard deviation of the mean around a place; pixels a side
_BOX_PX = (11.0, 90.0)  # pixels between heavy lines, least and most
_HIGHEST = 0.42  # cycles per pixel; lines of a higher frequency are thinner than pixels
_HARMONICS = 10  # at most, of a comb
_LEAST_CONTRAST = 0.003  # standard deviation of a patch; a flat one shows no grid
_LEAST_SCORE = 0.9  # of a comb: logarithm of the power on its teeth above that between them
_NEARLY = 0.65  # of the best score: enough for a comb of a smaller base
_THIN_PER_HEAVY = 5
_LEAST_STEP = 1.0  # logarithm of the power between every second tooth and the others: of pages 0 and less
_PEAK, _LEAST_DROP = 0.1, 2.0  # relative width of the tallest peak; logarithm of its power above all below it
_NEAR, _PERSPECTIVE = 1.2, 0.3  # distance, in patches, of those that vote together; logarithm of the spacing's range
_LEAST_COVERED, _MOST_SPREAD = 0.1, 0.1  # of the patches: with lines (letters have them, too); median, of their spacing
_THIN_TOOTH = 0.4  # logarithm of power; 0.5 to 1.4 in photos with thin lines, 0.2 and less without
_MOST_BOXES = 90  # along a picture's longer side; more lines than that are 1 mm apart


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice of lines over a picture.

    Attributes:
        to_picture: homography from mm of the paper to pixels.
        px_per_mm: in the picture's middle.
        thin_lines: whether there are lines every millimetre, and not only every fifth.
    """

    to_picture: Homography
    px_per_mm: float
    thin_lines: bool


def line_signal(picture: Picture) -> NDArray[np.float32]:
    """(height, width): darkness of each place above that of its surroundings; 0 for ink, which is darker than lines.

    The threshold follows from the shares of the paper: lines of a grid cover a tenth to a third of it, ink a twentieth.
    Where fine lines lie far apart on white paper, it follows from those rows and columns that are mostly dark.
    """
    dark = 1.0 - picture.min(axis=0)
    level = float(np.percentile(dark[::3, ::3], _LINE_PERCENTILE))
    if level < _PALEST_LINE:
        mostly = np.concatenate([np.median(dark, axis=0), np.median(dark, axis=1)])
        lines = mostly[mostly > _PALEST_LINE]
        level = float(np.median(lines)) if lines.size >= _FEWEST_LINES else _PALEST_LINE
    signal = np.minimum(dark, 1.3 * level)
    signal = signal - _surroundings(signal)
    signal[dark > 1.7 * level + 0.03] = 0.0
    result: NDArray[np.float32] = signal
    return result


def _surroundings(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Gaussian mean around each place, from means of blocks.

    In a quarter of the time, and the same within .002, or .02 at the edge.
    """
    height, width = signal.shape
    blocks = np.asarray(Image.fromarray(signal).reduce(_BLOCK))
    smooth = Image.fromarray(gaussian_filter(blocks, _SURROUNDINGS_PX / _BLOCK))
    box = (0, 0, width / _BLOCK, height / _BLOCK)
    result: NDArray[np.float32] = np.asarray(smooth.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return result


def find_grid(picture: Picture) -> Grid | None:
    """The lattice of the picture; None where there is none. Its axes lie within 45 degrees of the picture's."""
    factor = max(1, round(max(picture.shape[1:]) / _LONGEST + 0.2))
    small = block_mean(picture, factor)
    signal = line_signal(small)
    corners = _corners(signal.shape)
    patches = [patch for y, x in corners if (patch := _patch(signal, y, x)) is not None]
    bases = _local_bases(patches)
    if bases is None:
        return None
    waves = [_waves(patch, base) for patch, base in zip(patches, bases, strict=True)]
    pairs = [(patch, wave) for patch, wave in zip(patches, waves, strict=True) if wave is not None]
    if len(pairs) <= _LEAST_COVERED * len(corners):
        return None
    places = np.array([(patch.x, patch.y) for patch, _ in pairs])
    periods = np.array([wave for _, wave in pairs])  # (n, 2 axes, 2) periods per pixel
    spacings = np.hypot(periods[..., 0], periods[..., 1])
    if np.median(np.abs(spacings / np.median(spacings) - 1)) > _MOST_SPREAD:
        return None
    millimetres, thin = _period(patches, bases, max(small.shape[1:]))
    matrix = _homography(places, periods * millimetres, small.shape[1:])
    if matrix is None:
        return None
    enlargement = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1.0]])
    to_picture = enlargement @ np.linalg.inv(matrix)
    to_picture /= to_picture[2, 2]
    pitch = factor / (float(np.median(spacings)) * millimetres)
    return Grid(to_picture, pitch, thin)


def _corners(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Top left corners (y, x) of patches that cover the picture and overlap by a fifth at least."""
    sides = []
    for length in shape:
        count = max(1, int(np.ceil((length - _PATCH) / (0.8 * _PATCH))) + 1)
        sides.append(np.unique(np.linspace(0, max(0, length - _PATCH), count).astype(int)))
    return [(int(y), int(x)) for y in sides[0] for x in sides[1]]


@dataclass(frozen=True, eq=False)
class _Patch:
    """The spectrum of a square part of the picture.

    Attributes:
        x: of its middle, pixels.
        y: of its middle, pixels.
        power: (_PATCH, _PATCH) logarithm of the Fourier transform's power above its median, zero frequency in the
            middle.
        angle: of the lattice, radians, from -45 to 45 degrees.
        profiles: (2 axes, frequencies) the power along each axis of the lattice at `_FREQUENCIES`.
    """

    x: float
    y: float
    power: Array
    angle: float
    profiles: Array


_ANGLES = np.radians(np.arange(-44.0, 45.0, 1.0))
_FREQUENCIES = np.arange(0.01, 0.45, 0.5 / _PATCH)  # cycles per pixel
_QUARTERS = (0.0, np.pi / 2)  # the two axes of a lattice, radians from its angle


def _patch(signal: NDArray[np.float32], y: int, x: int) -> _Patch | None:
    """The patch whose top left corner is (x, y); None where it is flat."""
    part = signal[y : y + _PATCH, x : x + _PATCH]
    if part.std() < _LEAST_CONTRAST:
        return None
    tile = np.zeros((_PATCH, _PATCH))
    tile[: part.shape[0], : part.shape[1]] = part * np.outer(np.hanning(part.shape[0]), np.hanning(part.shape[1]))
    power = np.log(np.abs(np.fft.fftshift(np.fft.fft2(tile))) ** 2 + 1e-6)
    power -= np.median(power)
    angle = _angle(power)
    turns = np.radians(np.array([[-1.0], [0.0], [1.0]]))
    profiles = np.stack([_along(power, _FREQUENCIES, angle + turn + turns).max(axis=0) for turn in _QUARTERS])
    return _Patch(x + part.shape[1] / 2, y + part.shape[0] / 2, power, angle, profiles)


def _along(power: Array, frequency: Array, angle: float | Array) -> Array:
    """The power at frequencies (cycles per pixel) in the direction of the angle; both broadcast."""
    centre = _PATCH // 2
    places = np.broadcast_arrays(
        centre + _PATCH * frequency * np.sin(angle), centre + _PATCH * frequency * np.cos(angle)
    )
    values: Array = _bilinear(power, places[0].ravel(), places[1].ravel()).reshape(places[0].shape)
    return values


@jit
def _bilinear(values, y, x):  # type: ignore[no-untyped-def]  # numba infers these
    """Values (rows, columns) at places y and x (n,), pixels; the nearest at the edge outside."""
    rows, columns = values.shape
    result = np.zeros(y.size)
    for i in range(y.size):
        row, column = min(max(y[i], 0.0), rows - 1.0), min(max(x[i], 0.0), columns - 1.0)
        top, left = min(int(row), rows - 2), min(int(column), columns - 2)
        down, right = row - top, column - left
        above = values[top, left] * (1.0 - right) + values[top, left + 1] * right
        below = values[top + 1, left] * (1.0 - right) + values[top + 1, left + 1] * right
        result[i] = above * (1.0 - down) + below * down
    return result


def _angle(power: Array) -> float:
    """The angle of the lattice, radians: that with the highest peaks on both axes."""
    frequency = np.arange(1 / 40, _HIGHEST, 1.0 / _PATCH)[None, :]
    rays = (np.maximum(_along(power, frequency, _ANGLES[:, None] + turn), 0.0) for turn in _QUARTERS)
    strength = sum(np.partition(ray, -8, axis=1)[:, -8:].mean(axis=1) for ray in rays)
    return float(_ANGLES[int(np.argmax(strength))])


def _local_bases(patches: list[_Patch]) -> list[float] | None:
    """The spacing of the comb around each patch, cycles per pixel; None where the picture shows no grid.

    A single patch is often wrong by a simple ratio (half, a fifth), and perspective changes the spacing by a third
    over a picture. So neighbouring patches vote together, and the clearest quarter limits the range of all others.
    """
    if not patches:
        return None
    places = np.array([(patch.x, patch.y) for patch in patches])
    near = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) < _NEAR * _PATCH
    profiles = np.mean([patch.profiles for patch in patches], axis=1)
    around = near @ profiles / near.sum(axis=1, keepdims=True)
    bases, teeth = np.exp(np.arange(np.log(1 / _BOX_PX[1]), np.log(_HIGHEST / 5), 0.01)), 5
    scores = np.stack([_teeth(profile, bases, teeth) for profile in around])
    if scores.max() < _LEAST_SCORE:
        bases, teeth = np.exp(np.arange(np.log(_HIGHEST / 5), np.log(_HIGHEST), 0.01)), 1
        scores = np.stack([_teeth(profile, bases, teeth) for profile in around]) / 2
        if scores.max() < _LEAST_SCORE:
            return None
    clearest = np.argsort(-scores.max(axis=1))[: max(1, len(patches) // 4)]
    common = np.median(np.log([bases[_smallest_base(scores[number])] for number in clearest]))
    window = np.abs(np.log(bases) - common) < _PERSPECTIVE
    # Lines of a drawing are off by parts of a pixel in a pattern of its own, which a clean page shows as a comb.
    tallest = _tallest(profiles)
    if tallest is not None and all(abs(tallest / np.exp(common) / lines - 1) > _PEAK for lines in (1, _THIN_PER_HEAVY)):
        return [tallest] * len(patches)
    best = np.array([bases[window][int(np.argmax(score[window]))] for score in scores])
    return [float(base) for base in best * _multiple(profiles, best)]


def _smallest_base(scores: Array) -> int:
    """The number of the smallest base whose score is nearly the best.

    Every third tooth of a comb is a comb as well, with three times its base and about the same score.
    """
    first = int(np.argmax(scores > _NEARLY * scores.max()))
    return first + int(np.argmax(scores[first : first + 12]))


def _multiple(profiles: Array, bases: Array) -> int:
    """How many times too small the bases (patches,) of combs are: 1 where all teeth of a comb are about as high.

    Args:
        profiles: (patches, frequencies).
        bases: (patches,) cycles per pixel.
    """
    for multiple in (2, 3):
        teeth = np.arange(1, 3 * multiple)
        within = (teeth[-1] * bases < _HIGHEST).nonzero()[0]
        if within.size:
            heights = [np.interp(teeth * bases[number], _FREQUENCIES, profiles[number]) for number in within]
            height, is_true = np.median(heights, axis=0), teeth % multiple == 0
            if height[is_true].min() > height[~is_true].max() + _LEAST_STEP:
                return multiple
    return 1


def _tallest(profiles: Array) -> float | None:
    """The frequency, cycles per pixel, of the lines that are by far the clearest; None where there are none such.

    Args:
        profiles: (patches, frequencies).
    """
    profile = np.median(profiles, axis=0)
    top = int(np.argmax(profile))
    below = profile[(1 - _PEAK) * _FREQUENCIES[top] > _FREQUENCIES]
    if not below.size or profile[top] < below.max() + _LEAST_DROP:
        return None
    near = slice(top - 1, top + 2)
    return float(np.average(_FREQUENCIES[near], weights=np.exp(profile[near] / 2)))


def _teeth(profile: Array, bases: Array, count: int) -> Array:
    """The mean height (bases,) of the profile on the first `count` teeth of each comb above that between them."""
    teeth = np.arange(1, count + 1)[:, None] * bases
    at, before, after = (np.interp(teeth + shift * bases, _FREQUENCIES, profile) for shift in (0.0, -0.5, 0.5))
    score: Array = (at - (before + after) / 2).mean(axis=0)
    return score


def _period(patches: list[_Patch], bases: list[float], longest: int) -> tuple[float, bool]:
    """Millimetres between the lines of the comb, and whether there are lines every millimetre.

    Heavy lines every 5 mm and thin ones every 1 mm give a comb whose fifth tooth is higher than its neighbours are on
    average; of heavy lines alone, and of blurred ones, each tooth is lower than the last.

    Args:
        longest: the picture's longer side, pixels.
    """
    teeth = [np.interp(np.arange(1, 7) * base, _FREQUENCIES, patch.profiles.mean(axis=0))
             for patch, base in zip(patches, bases, strict=True)]  # fmt: skip
    heights, base = np.mean(teeth, axis=0), float(np.median(bases))
    beside = heights[3 : 6 if 6 * base < _HIGHEST else 4 : 2]
    if 5 * base < _HIGHEST and heights[4] > beside.mean() + _THIN_TOOTH:
        return 5.0, True
    if longest * base > _MOST_BOXES:
        return 1.0, True
    return 5.0, False


def _waves(patch: _Patch, base: float) -> Array | None:
    """(2 axes, 2): lines per pixel along x and y, of the vertical and of the horizontal lines; None where unclear.

    The best spacing and direction are searched around `base` and the patch's angle, in three finer and finer grids.
    """
    waves = []
    for turn in _QUARTERS:
        best, direction = base, patch.angle + turn
        for span, steps in ((0.16, 33), (0.02, 9), (0.005, 9)):
            swing = 0.035 if span > 0.1 else span
            bases, turns = np.meshgrid(
                best * (1 + np.linspace(-span, span, steps)), direction + np.linspace(-swing, swing, 9), indexing="ij"
            )
            scores = _comb_scores(patch.power, bases.ravel(), turns.ravel())
            winner = int(np.argmax(scores))
            best, direction = float(bases.ravel()[winner]), float(turns.ravel()[winner])
        if scores[winner] < _LEAST_SCORE:
            return None
        waves.append([best * np.cos(direction), best * np.sin(direction)])
    return np.array(waves)


def _comb_scores(power: Array, bases: Array, angles: Array) -> Array:
    """The mean power (n,) on all teeth of each comb above that between them. bases, angles: (n,)."""
    count = max(1, min(_HARMONICS, int(_HIGHEST / bases.max())))
    teeth = np.arange(1, count + 1)[:, None] * bases
    score: Array = (_along(power, teeth, angles) - _along(power, teeth + bases / 2, angles)).mean(axis=0)
    return score


def _homography(places: Array, waves: Array, shape: tuple[int, ...]) -> Homography | None:
    """The homography from pixels to mm that has these gradients; None where they fit no page.

    Args:
        places: (n, 2) pixels.
        waves: (n, 2 axes, 2) mm per pixel along x and y, at the places.
        shape: height and width of the picture, pixels.
    """
    middle, size = np.array([shape[1], shape[0]]) / 2, float(max(shape))
    p = (places - middle) / size
    target = waves * size
    affine = np.median(target, axis=0)

    def gradients(h: Array) -> Array:
        a, (g, k) = h[:4].reshape(2, 2), h[4:]
        depth = 1 + p @ np.array([g, k])
        value = p @ a.T  # (n, 2)
        numerator = a[None] * depth[:, None, None] - value[:, :, None] * np.array([g, k])[None, None]
        return np.asarray(numerator / depth[:, None, None] ** 2)

    def misfit(h: Array) -> Array:
        return np.asarray((gradients(h) - target) / np.hypot(*affine[0])).ravel()

    start = np.concatenate([affine.ravel(), [0.0, 0.0]])
    few = len(places) < 6  # then perspective cannot be told from noise
    solution = start if few else least_squares(misfit, start, loss="soft_l1", f_scale=0.01).x
    if np.abs(solution[4:]).max() > 0.9 or np.linalg.det(solution[:4].reshape(2, 2)) <= 0:
        return None
    matrix = np.array([[*solution[:2], 0], [*solution[2:4], 0], [*solution[4:], 1.0]])
    scale = np.array([[1 / size, 0, -middle[0] / size], [0, 1 / size, -middle[1] / size], [0, 0, 1]])
    return np.asarray(matrix @ scale)
