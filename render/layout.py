"""Where each lead stands on the paper, in millimetres and seconds; pixels appear only in `render.page`.

Conventions of ECG paper (Kligfield et al. 2007, AHA/ACC/HRS recommendations on the electrocardiogram):
25 mm/s and 10 mm/mV, so that a 1 mm box is 0.04 s and 0.1 mV. In the 3x4 format each lead has 2.5 s, columns
follow each other in time, and a rhythm strip below runs through all 10 s.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from render.files import InputError


@dataclass(frozen=True)
class Trace:
    """One stretch of one lead.

    x0: left end in mm from the page's left edge; the sample at `start` lies here.
    baseline: height of 0 mV in mm from the page's top edge.
    start, end: the time shown, seconds from the record's first sample, end excluded.
    top, bottom: the row that belongs to it, mm. The trace itself may leave its row, as on real paper.
    """

    lead: str
    x0: float
    baseline: float
    start: float
    end: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Layout:
    """A page of ECG paper.

    width, height: mm. mm_per_s: paper speed. mm_per_mv: gain.
    pulse_x: where the calibration pulse of every row rises, mm.
    grid_top: the paper's grid begins here, mm; the header stands above it.
    separators: (x mm, baseline mm) where one lead ends and the next begins.
    """

    name: str
    width: float
    height: float
    mm_per_s: float
    mm_per_mv: float
    pulse_x: float
    grid_top: float
    traces: tuple[Trace, ...]
    separators: tuple[tuple[float, float], ...]

    @property
    def baselines(self) -> tuple[float, ...]:
        """The rows' heights of 0 mV, mm, from top to bottom."""
        return tuple(sorted({trace.baseline for trace in self.traces}))

    def trace_end(self, trace: Trace) -> float:
        """The right end of a trace, mm."""
        return trace.x0 + (trace.end - trace.start) * self.mm_per_s


# 280 x 140 mm is 2:1: two square tiles of a vision model without waste. 250 mm of trace in the middle put the
# boundary between the second and third column at 140 mm, on the seam of the two tiles: no column is cut.
# Baselines lie on 5 mm lines, so that pulse, waves and grid can be read together.
_WIDTH, _HEIGHT = 280.0, 140.0
_LEFT, _SECONDS, _SPEED, _GAIN = 15.0, 10.0, 25.0, 10.0
_GRID_TOP, _FIRST_ROW, _ROW = 10.0, 15.0, 30.0
_PULSE_X = 5.0

_STANDARD_3X4 = (
    ("I", "aVR", "V1", "V4"),
    ("II", "aVL", "V2", "V5"),
    ("III", "aVF", "V3", "V6"),
)


def _grid_of_leads(name: str, rows: tuple[tuple[str, ...], ...]) -> Layout:
    """Rows of leads that share the 10 s equally, one column after the other; a row of one lead is a strip."""
    traces: list[Trace] = []
    separators: list[tuple[float, float]] = []
    for i, row in enumerate(rows):
        top = _FIRST_ROW + i * _ROW
        baseline = top + _ROW / 2
        share = _SECONDS / len(row)
        for k, lead in enumerate(row):
            x0 = _LEFT + k * share * _SPEED
            traces.append(Trace(lead, x0, baseline, k * share, (k + 1) * share, top, top + _ROW))
            if k > 0:
                separators.append((x0, baseline))
    return Layout(name, _WIDTH, _HEIGHT, _SPEED, _GAIN, _PULSE_X, _GRID_TOP, tuple(traces), tuple(separators))


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {layout.name: layout for layout in (_grid_of_leads("3x4+1R", (*_STANDARD_3X4, ("II",))),)}
)
"""name -> Layout."""


def layout_named(name: str) -> Layout:
    """The layout of that name. Raises `InputError` naming the nearest known one."""
    layout = LAYOUTS.get(name)
    if layout is not None:
        return layout
    # Without a cutoff: a user who typed "4x3" is better served by the nearest name than by none.
    nearest = difflib.get_close_matches(str(name), LAYOUTS, n=1, cutoff=0.0)[0]
    known = ", ".join(LAYOUTS)
    raise InputError(f"layout {name!r} is not known; the nearest is {nearest!r} (known: {known})")
