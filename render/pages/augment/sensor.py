"""From light to a file: fewer pixels, noise, black and white, JPEG.

Pictures are uint8 (height, width, 4) as in `render.pages.augment.optics`.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from render.jit import jit
from render.pages.augment.optics import Pixels

_FEWEST = 2.5  # factor by which the pixels a side are reduced at full strength
_TILE = 512  # side of the tile of noise
_NOISE = 22.0  # standard deviation of the strongest noise, of 255
_BEST, _WORST = 92, 20  # JPEG quality
_WINDOW_MM = 3.0  # side of the window in which a fax estimates the paper's white
# Ordered dithering: the thresholds of a 4 by 4 cell (Bayer 1973), -1/2 to 1/2.
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16.0 - 0.5


def lowres(picture: Pixels, strength: float) -> Pixels:
    """The picture averaged to fewer pixels and enlarged to its size again."""
    height, width = picture.shape[:2]
    times = 1.0 + (_FEWEST - 1.0) * strength
    small = (max(2, round(width / times)), max(2, round(height / times)))
    image = Image.fromarray(picture, "RGBX").resize(small, Image.Resampling.BOX)
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


@lru_cache(maxsize=1)
def _noise_tile() -> NDArray[np.int16]:
    """(side, side, 4): a sensor's fine grain, its coarser specks of colour, and paper's fibres; opposite edges match.

    The standard deviation is 64 or a little more in each channel.
    """
    rng = np.random.default_rng(20)

    def grain(sigma: float) -> NDArray[np.float64]:
        field = gaussian_filter(rng.standard_normal((_TILE, _TILE)), sigma, mode="wrap")
        return np.asarray(field / field.std())

    light = 0.9 * grain(0.55) + 0.2 * grain(1.6)
    tile = np.stack([light + 0.45 * grain(1.1) for _ in range(3)] + [np.zeros((_TILE, _TILE))], axis=-1)
    whole = np.rint(64.0 * tile).astype(np.int16)
    whole.setflags(write=False)
    return whole


def add_noise(picture: Pixels, strength: float, rng: Generator) -> None:
    """Add noise of light and colour and the paper's grain, in place."""
    ox, oy = (int(at) for at in rng.integers(_TILE, size=2))
    flat = picture.reshape(picture.shape[0], -1)
    _add_tile(flat, _noise_tile().reshape(_TILE, -1), 4 * ox, oy, round(strength * _NOISE * 16))


@jit
def _add_tile(flat, tile, ox, oy, amount):  # type: ignore[no-untyped-def]  # numba infers these
    """Add tile * amount / 1024 to each byte."""
    side = tile.shape[1]
    for y in range(flat.shape[0]):
        grain = tile[(oy + y) % tile.shape[0]]
        first = 0
        while first < flat.shape[1]:
            start = (ox + first) % side
            run = min(side - start, flat.shape[1] - first)
            row, part = flat[y, first : first + run], grain[start : start + run]
            for i in range(run):
                value = np.int32(row[i]) + ((np.int32(part[i]) * np.int32(amount) + np.int32(512)) >> np.int32(10))
                row[i] = np.uint8(min(max(value, np.int32(0)), np.int32(255)))
            first += run


def bilevel(picture: Pixels, strength: float, rng: Generator, px_per_mm: float) -> NDArray[np.bool_]:
    """A fax: True where the paper is white. Its threshold adapts to the paper; strength adds specks and bad lines.

    A bad line repeats the line above it, as machines after ITU-T T.4 conceal errors; it is printed over its own, so
    that no trace is lost, and nothing is shifted.
    """
    height, width = picture.shape[:2]
    coarse = np.asarray(Image.fromarray(picture, "RGBX").reduce(max(1, round(_WINDOW_MM * px_per_mm))))
    red = rng.uniform(0.38, 0.85)  # of the scanner's lamp; the redder, the less of a red grid it shows
    lamp = np.rint(256 * np.array([red, 0.8 * (1.0 - red), 0.2 * (1.0 - red)])).astype(np.int64)
    paper = coarse[..., :3].astype(np.float64) @ lamp / lamp.sum()
    paper = np.maximum(paper, 0.35 * np.median(paper)).astype(np.uint8)  # a black background is not paper
    local = np.asarray(Image.fromarray(paper).resize((width, height), Image.Resampling.BILINEAR))
    share = rng.uniform(0.66, 0.74) + rng.choice([0.0, 0.18]) * _BAYER
    white = np.empty((height, width), dtype=np.bool_)
    _threshold(picture, local, lamp, np.rint(lamp.sum() * share).astype(np.int64), white)
    _specks(white, strength, rng, px_per_mm)
    for y in rng.integers(1, height, rng.poisson(12.0 * strength)):
        white[y : y + max(1, round(0.25 * px_per_mm))] &= white[y - 1]
    return np.asarray(white)


@jit
def _threshold(picture, local, lamp, share, white):  # type: ignore[no-untyped-def]
    """White where a pixel under a lamp (3) is brighter than a share (4, 4, repeated) of the paper around it."""
    for y in range(white.shape[0]):
        for x in range(white.shape[1]):
            grey = lamp[0] * picture[y, x, 0] + lamp[1] * picture[y, x, 1] + lamp[2] * picture[y, x, 2]
            white[y, x] = grey > local[y, x] * share[y & 3, x & 3]


def _specks(white: NDArray[np.bool_], strength: float, rng: Generator, px_per_mm: float) -> None:
    """Black dust on paper and white holes in ink, each a fifth of a millimetre or so."""
    height, width = white.shape
    square_mm = height * width / px_per_mm**2
    for black, per_square_mm in ((True, 0.04), (False, 0.01)):
        n = rng.poisson(per_square_mm * strength * square_mm)
        side = max(1, round(0.25 * px_per_mm))
        ys, xs = rng.integers(0, height - side, n), rng.integers(0, width - side, n)
        sizes = rng.integers(1, side + 1, (n, 2))
        for dy in range(side):
            for dx in range(side):
                hit = (sizes[:, 0] > dy) & (sizes[:, 1] > dx)
                white[ys[hit] + dy, xs[hit] + dx] = not black


def encode(picture: Pixels | NDArray[np.bool_], jpeg: float) -> tuple[bytes, str]:
    """The file and its suffix: JPEG with chroma halved (4:2:0) where `jpeg` (0-1) is above 0, else PNG."""
    image = Image.fromarray(picture) if picture.dtype == np.bool_ else Image.fromarray(picture, "RGBX")
    out = io.BytesIO()
    if jpeg:
        image = image.convert("L") if image.mode == "1" else image
        image.save(out, "JPEG", quality=round(_BEST + (_WORST - _BEST) * jpeg), subsampling="4:2:0")
        return out.getvalue(), ".jpg"
    image = image if image.mode == "1" else image.convert("RGB")
    image.save(out, "PNG", compress_level=3)
    return out.getvalue(), ".png"
