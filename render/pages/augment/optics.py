"""The view of a camera or scanner: the page in front of a background, resampled once, and blurred.

Pictures and sheets of paper are uint8 (height, width, 4): red, green, blue and an unused byte. Four bytes are one
machine word, which the compiled loops move and blend at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.special import ive

from render.jit import jit
from render.pages.augment.homography import Matrix, inverse_of, scale_and_shift
from render.pages.geometry import transform_points

Pixels = NDArray[np.uint8]

# Bilinear interpolation reaches one pixel to each side; past this many page pixels per picture pixel thin lines
# would alias.
_MAX_STRIDE = 1.6
_BLUR_MM = 0.38  # standard deviation of a defocused point
_SHAKE_MM = 1.3  # length of a point under motion
_SPAN = 1024  # entries in the table of a desk's grain, a power of two


@dataclass(frozen=True)
class Backdrop:
    """The background of the page.

    Attributes:
        tone: RGB, 0-255.
        grain: relative strength, along a direction (radians).
        shadow: share of the light that the page's shadow takes; its reach and offset (x, y) in page pixels.
    """

    tone: tuple[float, float, float]
    grain: float
    direction: float
    shadow: float
    reach: float
    offset: tuple[float, float]


_DESKS = (
    ((152.0, 108.0, 72.0), 0.16),  # wood
    ((193.0, 154.0, 110.0), 0.10),
    ((92.0, 64.0, 46.0), 0.18),
    ((168.0, 168.0, 165.0), 0.02),  # laminate
    ((222.0, 219.0, 212.0), 0.015),
    ((82.0, 112.0, 138.0), 0.03),  # drapes
    ((74.0, 120.0, 104.0), 0.03),
    ((58.0, 58.0, 62.0), 0.03),
)
_LIDS = (((246.0, 246.0, 245.0), 0.0), ((212.0, 213.0, 214.0), 0.0), ((24.0, 24.0, 26.0), 0.0))
_BEZELS = (((17.0, 17.0, 19.0), 0.0), ((30.0, 30.0, 33.0), 0.0))


def backdrop(kind: str, rng: Generator, px_per_mm: float) -> Backdrop:
    """A random background of a kind: "desk", "lid" (of a scanner) or "bezel" (of a monitor)."""
    choices = {"desk": _DESKS, "lid": _LIDS, "bezel": _BEZELS}[kind]
    tone, grain = choices[rng.integers(len(choices))]
    shadow, reach = (rng.uniform(0.25, 0.6), rng.uniform(1.5, 5.0)) if kind == "desk" else (0.3, 0.4)
    angle = rng.uniform(0.0, 2.0 * math.pi)
    away = reach * 0.4 * px_per_mm
    offset = (away * math.cos(angle), away * math.sin(angle))
    return Backdrop(tone, grain, rng.uniform(0.0, math.pi), shadow, reach * px_per_mm, offset)


def palette_to_rgbx(image: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Pixels:
    """The pixels (height, width, 4) of indices (height, width) into a palette (256, 3)."""
    colours = np.zeros((256, 4), dtype=np.uint8)
    colours[:, :3] = palette
    out = np.empty(image.shape, dtype=np.uint32)
    _look_up(np.ascontiguousarray(image).reshape(-1), _words(colours), out.reshape(-1))
    return out.view(np.uint8).reshape(*image.shape, 4)


@jit
def _look_up(image, colours, out):  # type: ignore[no-untyped-def]  # numba infers these
    for i in range(image.size):
        out[i] = colours[image[i]]


def project(page: Pixels, matrix: Matrix, behind: Backdrop, rng: Generator, px_per_mm: float) -> Pixels:
    """The picture of a page (height, width, 4) under a homography, as large as the page, over a background."""
    height, width = page.shape[:2]
    inverse = inverse_of(matrix)
    fine = math.ceil(_stride(inverse, width, height) / _MAX_STRIDE)
    if fine > 1:  # pixel centres of a picture with `fine` times as many pixels a side
        inverse = inverse @ scale_and_shift(1.0 / fine, np.full(2, 0.5 / fine - 0.5))
    steps = np.repeat(rng.normal(0.0, 1.0, _SPAN // 4), 4) + rng.normal(0.0, 0.7, _SPAN)
    grain = np.convolve(np.tile(steps, 3), np.ones(5) / 5, mode="same")[_SPAN : 2 * _SPAN] * behind.grain
    slope = np.array([math.cos(behind.direction), math.sin(behind.direction)]) * (2.5 / px_per_mm / fine)
    shade = np.array([behind.shadow, 1.0 / behind.reach, *behind.offset])
    out = np.empty((height * fine, width * fine), dtype=np.uint32)
    _project(_words(page), out, inverse, np.array(behind.tone), 1.0 + grain, slope, shade)
    picture = out.view(np.uint8).reshape(*out.shape, 4)
    return picture if fine == 1 else np.array(Image.fromarray(picture, "RGBX").reduce(fine))


def project_mask(mask: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.uint8]:
    """Classes (height, width) of a page under a homography, each from the nearest pixel; 0 beside the page."""
    out = np.zeros_like(mask)
    _project_mask(np.ascontiguousarray(mask), out, inverse_of(matrix))
    return out


def _words(pixels: Pixels) -> NDArray[np.uint32]:
    return np.ascontiguousarray(pixels).view(np.uint32)[..., 0]


def _stride(inverse: Matrix, width: int, height: int) -> float:
    """The largest number of page pixels per image pixel, over the picture's corners."""
    corners = np.array([[0.0, 0.0], [width - 1, 0.0], [width - 1, height - 1], [0.0, height - 1]])
    here = transform_points(inverse, corners)
    beside, below = (transform_points(inverse, corners + np.array(step)) - here for step in ((1.0, 0.0), (0.0, 1.0)))
    return float(max(np.linalg.norm(beside, axis=1).max(), np.linalg.norm(below, axis=1).max()))


