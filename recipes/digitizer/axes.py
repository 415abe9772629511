"""Axes of a plotting library, below each other, each with scales of its own: redrawn on one sheet with square boxes.

A library that draws an ECG's grid into axes of any size gives boxes that are no squares, and as many gains as leads.
Heavy lines stand for 0.2 s and 0.5 mV, whatever is between them, so that all can be put on paper of 25 mm/s and
10 mm/mV.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFont

from recipes.digitizer.picture import Array
from recipes.digitizer.traces import runs
from render.record import LEADS

_DARK = 150  # of 255, and below: the line of a frame
_LEAST_WIDTH, _LEAST_HEIGHT_PX, _FRAME_PX = 0.25, 24, 3  # of a frame: share of the picture, and its line
_STROKE_PX = 12  # of an axis
_LEAST_SIDE = 0.95  # of a frame's upright line that is dark
_INK, _LEAST_INK = 99.0, 0.3  # percentile of the darkness that is full ink; less than that of it is where lines cross
_MOST_LINES = 300  # dark rows of pixels; a photo of a dark table has more
_FEWEST_AXES, _FEWEST_BOXES = 3, 8  # and boxes along their time
_FEWEST_HEAVY_BOXES = 25  # where there are no thin lines: no other plot has so many
_BRIGHT = 88  # percentile of a line's pixels: the trace, and lines that cross it, leave more of them bare
_HEAVIEST, _LINE, _HEAVY_LINE = 90, 0.15, 0.6  # percentile of the lines' depths; of that
_THIN_PER_HEAVY = (4, 5)  # steps of 0.125 mV, or 0.1
_LEAST_REGULAR, _TOLERANCE = 0.9, 0.1  # share of the lines that lie where they should; share of their pitch
_SQUARE = 0.03  # of the pitch: boxes that are squares, on a page that needs nothing
_PX_PER_MM, _BOX_MM, _MARGIN_MM = 8.0, 5.0, 8.0
_NAME_MM = 4.0  # height of a lead's name, in the margin above its axes
_LONGEST_MM = 600.0  # side of the sheet


@dataclass(frozen=True)
class Axes:
    """Axes in a picture, and on the sheet: left, top, right and bottom inside the frame, pixels."""

    box: tuple[int, int, int, int]
    place: tuple[int, int, int, int]

    @property
    def pixels_across(self) -> float:
        """Of the picture, for one of the sheet."""
        return (self.box[2] - self.box[0]) / (self.place[2] - self.place[0])


def redraw_axes(picture: Image.Image) -> tuple[Image.Image, tuple[Axes, ...]] | None:
    """The sheet with all axes of a picture below each other; None where it has none, or their boxes are squares."""
    grey = np.asarray(picture.convert("L"), dtype=np.float32)
    brightest = reduce(ImageChops.lighter, picture.split())  # numpy takes 0.6 s for the channels of 12 megapixels
    frames = _frames(np.asarray(brightest) < _DARK)  # a line of another colour is that of 0 mV
    if len(frames) < _FEWEST_AXES:
        return None
    inside = [grey[top:bottom, left:right] for left, top, right, bottom in frames]
    down = [_lines(part, 0) for part in inside]
    counts = Counter(round(heavy / thin) for heavy, thin in down if heavy and thin)
    count = max(_THIN_PER_HEAVY, key=lambda count: counts[count])  # thin lines to a heavy one
    across = [x for x, _ in (_lines(part, 1) for part in inside) if x]
    if not across:
        return None
    x = float(np.median(across))  # the leads of a plot share their time
    count, fewest = (count, _FEWEST_BOXES) if counts[count] else (1, _FEWEST_HEAVY_BOXES)
    if min(part.shape[1] for part in inside) < fewest * x:
        return None
    heights = [thin and count * thin for _, thin in down]  # of axes with a small range there is one heavy line only
    scales = [(x, y) for y in heights if y]
    if len(scales) < len(frames):
        return None
    if np.median([abs(x / y - 1) for x, y in scales]) < _SQUARE:
        return None
    edge, box_px = round(_MARGIN_MM * _PX_PER_MM), _BOX_MM * _PX_PER_MM
    sizes = [
        (round((right - left) * box_px / x), round((bottom - top) * box_px / y))
        for (left, top, right, bottom), (x, y) in zip(frames, scales, strict=True)
    ]
    room = [height + edge for _, height in sizes]
    if edge + len(room) * max(room) <= _LONGEST_MM * _PX_PER_MM:  # rows at equal distances are read best
        room = [max(room)] * len(room)
    tops = np.cumsum([edge, *room]).tolist()
    axes = [
        Axes(box, (edge, top, edge + width, top + height))
        for box, top, (width, height) in zip(frames, tops, sizes, strict=False)
    ]
    shape = tops[-1], 2 * edge + max(width for width, _ in sizes)
    if max(shape) > _LONGEST_MM * _PX_PER_MM:
        return None
    sheet = _paper(shape)
    starts = []
    for each, part in zip(axes, inside, strict=True):
        left, top, right, bottom = each.place
        ink = np.asarray(Image.fromarray(_ink(part)).resize((right - left, bottom - top), Image.Resampling.BICUBIC))
        ink = ink / np.maximum(ink.max(axis=0), _LEAST_INK)  # axes of a large range become low, and their line thin
        sheet[top:bottom, left:right] *= 1 - np.clip(ink, 0.0, 1.0)[..., None]
        starts.append(left + int(np.argmax(ink.max(axis=0) > _HEAVY_LINE)))
    image = Image.fromarray(np.rint(sheet).astype(np.uint8))
    if len(axes) == len(LEADS):
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(_NAME_MM * _PX_PER_MM)
        for name, each, start in zip(LEADS, axes, starts, strict=True):
            draw.text((start + edge / 4, each.place[1] - edge), name, fill="black", font=font)
    return image, tuple(axes)


def _paper(shape: tuple[int, int]) -> NDArray[np.float32]:
    """White paper with a pink grid, (rows, columns, 3) 0-255."""
    sheet = np.full((*shape, 3), 255.0, np.float32)
    for every, color in ((1.0, (252, 225, 225)), (_BOX_MM, (244, 176, 176))):
        px = round(every * _PX_PER_MM)
        sheet[::px] = sheet[:, ::px] = color
    return sheet


def _ink(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The trace in axes, (rows, columns) 0-1: what is darker than the lines of its row and its column, where it is as
    dark as anywhere, however dark the line is that it crosses."""
    ground = np.minimum(*np.ix_(_brightness(grey, 0), _brightness(grey, 1)))
    depth = ground - grey
    full = max(float(np.percentile(depth, _INK)), 1.0)
    below = ground - (ground.max() - full)  # from a line down to the trace
    ink: NDArray[np.float32] = np.clip(depth / np.maximum(below, _LEAST_INK * full), 0.0, 1.0)
    return np.where(ink > _LEAST_INK, ink, np.float32(0)).astype(np.float32)


