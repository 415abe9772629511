"""Pictures as arrays: even light, and values at any place between the pixels.

A picture is float32 (3, height, width), 1.0 where the paper is bare. Coordinates are pixels with the centre of the
top left pixel at (0, 0).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

Picture = torch.Tensor
Matrix = NDArray[np.float64]

_BLOCKS = 40  # along the longer side; a block is larger than a letter and smaller than a shadow
_PAPER_PERCENTILE = 80  # of a block's pixels: grid and ink cover less than a fifth of most blocks
_BRIGHTEST = 1.2
_LEAST_LIGHT = 8.0  # of 255: below it a block is black background


def as_picture(image: Image.Image) -> Picture:
    """The image with even light: (3, height, width), paper near 1, ink near 0."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
    return even_light(torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)))


def even_light(pixels: torch.Tensor) -> Picture:
    """Divide (3, height, width) of 0-255 by the light that falls on each place, channel by channel."""
    height, width = pixels.shape[1:]
    block = max(4, round(max(height, width) / _BLOCKS))
    light = _paper_light(pixels.numpy(), block)
    light_map = F.interpolate(torch.from_numpy(light)[None], size=(height, width), mode="bilinear", align_corners=False)
    return (pixels / light_map[0]).clamp_(0.0, _BRIGHTEST)


def _paper_light(pixels: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """(3, rows, columns) of blocks: the brightness of bare paper in each, smoothed."""
    step = max(1, block // 16)
    thin = pixels[:, ::step, ::step]
    size = max(1, block // step)
    rows, columns = max(1, thin.shape[1] // size), max(1, thin.shape[2] // size)
    blocks = thin[:, : rows * size, : columns * size].reshape(3, rows, size, columns, size)
    level = np.percentile(blocks.transpose(0, 1, 3, 2, 4).reshape(3, rows, columns, -1), _PAPER_PERCENTILE, axis=-1)
    smooth = np.stack([gaussian_filter(channel, 1.0, mode="nearest") for channel in level])
    return np.maximum(smooth, _LEAST_LIGHT).astype(np.float32)


def reduced(picture: Picture, factor: int) -> Picture:
    """The mean of each block of factor x factor pixels."""
    return picture if factor <= 1 else F.avg_pool2d(picture[None], factor)[0]


def sampled(picture: torch.Tensor, x: NDArray[np.floating], y: NDArray[np.floating], fill: float = 1.0) -> torch.Tensor:
    """Values (channels, *x.shape) at places between the pixels, bilinear; `fill` outside the picture."""
    height, width = picture.shape[1:]
    grid = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=-1).astype(np.float32)
    grid = grid.reshape(1, -1, x.shape[-1], 2) if x.ndim != 2 else grid[None]
    values = F.grid_sample(picture[None] - fill, torch.from_numpy(grid), mode="bilinear", align_corners=False)
    return values[0].reshape(picture.shape[0], *x.shape) + fill


def moved(matrix: Matrix, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.float64], ...]:
    """Points moved by a homography (3, 3): x and y, each of the shape of x."""
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(matrix, dtype=np.float64)
    depth = g * x + h * y + i
    return (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
