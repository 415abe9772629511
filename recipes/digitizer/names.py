"""Names of leads on a sheet: the words beside the traces, and the lead that each of them names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects, label, maximum_filter
from scipy.special import softmax

from recipes.digitizer.network import NAME_CLASSES, WORD_SHAPE, NameNetwork
from recipes.digitizer.traces import InkMap, Row

_INK = 0.3  # of full ink: enough for a letter
_PEN_MM = 0.45  # on either side of a trace's middle
_OTHER_HEIGHT = 0.3  # relative difference of a name's height from the median; a machine prints all in one size
_WORD_MM = (1.2, 7.5)  # height of a name's letters
_WIDEST_MM = 13.0
_LETTER_MM, _LETTER_MM2 = (0.9, 8.5), 0.25  # height, and least area of the box of a letter
_LETTER_GAP = 0.75  # of a word's height: letters closer than that belong together
_WIDE_LETTER_GAP = 1.6  # of machines that print I I I
_BAR, _SHORT_BAR = 4.0, 0.7  # height to width of a stroke that may divide columns; to the height of the name beside it
_MOST_WORDS = 600  # of a sheet; a page full of text has no more names than another
_LEAST_PROBABILITY = 0.6
_LONGEST_ASPECT = 3.2  # width to height of a word that fills its picture
_WEIGHTS = {"I": 0.15, "II": 0.5, "III": 0.8}  # strokes and ticks look like I, sometimes like II; others weigh 1


@dataclass(frozen=True)
class Name:
    """A lead's name on the sheet.

    Attributes:
        lead: I to V6.
        box: (x0, y0, x1, y1) mm of the sheet.
        probability: 0-1, of being that name.
    """

    lead: str
    box: tuple[float, float, float, float]
    probability: float

    @property
    def weight(self) -> float:
        """Evidence for a layout, 0-1: less for names that other strokes are taken for."""
        return self.probability * _WEIGHTS.get(self.lead, 1.0)

    @property
    def height(self) -> float:
        """Of the letters, mm."""
        return self.box[3] - self.box[1]

    @property
    def x(self) -> float:
        """Left end, mm."""
        return self.box[0]

    @property
    def y(self) -> float:
        """Middle, mm."""
        return (self.box[1] + self.box[3]) / 2


def word_picture(ink: NDArray[np.floating]) -> NDArray[np.float32]:
    """A word as the network reads it, (2, *WORD_SHAPE): its ink as high as the picture, and the columns that it fills.

    The second channel is 1 in these columns: the proportions distinguish an I from other vertical strokes.

    Args:
        ink: (rows, columns), cut to the word's letters.
    """
    rows, columns = WORD_SHAPE
    height, width = ink.shape
    wide = int(np.clip(round(rows * width / height * columns / (rows * _LONGEST_ASPECT)), 2, columns))
    picture = np.zeros((2, rows, columns), dtype=np.float32)
    picture[0, :, :wide] = scale_ink(ink, rows, wide)
    picture[1, :, :wide] = 1.0
    return picture


def scale_ink(ink: NDArray[np.floating], rows: int, columns: int) -> NDArray[np.float32]:
    """Ink of letters as a picture (rows, columns), 1 where it is darkest."""
    resampling = Image.Resampling.BOX if ink.shape[0] > rows else Image.Resampling.BILINEAR
    image = Image.fromarray(np.ascontiguousarray(ink, dtype=np.float32))
    values = np.asarray(image.resize((columns, rows), resampling))
    return np.clip(values / max(float(values.max()), 1e-6), 0, 1)


def find_names(ink: InkMap, px_per_mm: float, network: NameNetwork) -> list[Name]:
    """The names of leads on a sheet, from top to bottom.

    Args:
        ink: of the sheet, `without_traces`.
        px_per_mm: pixels of the ink per mm.
        network: as `recipes.digitizer.network.load_name_network` gives it.
    """
    boxes = _word_boxes(ink, px_per_mm)
    if not boxes:
        return []
    pictures = np.stack([word_picture(ink[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes])
    probabilities = softmax(network.logits(pictures), axis=1)
    names = []
    for (x0, y0, x1, y1), probability in zip(boxes, probabilities, strict=True):
        best = int(np.argmax(probability[:-1]))
        if probability[best] > _LEAST_PROBABILITY:
            box_mm = (x0 / px_per_mm, y0 / px_per_mm, x1 / px_per_mm, y1 / px_per_mm)
            names.append(Name(NAME_CLASSES[best], box_mm, float(probability[best])))
    return _of_one_height(_without_overlaps(names))


def _of_one_height(names: list[Name]) -> list[Name]:
    """The names whose letters have about the usual height, which follows from the clearest names."""
    heights = [name.height for name in names if name.weight > 0.9]
    if len(heights) < 3:
        return names
    usual = float(np.median(heights))
    return [name for name in names if abs(name.height / usual - 1) < _OTHER_HEIGHT]


def without_traces(ink: InkMap, px_per_mm: float, rows: Sequence[Row]) -> InkMap:
    """The ink of a sheet, with so many pixels per mm, without the strokes along the rows' traces."""
    trace = np.zeros(ink.shape, dtype=np.bool_)
    for row in rows:
        ends = row.y.reshape(-1, 2) * px_per_mm - 0.5  # heights in the two halves of each column
        columns = np.flatnonzero(np.isfinite(ends).all(axis=1))
        if not columns.size:
            continue
        first, last = ends[columns].min(axis=1), ends[columns].max(axis=1)
        continuous = np.concatenate([[False], np.diff(columns) == 1])  # a steep stroke begins at the last column's end
        before_first, before_last = np.roll(first, 1), np.roll(last, 1)
        top = np.where(continuous, np.minimum(first, before_last), first)
        bottom = np.where(continuous, np.maximum(last, before_first), last)
        for column, y0, y1 in zip(columns.tolist(), top.tolist(), bottom.tolist(), strict=True):
            trace[max(0, round(y0)) : max(0, round(y1)) + 1, column] = True
    pen = max(1, round(_PEN_MM * px_per_mm))
    near = maximum_filter(trace.astype(np.uint8), 2 * pen + 1)
    return np.where(near > 0, np.float32(0.0), ink)