def _brightness(grey: NDArray[np.float32], axis: int) -> Array:
    """Of the lines across an axis, without trace and without the lines that cross them."""
    return np.asarray(np.percentile(grey, _BRIGHT, axis=1 - axis), dtype=np.float32)


def places_in_picture(places: NDArray[np.float32], axes: Sequence[Axes]) -> NDArray[np.float32]:
    """Places (n, 2) on the sheet, each in the axes next to it, as places in the picture; pixels."""
    sheet = np.array([each.place for each in axes], dtype=np.float32)
    picture = np.array([each.box for each in axes], dtype=np.float32)
    beyond = np.maximum(sheet[:, 1] - places[:, 1:], places[:, 1:] - sheet[:, 3])
    nearest = np.argmin(beyond, axis=1)
    sheet, picture = sheet[nearest], picture[nearest]
    scale = (picture[:, 2:] - picture[:, :2]) / (sheet[:, 2:] - sheet[:, :2])
    return np.asarray(picture[:, :2] + (places - sheet[:, :2]) * scale, dtype=np.float32)


def _frames(dark: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom inside each frame, from the top of the picture down."""
    long, lines = _LEAST_WIDTH * dark.shape[1], []
    rows = np.flatnonzero(dark.sum(axis=1) > long)
    for y in rows if rows.size < _MOST_LINES else ():
        sides = [(start, end) for start, end in runs(dark[y]) if end - start > long]
        if len(sides) == 1:  # axes beside each other are columns of a page
            lines.append((int(y), *sides[0]))
    frames = []
    for (top, *above), (bottom, *below) in pairwise(lines):
        if bottom - top < _LEAST_HEIGHT_PX or np.abs(np.subtract(above, below)).max() > _STROKE_PX:
            continue
        left, right = max(above[0], below[0]), min(above[1], below[1])  # a stroke may go on at a corner
        upright = (dark[top:bottom, max(0, x - 1) : x + 2].any(axis=1).mean() for x in (left, right - 1))
        if min(upright) > _LEAST_SIDE:
            frames.append((left + _FRAME_PX, top + _FRAME_PX, right - _FRAME_PX, bottom - _FRAME_PX + 1))
    return frames


def _lines(grey: NDArray[np.float32], axis: int) -> tuple[float | None, float | None]:
    """Pixels from heavy line to heavy line, and from any to the next, across an axis of (rows, columns).

    None where they are not regular.
    """
    brightness = _brightness(grey, axis)
    depth = brightness.max() - brightness
    heaviest = float(np.percentile(depth[depth > 0], _HEAVIEST)) if depth.any() else 1.0
    return _pitch(depth > _HEAVY_LINE * heaviest), _pitch(depth > _LINE * heaviest)


def _pitch(is_line: NDArray[np.bool_]) -> float | None:
    """Pixels from line to line; None for less than two lines, or lines that are not regular."""
    middles = np.array([(start + end) / 2 for start, end in runs(is_line)])
    if middles.size < 2:
        return None
    apart = np.diff(middles)
    number = np.concatenate([[0.0], np.cumsum(np.rint(apart / np.median(apart)))])
    usual = np.ones(middles.size, np.bool_)
    slope = 0.0
    for _ in range(2):
        x, y = (values - values[usual].mean() for values in (number, middles))
        slope = float((x * y)[usual].sum() / max(np.square(x[usual]).sum(), 1e-9))
        usual = np.abs(x * slope - y) < max(1.0, _TOLERANCE * slope)
        if not usual.any():
            return None
    return slope if usual.mean() > _LEAST_REGULAR and slope > 1 else None
