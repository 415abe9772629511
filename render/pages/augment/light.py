"""The light on a picture: uneven lamps and shadows, reflections, and the raster of a monitor.

Pictures are uint8 (height, width, 4) as in `render.pages.augment.optics`, and are changed in place.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from render.jit import jit
from render.pages.augment.homography import Matrix
from render.pages.augment.optics import Pixels

_KNOT = 16  # pixels between the knots of a field of light, which is smooth
_SAME = 4  # so many rows share their light
_DARKEST = 0.38  # share of the light left where the strongest shading is darkest
_CAST = 0.10  # of a channel, the strongest tint of a lamp
_GLARE = 0.94  # share of the contrast that the strongest reflection takes in its middle
_SCREEN = (1.04, 1.10, 1.16)  # a monitor's white in a camera that sees the raster as grey and exposes for it
_GLOW = 0.10  # of full white, the black of a monitor at full strength
_RASTER = 0.34  # the strongest modulation of a channel by the raster


def shade(picture: Pixels, strength: float, rng: Generator) -> None:
    """A gradient of light, the lens's fall-off to the corners, a lamp's tint, and in half of the pictures a shadow."""
    x, y = _knots(picture)
    angle = rng.uniform(0.0, 2.0 * math.pi)
    across = (x * math.cos(angle) + y * math.sin(angle)) / 2  # -0.7 to 0.7
    loss = rng.uniform(0.3, 0.6) * (0.5 - across) + rng.uniform(0.1, 0.35) * (x * x + y * y) / 2
    if rng.random() < 0.5:  # an arm or a telephone between lamp and paper, coming in from a side
        angle = rng.uniform(0.0, 2.0 * math.pi)
        far = x * math.cos(angle) + y * math.sin(angle) + rng.uniform(0.1, 0.25) * np.sin(3.0 * (x - y) + angle)
        loss += rng.uniform(0.2, 0.4) / (1.0 + np.exp((rng.uniform(0.1, 0.7) - far) / rng.uniform(0.04, 0.2)))
    gain = 1.0 - strength * (1.0 - _DARKEST) * np.clip(loss - loss.min(), 0.0, 1.0)  # a camera exposes for the light
    warm = rng.uniform(-1.0, 1.0) * _CAST * strength
    cast = np.array([1.0 + warm, 1.0 + rng.uniform(-0.2, 0.2) * _CAST * strength, 1.0 - warm, 0.0], dtype=np.float32)
    _light(picture, gain.astype(np.float32), np.zeros_like(gain, dtype=np.float32), cast / cast.max())


def glare(picture: Pixels, strength: float, rng: Generator) -> None:
    """The reflection of a lamp or a window: a spot, or a stripe in one picture of three."""
    x, y = _knots(picture)
    height, width = picture.shape[:2]
    x, y = x * width / max(width, height), y * height / max(width, height)
    angle, cx, cy = rng.uniform(0.0, math.pi), rng.uniform(-0.8, 0.8), rng.uniform(-0.4, 0.4)
    along = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
    away = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
    wide = rng.uniform(0.05, 0.11)
    long = wide * (rng.uniform(4.0, 8.0) if rng.random() < 1 / 3 else rng.uniform(1.0, 2.2))
    spot = np.exp(-(np.hypot(along / long, away / wide) ** 2.5))
    halo = 0.16 * np.exp(-np.hypot(along / long, away / wide) / 2.5)
    add = strength * _GLARE * np.minimum(spot + halo, 1.0)
    _light(picture, np.ones_like(add, dtype=np.float32), add.astype(np.float32), np.ones(4, dtype=np.float32))


def _knots(picture: Pixels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The knots of a field of light: x and y, -1 to 1 over the picture; one row and column beyond its end."""
    height, width = picture.shape[:2]
    x = np.arange(width // _KNOT + 2) * (2.0 * _KNOT / (width - 1)) - 1.0
    y = np.arange(height // _KNOT + 2) * (2.0 * _KNOT / (height - 1)) - 1.0
    return np.broadcast_to(x, (y.size, x.size)), np.broadcast_to(y[:, None], (y.size, x.size))


@jit
def _light(picture, gain, add, cast):  # type: ignore[no-untyped-def]  # numba infers these
    """Multiply by the gain (knots) and the cast (4), then go the share `add` (knots) of the way to white."""
    height, width = picture.shape[:2]
    keep, white = np.empty(4 * width, dtype=np.uint16), np.empty(4 * width, dtype=np.uint16)
    for y in range(height):
        if y % _SAME == 0:
            _light_of_row(y, gain, add, cast, keep, white)
        row = picture[y].reshape(-1)
        for i in range(row.size):
            row[i] = np.uint8(np.uint16(np.uint16(row[i] * keep[i]) + white[i]) >> 8)


@jit
def _light_of_row(y, gain, add, cast, keep, white):  # type: ignore[no-untyped-def]
    """For a row: the factors of its bytes, in 256ths, and the summands."""
    knot, one = np.float32(_KNOT), np.float32(1.0)
    j, t = y // _KNOT, np.float32(y % _KNOT) / knot
    for x in range(keep.size // 4):
        i, s = x // _KNOT, np.float32(x % _KNOT) / knot
        g = (gain[j, i] * (one - s) + gain[j, i + 1] * s) * (one - t)
        g += (gain[j + 1, i] * (one - s) + gain[j + 1, i + 1] * s) * t
        a = (add[j, i] * (one - s) + add[j, i + 1] * s) * (one - t)
        a += (add[j + 1, i] * (one - s) + add[j + 1, i + 1] * s) * t
        share = np.float32(256.0) * g * (one - a)
        for k in range(4):
            keep[4 * x + k] = np.uint16(share * cast[k] + np.float32(0.5))
            white[4 * x + k] = np.uint16(np.float32(65280.0) * a) + np.uint16(127)


def moire(picture: Pixels, strength: float, rng: Generator, to_page: Matrix) -> None:
    """A photograph of a monitor: the raster of its pixels interferes with the camera's, and its black glows.

    Args:
        to_page: homography from the picture's pixels to the page's, on which the raster lies.
    """
    stride = math.sqrt(abs(np.linalg.det(to_page[:2, :2])))  # page pixels per picture pixel, roughly
    # Camera pixels per screen pixel: near a whole number slow waves appear, near three the stripes themselves.
    apart = rng.choice([1.0, 2.0, 3.0]) * (1.0 + rng.choice([-1.0, 1.0]) * rng.uniform(0.015, 0.06))
    pitch = apart * stride
    bend = rng.uniform(-0.02, 0.02)  # the lens's distortion, too small to see except in the waves
    depth = _RASTER * strength * np.array([1.0, rng.uniform(0.4, 0.8)])
    if apart < 1.5:  # a camera pixel covers a whole screen pixel, and averages most of the raster out
        depth *= 0.45
    waves = 1.0 - depth[:, None] * (1.0 + np.cos(2.0 * math.pi * np.arange(256) / 256)) / 2.0
    tint = 1.0 + strength * (np.array(_SCREEN) - 1.0)
    glow = np.float32(strength * _GLOW * 255.0)
    _raster(picture, to_page, 256.0 / pitch, bend, waves.astype(np.float32), tint.astype(np.float32), glow)


@jit
def _phase(to_page, x, y, size, per_pixel, bend, at):  # type: ignore[no-untyped-def]
    """The phase of a pixel in the raster's period, across and down, in units of 1 / 2 ** 24 of the period."""
    m = to_page
    w = 1.0 / (m[2, 0] * x + m[2, 1] * y + m[2, 2])
    rx, ry = 2.0 * x / size[1] - 1.0, 2.0 * y / size[0] - 1.0
    scale = w * (1.0 + bend * (rx * rx + ry * ry)) * per_pixel * 65536.0
    at[0] = int((m[0, 0] * x + m[0, 1] * y + m[0, 2]) * scale)
    at[1] = int((m[1, 0] * x + m[1, 1] * y + m[1, 2]) * scale)


@jit
def _raster(picture, to_page, per_pixel, bend, waves, tint, glow):  # type: ignore[no-untyped-def]
    height, width = picture.shape[:2]
    here, ahead = np.empty(2, dtype=np.int64), np.empty(2, dtype=np.int64)
    lift = np.float32(1.0) - glow / np.float32(255.0)
    for y in range(height):
        row = picture[y]
        for start in range(0, width, _KNOT):  # between these the phase is linear
            _phase(to_page, start, y, (height, width), per_pixel, bend, here)
            _phase(to_page, start + _KNOT, y, (height, width), per_pixel, bend, ahead)
            across, down = here[0], here[1]
            da, db = (ahead[0] - across) // _KNOT, (ahead[1] - down) // _KNOT
            for x in range(start, min(start + _KNOT, width)):
                lines = waves[1, np.uint64((down >> 16) & 255)]
                for k in range(3):  # red, green and blue stripes lie side by side
                    stripes = waves[0, np.uint64(((across >> 16) + 85 * k) & 255)]
                    level = (glow + np.float32(row[x, k]) * lift) * tint[k] * lines * stripes
                    row[x, k] = np.uint8(min(np.float32(255.0), level))
                across, down = across + da, down + db
