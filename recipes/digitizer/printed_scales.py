"""Speed and gain as a machine prints them on the sheet: "25 mm/s 10 mm/mV"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.digitizer.names import group_letters, letter_boxes, scale_ink
from recipes.digitizer.network import LINE_ROWS, LineNetwork

SPEEDS, GAINS = (5.0, 6.25, 10.0, 12.5, 25.0, 50.0, 100.0), (1.25, 2.5, 5.0, 10.0, 15.0, 20.0, 40.0)
"""mm/s and mm/mV that machines offer (IEC 60601-2-25 asks for 25 and 50 mm/s, and 5, 10 and 20 mm/mV)."""
_SCALE = re.compile(r"(?<![\d.])((?:\d{1,3}(?:\.\d{1,2})? ?/ ?)?)(\d{1,3}(?:\.\d{1,2})?) ?([cm])m ?[/.] ?(s|mv)")
"""A slash is often read as a point. "10/5 mm/mV" is for limb leads and chest leads."""
_LETTER_GAP = 1.6  # of a line's height; two spaces are narrower
_LEAST_ASPECT, _MOST_ASPECT = 3.0, 90.0  # width to height of a line with a scale
_MOST_LINES = 60  # of a sheet


@dataclass(frozen=True)
class PrintedScales:
    """What the print says; None where it says nothing, or not the same everywhere.

    Attributes:
        mm_per_s: one of `SPEEDS`.
        mm_per_mv: one of `GAINS`.
        half_chest: whether it says half of that for the chest leads.
    """

    mm_per_s: float | None
    mm_per_mv: float | None
    half_chest: bool = False


def line_picture(ink: NDArray[np.floating]) -> NDArray[np.float32]:
    """A line as the network reads it, (LINE_ROWS, columns): as high as the picture; bare paper up to a multiple of 4.

    Args:
        ink: (rows, columns), cut to the line's letters.
    """
    height, width = ink.shape
    wide = int(np.clip(round(LINE_ROWS * width / height), 4, _MOST_ASPECT * LINE_ROWS))
    picture = np.zeros((LINE_ROWS, -(-wide // 4) * 4), dtype=np.float32)
    picture[:, :wide] = scale_ink(ink, LINE_ROWS, wide)
    return picture


def read_scales(ink: NDArray[np.float32], px_per_mm: float, network: LineNetwork) -> PrintedScales:
    """Speed and gain from the print.

    Args:
        ink: of the sheet, without the traces.
        px_per_mm: pixels of the ink per mm.
        network: as `recipes.digitizer.network.load_line_network` gives it.
    """
    return scales_in([network.text(line_picture(ink[y0:y1, x0:x1])) for x0, y0, x1, y1 in _lines(ink, px_per_mm)])


def scales_in(lines: Sequence[str]) -> PrintedScales:
    """Speed and gain in lines of `recipes.digitizer.network.LINE_CHARACTERS`."""
    speeds: set[float] = set()
    gains: set[tuple[float, ...]] = set()
    for line in lines:
        own_gains: list[float] = []  # a second one is that of the chest leads
        for before, number, prefix, unit in _SCALE.findall(line):
            values = [float(n) * (10 if prefix == "c" else 1) for n in (before.rstrip("/ "), number) if n]
            speeds.update(value for value in values if unit == "s" and value in SPEEDS)
            own_gains += [value for value in values if unit == "mv" and value in GAINS]
        is_half = len(own_gains) == 2 and own_gains[1] == own_gains[0] / 2
        gains.update([tuple(own_gains)] if is_half else [(gain,) for gain in own_gains])
    gain = gains.pop() if len(gains) == 1 else ()
    return PrintedScales(speeds.pop() if len(speeds) == 1 else None, gain[0] if gain else None, len(gain) == 2)


def _lines(ink: NDArray[np.float32], px_per_mm: float) -> list[list[int]]:
    """Boxes (x0, y0, x1, y1; pixels) of the lines of print, the lowest first: there most machines print the scales."""
    boxes = group_letters(letter_boxes(ink, px_per_mm), _LETTER_GAP)
    lines = [box for box in boxes if _LEAST_ASPECT < (box[2] - box[0]) / (box[3] - box[1]) < _MOST_ASPECT]
    return sorted(lines, key=lambda box: -box[3])[:_MOST_LINES]