_LANES, _HALVES = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0080008000800080)
_EVEN, _ODD = np.uint64(0x00FF00FF), np.uint64(0xFF00FF00)
_8, _16, _24, _32, _256, _NEXT = (np.uint64(n) for n in (8, 16, 24, 32, 256, 1))
_RUN = 8  # pixels over which the projection is taken as linear: at the steepest tilt an error of 0.01 pixel


@jit
def _wide(word):  # type: ignore[no-untyped-def]  # numba infers these
    """A word's four bytes 16 bits apart, so that one product weights all of them."""
    return (np.uint64(word) & _EVEN) | ((np.uint64(word) & _ODD) << _24)


@jit
def _between(one, other, share):  # type: ignore[no-untyped-def]
    """The wide word `share` / 256 of the way from one to the other."""
    return ((one * (_256 - share) + other * share + _HALVES) >> _8) & _LANES


@jit
def _bilinear(flat, at, below, s, t):  # type: ignore[no-untyped-def]
    """The wide word s / 256 of a pixel right of pixel `at` and t / 256 under it; `below` is a row's length."""
    upper = _between(_wide(flat[at]), _wide(flat[at + _NEXT]), s)
    lower = _between(_wide(flat[at + below]), _wide(flat[at + below + _NEXT]), s)
    return _between(upper, lower, t)


@jit
def _behind(u, v, right, bottom, tone, brightness, shade):  # type: ignore[no-untyped-def]
    """The wide word of the background at (u, v), in the page's shadow or out of it."""
    dx = max(max(shade[2] - u, u - shade[2] - right), 0.0) * shade[1]
    dy = max(max(shade[3] - v, v - shade[3] - bottom), 0.0) * shade[1]
    dark = brightness * (1.0 - shade[0] / (1.0 + dx * dx + dy * dy))
    red, green, blue = int(tone[0] * dark), int(tone[1] * dark), int(tone[2] * dark)
    return np.uint64(min(max(red, 0), 255) | (min(max(blue, 0), 255) << 16) | (min(max(green, 0), 255) << 32))


@jit
def _at_edge(flat, below, u, v, right, bottom, behind):  # type: ignore[no-untyped-def]
    """The wide word of a pixel near the page's edge, which fades over one pixel into the background."""
    inside = min(min(u, right - u), min(v, bottom - v))
    if inside <= -1.0:
        return behind
    a, b = int(min(max(u, 0.0), right - 1e-4) * 65536.0), int(min(max(v, 0.0), bottom - 1e-4) * 65536.0)
    at = np.uint64(b >> 16) * below + np.uint64(a >> 16)
    mixed = _bilinear(flat, at, below, np.uint64((a >> 8) & 255), np.uint64((b >> 8) & 255))
    return _between(behind, mixed, np.uint64(min(1.0, 1.0 + inside) * 256.0))


