"""A page that a person has corrected: cropped, straightened by the corners of its sheet, turned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.serve.schema import Correction
from render.errors import InputError

_LEAST_PX = 20.0  # of each side
_TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}


def correct(image: Image.Image, correction: Correction) -> Image.Image:
    """The picture cropped, the sheet between its corners made a rectangle, and that turned clockwise.

    Raises:
        InputError: For a crop or corners that lie outside of the picture, are too small or cross each other.
    """
    width, height = correction.size or image.size
    scale = np.array([image.width / width, image.height / height])
    offset = np.zeros(2)
    if correction.crop:
        box = np.array(correction.crop).reshape(2, 2) * scale
        (left, top), (right, bottom) = np.clip(np.round(box), 0, image.size).astype(int).tolist()
        if right - left < _LEAST_PX or bottom - top < _LEAST_PX:
            raise InputError(f"correction.crop: fewer than {_LEAST_PX:.0f} pixels of the picture are left; enlarge it")
        image, offset = image.crop((left, top, right, bottom)), np.array([left, top], dtype=float)
    if correction.corners:
        image = _straighten(image, np.array(correction.corners) * scale - offset)
    return image.transpose(_TURNS[correction.turn]) if correction.turn else image


def _straighten(image: Image.Image, corners: NDArray[np.float64]) -> Image.Image:
    """The quadrilateral between `corners` (4, 2), from its top left clockwise, as a rectangle of its mean sides."""
    is_inside = ((corners > -0.5) & (corners < np.array(image.size) + 0.5)).all()
    edges = np.roll(corners, -1, axis=0) - corners if is_inside else np.zeros((4, 2))
    bends = edges[:, 0] * np.roll(edges[:, 1], -1) - edges[:, 1] * np.roll(edges[:, 0], -1)
    if not (bends > 0).all():
        raise InputError("correction.corners: four points of the picture, clockwise from the sheet's top left, are due")
    lengths = np.hypot(*edges.T)
    width, height = (lengths[0] + lengths[2]) / 2, (lengths[1] + lengths[3]) / 2
    if lengths.min() < _LEAST_PX:
        raise InputError(f"correction.corners: a side is shorter than {_LEAST_PX:.0f} pixels; move the corners apart")
    size = (round(width), round(height))
    return image.transform(
        size, Image.Transform.PERSPECTIVE, _coefficients(size, corners), Image.Resampling.BICUBIC, fillcolor="white"
    )


def _coefficients(size: tuple[int, int], corners: NDArray[np.float64]) -> list[float]:
    """Pillow's eight: from a pixel (x, y) of the rectangle to ((ax + by + c), (dx + ey + f)) / (gx + hy + 1)."""
    width, height = size
    rows, values = [], []
    for (x, y), (u, v) in zip(((0, 0), (width, 0), (width, height), (0, height)), corners.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients: list[float] = np.linalg.solve(np.array(rows, dtype=float), np.array(values)).tolist()
    return coefficients
