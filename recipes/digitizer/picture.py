"""Pictures as arrays: division by the illumination, block means, interpolation and homographies.

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
"""float32 (3, height, width), 1.0 bare paper."""
Array = NDArray[np.float64]
"""float64 of any shape."""
Homography = NDArray[np.float64]
"""float64 (3, 3), with 1.0 in its last place where it is normalised."""

_BLOCKS = 40  # along the longer side; a block is larger than a letter and smaller than a shadow
_PAPER_PERCENTILE = 80  # of a block's pixels: grid and ink cover less than a fifth of most blocks
_BRIGHTEST = 1.2
_LEAST_LIGHT = 8.0  # of 255: a block below it is black background


def as_picture(image: Image.Image) -> Picture:
    """The image divided by the light that falls on each place, channel by channel: paper near 1, ink near 0.

    Args:
        image: of any mode; it is read as RGB.
    """
    pixels = np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1).astype(np.float32)
    height, width = pixels.shape[1:]
    block = max(1, min(round(max(height, width) / _BLOCKS), height, width))
    light = torch.from_numpy(_paper_light(pixels, block))
    light_map = F.interpolate(light[None], size=(height, width), mode="bilinear", align_corners=False)
    return (torch.from_numpy(pixels) / light_map[0]).clamp_(0.0, _BRIGHTEST)


def _paper_light(pixels: NDArray[np.float32], block: int) -> NDArray[np.float32]:
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
    return picture if factor <= 1 else F.avg_pool2d(picture[None], factor)[0]


def interpolate(picture: Picture, x: NDArray[np.floating], y: NDArray[np.floating]) -> Picture:
    """Values (3, rows, columns) at places between the pixels, bilinear; 1.0 (bare paper) outside the picture.

    Args:
        x: (rows, columns) pixels.
        y: (rows, columns) pixels.
    """
    height, width = picture.shape[1:]
    places = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=-1).astype(np.float32)
    # Outside, grid_sample gives 0: the paper is moved there and back.
    values = F.grid_sample(picture[None] - 1.0, torch.from_numpy(places)[None], mode="bilinear", align_corners=False)
    return values[0] + 1.0


def apply_homography(
    matrix: NDArray[np.floating], x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[Array, Array]:
    """x and y of points under a homography (3, 3), in the shape of the arguments."""
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(matrix, dtype=np.float64)
    depth = g * x + h * y + i
    return (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
