"""Leads' names on a sheet: words of ink beside the traces, and which lead each of them names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, find_objects, label

from recipes.digitizer.network import NAME_CLASSES, WORD_SHAPE, NameNetwork
from recipes.digitizer.traces import Ink, Row

_INK = 0.3
_PEN_MM = 0.45  # on either side of a trace's middle
_OTHER_HEIGHT = 0.3  # that a name's height may differ from the others'
_WORD_MM = (1.2, 7.5)  # height of a name's letters
_WIDEST_MM = 13.0
_LETTER_GAP = 0.75  # of a word's height: letters closer than that belong together
_SPACED_GAP = 1.6  # of machines that print I I I
_MOST_WORDS = 600
_LEAST_CHANCE = 0.6
_LONGEST_ASPECT = 3.2  # width to height of what a word's picture shows


@dataclass(frozen=True)
class Name:
    """A lead's name on the sheet. box: (x0, y0, x1, y1) mm. chance: 0-1, of being that name."""

    lead: str
    box: tuple[float, float, float, float]
    chance: float

    @property
    def weight(self) -> float:
        """How much it says: strokes and ticks look like I, and now and then like II."""
        return self.chance * {"I": 0.15, "II": 0.5, "III": 0.8}.get(self.lead, 1.0)

    @property
    def x(self) -> float:
        """Left end, mm."""
        return self.box[0]

    @property
    def y(self) -> float:
        """Middle, mm."""
        return (self.box[1] + self.box[3]) / 2


def word_picture(ink: NDArray[np.floating]) -> NDArray[np.float32]:
    """(2, *WORD_SHAPE): a word's ink (rows, columns), cut to its letters, as high as the picture; and its proportions.

    The second channel is 1 in the columns that the word fills, so that a thin I differs from a stretched one.
    """
    rows, columns = WORD_SHAPE
    height, width = ink.shape
    wide = int(np.clip(round(rows * width / height * columns / (rows * _LONGEST_ASPECT)), 2, columns))
    shrunk = Image.fromarray(np.ascontiguousarray(ink, dtype=np.float32)).resize((wide, rows), Image.Resampling.BOX
                             if height > rows else Image.Resampling.BILINEAR)  # fmt: skip
    picture = np.zeros((2, rows, columns), dtype=np.float32)
    values = np.asarray(shrunk)
    picture[0, :, :wide] = np.clip(values / max(float(values.max()), 1e-6), 0, 1)
    picture[1, :, :wide] = 1.0
    return picture


def find_names(ink: Ink, px_per_mm: float, rows: Sequence[Row], network: NameNetwork) -> list[Name]:
    """The leads' names on a sheet whose rows are known."""
    rest = without_traces(ink, px_per_mm, rows)
    boxes = word_boxes(rest, px_per_mm)
    if not boxes:
        return []
    pictures = np.stack([word_picture(rest[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes])
    with torch.inference_mode():
        chances = network(torch.from_numpy(pictures)).softmax(dim=1).numpy()
    names = []
    for (x0, y0, x1, y1), chance in zip(boxes, chances, strict=True):
        best = int(np.argmax(chance[:-1]))
        if chance[best] > _LEAST_CHANCE:
            corners = (x0 / px_per_mm, y0 / px_per_mm, x1 / px_per_mm, y1 / px_per_mm)
            names.append(Name(NAME_CLASSES[best], corners, float(chance[best])))
    return _of_one_height(_without_overlaps(names))


def _of_one_height(names: list[Name]) -> list[Name]:
    """Without what is much higher or lower than the names of several letters: a machine prints all in one size."""
    heights = [name.box[3] - name.box[1] for name in names if name.weight > 0.9]
    if len(heights) < 3:
        return names
    usual = float(np.median(heights))
    return [name for name in names if abs((name.box[3] - name.box[1]) / usual - 1) < _OTHER_HEIGHT]


def without_traces(ink: Ink, px_per_mm: float, rows: Sequence[Row]) -> Ink:
    """The ink without the strokes along the rows' traces."""
    trace = np.zeros(ink.shape, dtype=np.bool_)
    for row in rows:
        ends = row.y.reshape(-1, 2) * px_per_mm - 0.5  # of the pen's way in each column
        columns = np.flatnonzero(np.isfinite(ends).all(axis=1))
        if not columns.size:
            continue
        first, last = ends[columns].min(axis=1), ends[columns].max(axis=1)
        joined = np.concatenate([[False], np.diff(columns) == 1])  # a steep way goes on from the last column
        before_first, before_last = np.roll(first, 1), np.roll(last, 1)
        top = np.where(joined, np.minimum(first, before_last), first)
        bottom = np.where(joined, np.maximum(last, before_first), last)
        for column, y0, y1 in zip(columns.tolist(), top.tolist(), bottom.tolist(), strict=True):
            trace[max(0, round(y0)) : max(0, round(y1)) + 1, column] = True
    pen = max(1, round(_PEN_MM * px_per_mm))
    trace = binary_dilation(trace, np.ones((2 * pen + 1, 2 * pen + 1), dtype=np.bool_))
    return np.where(trace, np.float32(0.0), ink)


def word_boxes(ink: Ink, px_per_mm: float) -> list[tuple[int, int, int, int]]:
    """Boxes (x0, y0, x1, y1; pixels) of words: letters near to each other and of one height."""
    labels, _ = label(ink > _INK, structure=np.ones((3, 3)))
    letters = []
    for rows, columns in find_objects(labels):
        height, width = (rows.stop - rows.start) / px_per_mm, (columns.stop - columns.start) / px_per_mm
        if 0.9 <= height <= _WORD_MM[1] + 1 and width <= _WIDEST_MM and width * height > 0.25:
            letters.append([columns.start, rows.start, columns.stop, rows.stop])
    letters.sort()
    words = {tuple(box) for box in letters[: 4 * _MOST_WORDS]}
    for gap in (_LETTER_GAP, _SPACED_GAP):
        words |= {tuple(box) for box in _joined(letters[: 4 * _MOST_WORDS], gap)}
    sized = [
        (x0, y0, x1, y1)
        for x0, y0, x1, y1 in words
        if _WORD_MM[0] <= (y1 - y0) / px_per_mm <= _WORD_MM[1] and (x1 - x0) / px_per_mm <= _WIDEST_MM
    ]
    return sorted(sized)[:_MOST_WORDS]


def _joined(letters: list[list[int]], gap: float) -> list[list[int]]:
    """Letters (sorted by their left ends) joined to words."""
    words: list[list[int]] = []
    for x0, y0, x1, y1 in letters:
        for word in reversed(words[-40:]):
            height = max(word[3] - word[1], y1 - y0)
            overlap = min(word[3], y1) - max(word[1], y0)
            if overlap > 0.5 * min(word[3] - word[1], y1 - y0) and x0 - word[2] < gap * height:
                word[:] = [min(word[0], x0), min(word[1], y0), max(word[2], x1), max(word[3], y1)]
                break
        else:
            words.append([x0, y0, x1, y1])
    return words


def _without_overlaps(names: list[Name]) -> list[Name]:
    """Of names that lie over each other the likeliest, a longer one before its parts."""
    best: list[Name] = []
    for name in sorted(names, key=lambda n: -n.chance * (n.box[2] - n.box[0]) ** 0.5):
        if all(_apart(name.box, other.box) for other in best):
            best.append(name)
    return sorted(best, key=lambda n: (n.y, n.x))


def _apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
