"""The place of a page in its picture: a homography (3, 3) from page pixels to image pixels.

Coordinates are those of `render.pages.geometry`: the centre of the top left pixel is (0, 0), so that a picture extends
from -0.5 to its width - 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from render.pages.geometry import PageGeometry, transform_points

Matrix = NDArray[np.float64]

GEOMETRIC = ("rotation", "perspective", "crop", "padding")
"""The effects that move the page; `render.pages.augment.pipeline` describes them."""

_MAX_ROTATION, _MAX_TILT = 10.0, 28.0  # degrees
_CAMERA = (1.3, 1.9)  # distance of the camera, in units of the page's longer side
_MAX_PADDING = 0.14  # of the page's shorter side, on each of its four sides
_CUT = 0.99  # share of the traces' extent that a full crop leaves
_EDGE_MM = 2.0  # bare paper that a rotated page may lose at its edges


def homography(geometry: PageGeometry, amounts: Mapping[str, float], rngs: Mapping[str, Generator]) -> Matrix:
    """(3, 3): from page pixels to image pixels, the image being as large as the page; the last element is 1.

    Args:
        amounts: strengths 0-1 of any of `GEOMETRIC`.
        rngs: a generator for each of them. Without "crop", the boxes of all traces stay in the picture.
    """
    size = np.array([geometry.width, geometry.height], dtype=np.float64)
    camera = _tilt(amounts, rngs, float(size.max())) @ _rotation(amounts, rngs)
    to_middle = scale_and_shift(1.0, -(size - 1.0) / 2)
    matrix = camera @ to_middle
    traces = np.array([lead.box for lead in geometry.leads])
    inner = np.array([traces[:, 0].min(), traces[:, 1].min(), traces[:, 2].max(), traces[:, 3].max()])
    edge = _EDGE_MM * geometry.px_per_mm
    whole = np.array([-0.5, -0.5, size[0] - 0.5, size[1] - 0.5])
    content = np.concatenate([np.minimum(inner[:2], whole[:2] + edge), np.maximum(inner[2:], whole[2:] - edge)])
    matrix = _fit(matrix, content, whole, 1.0, np.full(2, 0.5))
    if amounts.get("padding"):
        margins = rngs["padding"].uniform(0.35, 1.0, 4) * amounts["padding"] * _MAX_PADDING * size.min()
        frame = whole + margins * [1, 1, -1, -1]
        matrix = _fit(matrix, whole, frame, 1.0, rngs["padding"].uniform(0.25, 0.75, 2))
    if amounts.get("crop"):
        matrix = _crop(matrix, inner, whole, amounts["crop"], rngs["crop"])
    return np.asarray(matrix / matrix[2, 2])


def _rotation(amounts: Mapping[str, float], rngs: Mapping[str, Generator]) -> Matrix:
    if not amounts.get("rotation"):
        return np.eye(3)
    angle = math.radians(_MAX_ROTATION) * amounts["rotation"] * rngs["rotation"].choice([-1.0, 1.0])
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _tilt(amounts: Mapping[str, float], rngs: Mapping[str, Generator], side: float) -> Matrix:
    """The view of a pinhole camera of a page that is rotated about an axis in its own plane."""
    if not amounts.get("perspective"):
        return np.eye(3)
    rng = rngs["perspective"]
    angle = math.radians(_MAX_TILT) * amounts["perspective"]
    axis = rng.uniform(0.0, 2.0 * math.pi)
    distance = rng.uniform(*_CAMERA) * side
    x, y, c, s = math.cos(axis), math.sin(axis), math.cos(angle), math.sin(angle)
    return np.array(
        [
            [c + x * x * (1 - c), x * y * (1 - c), 0.0],
            [x * y * (1 - c), c + y * y * (1 - c), 0.0],
            [-y * s / distance, x * s / distance, 1.0],
        ]
    )


def scale_and_shift(scale: float, shift: NDArray[np.float64]) -> Matrix:
    """The matrix (3, 3) that enlarges `scale` times, then shifts by (x, y)."""
    return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]], [0.0, 0.0, 1.0]])


def inverse_of(matrix: Matrix) -> Matrix:
    """The inverse of a homography (3, 3)."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _extent(matrix: Matrix, box: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = transform_points(matrix, box[[[0, 1], [2, 1], [2, 3], [0, 3]]])
    return corners.min(axis=0), corners.max(axis=0)


def _fit(
    matrix: Matrix, box: NDArray[np.float64], frame: NDArray[np.float64], max_scale: float, share: NDArray[np.float64]
) -> Matrix:
    """Scale by at most `max_scale` until the box lies in the frame; `share` 0-1 of the spare room goes before it."""
    low, high = _extent(matrix, box)
    room = frame[2:] - frame[:2]
    scale = min(max_scale, *(room / (high - low)))
    return scale_and_shift(scale, frame[:2] + (room - scale * (high - low)) * share - scale * low) @ matrix


def _crop(
    matrix: Matrix, inner: NDArray[np.float64], whole: NDArray[np.float64], strength: float, rng: Generator
) -> Matrix:
    """Enlarge until, at full strength, the traces fill the picture and extend slightly beyond it."""
    low, high = _extent(matrix, inner)
    room = whole[2:] - whole[:2]
    scale = 1.0 + strength * max(0.0, float((room / (high - low)).min()) / _CUT - 1.0)
    # The possible shifts: traces inside the picture wherever they fit, and no more paper visible than before.
    slack = np.stack([whole[:2] - scale * low, whole[2:] - scale * high])
    paper = np.stack([room * (1.0 - scale) + (scale - 1.0) * -whole[:2], (scale - 1.0) * -whole[:2]])
    lowest, highest = np.maximum(slack.min(axis=0), paper[0]), np.minimum(slack.max(axis=0), paper[1])
    shift = (lowest + highest) / 2 + (highest - lowest) * rng.uniform(-0.4, 0.4, 2)
    return scale_and_shift(scale, shift) @ matrix