@jit
def _project(page, out, inverse, tone, grain, slope, shade):  # type: ignore[no-untyped-def]
    flat, below = page.reshape(-1), np.uint64(page.shape[1])
    right, bottom = page.shape[1] - 1.0, page.shape[0] - 1.0
    m = inverse
    for y in range(out.shape[0]):
        row = out[y]
        for start in range(0, out.shape[1], _RUN):
            end = start + _RUN
            w, z = 1.0 / (m[2, 0] * start + m[2, 1] * y + m[2, 2]), 1.0 / (m[2, 0] * end + m[2, 1] * y + m[2, 2])
            u, v = (m[0, 0] * start + m[0, 1] * y + m[0, 2]) * w, (m[1, 0] * start + m[1, 1] * y + m[1, 2]) * w
            du = ((m[0, 0] * end + m[0, 1] * y + m[0, 2]) * z - u) / _RUN
            dv = ((m[1, 0] * end + m[1, 1] * y + m[1, 2]) * z - v) / _RUN
            far_u, far_v = u + _RUN * du, v + _RUN * dv
            if min(u, far_u) > 0.0 and max(u, far_u) < right and min(v, far_v) > 0.0 and max(v, far_v) < bottom:
                a, b, da, db = int(u * 65536), int(v * 65536), int(du * 65536), int(dv * 65536)
                for x in range(start, min(end, row.size)):
                    at = np.uint64(b >> 16) * below + np.uint64(a >> 16)
                    mixed = _bilinear(flat, at, below, np.uint64((a >> 8) & 255), np.uint64((b >> 8) & 255))
                    row[np.uint64(x)] = np.uint32((mixed & _EVEN) | ((mixed >> _24) & _ODD))
                    a, b = a + da, b + db
            else:
                off = max(
                    max(-1.0 - max(u, far_u), min(u, far_u) - right - 1.0),
                    max(-1.0 - max(v, far_v), min(v, far_v) - bottom - 1.0),
                )
                near = off < 0.0
                for x in range(start, min(end, row.size)):
                    light = grain[int((slope[0] * x + slope[1] * y) * 8.0) & (grain.size - 1)]
                    mixed = _behind(u, v, right, bottom, tone, light, shade)
                    if near:
                        mixed = _at_edge(flat, below, u, v, right, bottom, mixed)
                    row[np.uint64(x)] = np.uint32((mixed & _EVEN) | ((mixed >> _24) & _ODD))
                    u, v = u + du, v + dv


@jit
def _project_mask(mask, out, inverse):  # type: ignore[no-untyped-def]
    ph, pw = mask.shape
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            w = 1.0 / (inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2])
            u = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * w
            v = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) * w
            if -0.5 <= u < pw - 0.5 and -0.5 <= v < ph - 0.5:
                out[y, x] = mask[np.uint64(v + 0.5), np.uint64(u + 0.5)]


def blur(picture: Pixels, strength: float, rng: Generator, px_per_mm: float) -> Pixels:
    """Defocus, or, in one picture of three, motion blur."""
    if rng.random() < 1 / 3:
        return _convolve(picture, *_motion(_SHAKE_MM * strength * px_per_mm, rng.uniform(0.0, math.pi)))
    sigma = _BLUR_MM * strength * px_per_mm
    reach = math.ceil(1.0 + 2.5 * sigma)
    away = np.arange(-reach, reach + 1)
    # The Gaussian of a grid (Lindeberg 1990), whose variance is exact even far below one pixel.
    weights = ive(np.abs(away), sigma**2)
    still = np.zeros_like(away)
    return _convolve(_convolve(picture, away, still, weights), still, away, weights)


def _motion(length: float, angle: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Motion along a straight line as taps (dx, dy, weight): points between four pixels are shared among them."""
    along = (np.arange(64) + 0.5) / 64 - 0.5
    x, y = along * length * math.cos(angle), along * length * math.sin(angle)
    shares: dict[tuple[int, int], float] = {}
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        for i in (math.floor(a), math.floor(a) + 1):
            for j in (math.floor(b), math.floor(b) + 1):
                shares[i, j] = shares.get((i, j), 0.0) + (1 - abs(a - i)) * (1 - abs(b - j))
    taps = np.array(list(shares))
    return taps[:, 0], taps[:, 1], np.array(list(shares.values()))


def _convolve(picture: Pixels, dxs: NDArray[np.int64], dys: NDArray[np.int64], weights: NDArray[np.float64]) -> Pixels:
    """Each pixel as the weighted mean of those at (dx, dy) from it; edges repeat their last pixel."""
    mx, my = int(np.abs(dxs).max()), int(np.abs(dys).max())
    source = np.pad(picture, ((my, my), (mx, mx), (0, 0)), mode="edge")
    out = np.empty_like(picture)
    shares = np.rint(weights / weights.sum() * 256).astype(np.uint16)
    shares[shares.argmax()] += 256 - shares.sum(dtype=np.int64)
    flat, flat_out = (array.reshape(array.shape[0], -1) for array in (source, out))
    _weigh(flat, flat_out, 4 * (dxs + mx), dys + my, shares)
    return out


@jit
def _weigh(source, out, shifts, rows, shares):  # type: ignore[no-untyped-def]
    total = np.empty(out.shape[1], dtype=np.uint16)  # 16 bits hold 255 * 256, and fill the machine's vectors best
    for y in range(out.shape[0]):
        total[:] = 128
        for k in range(shares.size):
            row = source[y + rows[k], shifts[k] : shifts[k] + total.size]
            share = shares[k]
            for i in range(total.size):
                total[i] = np.uint16(total[i] + np.uint16(share * np.uint16(row[i])))
        for i in range(total.size):
            out[y, i] = np.uint8(total[i] >> 8)