def _word_boxes(ink: InkMap, px_per_mm: float) -> list[tuple[int, int, int, int]]:
    """Boxes (x0, y0, x1, y1; pixels) of words: single letters, and letters near each other on one line."""
    letters = letter_boxes(ink, px_per_mm)
    words = {tuple(box) for box in letters}
    for gap in (_LETTER_GAP, _WIDE_LETTER_GAP):
        words |= {tuple(box) for box in group_letters(letters, gap)}
    words |= set(_beside_bars(letters))
    candidates = [
        (x0, y0, x1, y1)
        for x0, y0, x1, y1 in words
        if _WORD_MM[0] <= (y1 - y0) / px_per_mm <= _WORD_MM[1] and (x1 - x0) / px_per_mm <= _WIDEST_MM
    ]
    return sorted(candidates)[:_MOST_WORDS]


def _beside_bars(letters: list[list[int]]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of words without the bar on their left, which divides columns on some pages."""
    bars = [box for box in letters if box[3] - box[1] > _BAR * (box[2] - box[0])]
    for x0, y0, x1, y1 in group_letters([box for box in letters if box not in bars], _LETTER_GAP):
        height = y1 - y0
        if any(
            0 <= x0 - bar[2] < _LETTER_GAP * (bar[3] - bar[1]) and bar[1] < y0 + height / 2 < bar[3]
            for bar in bars
            if bar[3] - bar[1] > _SHORT_BAR * height
        ):
            yield x0, y0, x1, y1


def letter_boxes(ink: InkMap, px_per_mm: float) -> list[list[int]]:
    """Boxes [x0, y0, x1, y1] (pixels) of what may be letters, by their left ends."""
    labels, _ = label(ink > _INK, structure=np.ones((3, 3)))
    letters = []
    for rows, columns in find_objects(labels):
        height, width = (rows.stop - rows.start) / px_per_mm, (columns.stop - columns.start) / px_per_mm
        if _LETTER_MM[0] <= height <= _LETTER_MM[1] and width <= _WIDEST_MM and width * height > _LETTER_MM2:
            letters.append([columns.start, rows.start, columns.stop, rows.stop])
    return sorted(letters)[: 4 * _MOST_WORDS]


def group_letters(letters: list[list[int]], gap: float) -> list[list[int]]:
    """Boxes of words from boxes of letters, which are sorted by their left ends.

    Args:
        letters: (x0, y0, x1, y1) pixels.
        gap: largest gap between two letters of a word, of its height.
    """
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
    """The names, from top to bottom; of those that overlap the most probable one, a word rather than its parts."""
    best: list[Name] = []
    for name in sorted(names, key=lambda n: -n.probability * (n.box[2] - n.box[0]) ** 0.5):
        if all(_are_disjoint(name.box, other.box) for other in best):
            best.append(name)
    return sorted(best, key=lambda n: (n.y, n.x))


def _are_disjoint(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
