"""Pictures as arrays: division by the illumination, block means, interpolation and homographies.

A picture is float32 (3, height, width), 1.0 where the paper is bare. Coordinates are pixels with the centre of the
top left pixel at (0, 0).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from render.jit import jit

Picture = NDArray[np.float32]
"""(3, height, width), 1.0 bare paper."""
Array = NDArray[np.float64]
"""float64 of any shape."""
Homography = NDArray[np.float64]
"""float64 (3, 3), with 1.0 in its last place where it is normalised."""

_BLOCKS = 40  # along the longer side; a block is larger than a letter and smaller than a shadow
_PAPER_PERCENTILE = 80  # of a block's pixels: grid and ink cover less than a fifth of most blocks
_BRIGHTEST = 1.2
_DARK, _MOST_ALONE, _GRAIN_PX = 0.5, 0.4, 1.0  # of paper; share of the dark pixels that are alone; of the blur
_LEAST_LIGHT = 8.0  # of 255: a block below it is black background


def as_picture(image: Image.Image) -> Picture:
    """The image divided by the light that falls on each place, channel by channel: paper near 1, ink near 0.

    Args:
        image: of any mode; it is read as RGB.
    """
    pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1))
    height, width = pixels.shape[1:]
    block = max(1, min(round(max(height, width) / _BLOCKS), height, width))
    picture: Picture = _divide(pixels, _paper_light(pixels, block))
    return picture


def without_grain(picture: Picture) -> Picture:
    """The picture, blurred by `_GRAIN_PX` where many of its dark pixels have no dark neighbour: dots that stand for the
    grey of a grid in a fax, or noise."""
    dark = np.pad(picture.sum(axis=0) < 3 * _DARK, 1)
    beside = dark[:-2, 1:-1] | dark[2:, 1:-1] | dark[1:-1, :-2] | dark[1:-1, 2:]
    inner = dark[1:-1, 1:-1]
    if np.count_nonzero(inner & ~beside) <= _MOST_ALONE * np.count_nonzero(inner):
        return picture
    return np.stack([gaussian_filter(channel, _GRAIN_PX) for channel in picture])


@jit
def _divide(pixels, light):  # type: ignore[no-untyped-def]  # numba infers these
    """Pixels (3, height, width) divided by the light on blocks, (3, rows, columns), bilinear between their middles."""
    channels, height, width = pixels.shape
    rows, columns = light.shape[1:]
    picture = np.empty((channels, height, width), np.float32)
    x = np.minimum(np.maximum((np.arange(width) + 0.5) * columns / width - 0.5, 0.0), columns - 1.0)
    left = x.astype(np.int64)
    right = np.minimum(left + 1, columns - 1)
    share = (x - left).astype(np.float32)
    for channel in range(channels):
        for i in range(height):
            y = min(max((i + 0.5) * rows / height - 0.5, 0.0), rows - 1.0)
            top = int(y)
            down = np.float32(y - top)
            near = light[channel, top] * (np.float32(1) - down) + light[channel, min(top + 1, rows - 1)] * down
            for j in range(width):
                here = near[left[j]] * (np.float32(1) - share[j]) + near[right[j]] * share[j]
                picture[channel, i, j] = min(np.float32(pixels[channel, i, j]) / here, np.float32(_BRIGHTEST))
    return picture


def _paper_light(pixels: NDArray[np.uint8], block: int) -> NDArray[np.float32]:
    """Brightness of bare paper, 0-255, smoothed: (3, rows, columns) of blocks of `block` pixels a side."""
    step = max(1, block // 16)
    thin = pixels[:, ::step, ::step]
    size = max(1, block // step)
    rows, columns = max(1, thin.shape[1] // size), max(1, thin.shape[2] // size)
    blocks = thin[:, : rows * size, : columns * size].reshape(3, rows, size, columns, size)
    level = np.percentile(blocks.transpose(0, 1, 3, 2, 4).reshape(3, rows, columns, -1), _PAPER_PERCENTILE, axis=-1)
    smooth = np.stack([gaussian_filter(channel, 1.0, mode="nearest") for channel in level])
    light: NDArray[np.float32] = np.maximum(smooth, _LEAST_LIGHT).astype(np.float32)
    return light


def block_mean(picture: Picture, factor: int) -> Picture:
    """The picture `factor` times smaller: the mean of each block of factor x factor pixels."""
    if factor <= 1:
        return picture
    rows, columns = picture.shape[1] // factor, picture.shape[2] // factor
    total = np.zeros((3, rows, columns), np.float32)
    for i in range(factor):
        for j in range(factor):
            total += picture[:, i : rows * factor : factor, j : columns * factor : factor]
    total /= np.float32(factor * factor)
    return total


def interpolate(picture: Picture, x: NDArray[np.floating], y: NDArray[np.floating]) -> Picture:
    """Values (3, rows, columns) at places between the pixels, bilinear; 1.0 (bare paper) outside the picture.

    Args:
        x: (rows, columns) pixels.
        y: (rows, columns) pixels.
    """
    values: Picture = _interpolate(picture, np.asarray(x, np.float64), np.asarray(y, np.float64))
    return values


@jit
def _interpolate(picture, x, y):  # type: ignore[no-untyped-def]  # numba infers these
    channels, height, width = picture.shape
    rows, columns = x.shape
    values = np.ones((channels, rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            if not (-1.0 < x[i, j] < width and -1.0 < y[i, j] < height):
                continue
            left, top = math.floor(x[i, j]), math.floor(y[i, j])
            right, down = np.float32(x[i, j] - left), np.float32(y[i, j] - top)
            for row, high in ((top, np.float32(1) - down), (top + 1, down)):
                for column, wide in ((left, np.float32(1) - right), (left + 1, right)):
                    if 0 <= row < height and 0 <= column < width:
                        for channel in range(channels):
                            values[channel, i, j] += (picture[channel, row, column] - np.float32(1)) * high * wide
    return values


def apply_homography(
    matrix: NDArray[np.floating], x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[Array, Array]:
    """x and y of points under a homography (3, 3), in the shape of the arguments."""
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(matrix, dtype=np.float64)
    depth = g * x + h * y + i
    return (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
