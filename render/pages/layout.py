"""Where each lead lies on the paper, in millimetres and seconds; pixels appear only in `render.pages.page`.

The options of a layout, and the words for them, are in `render.pages.options`.

Conventions of ECG paper (Kligfield et al. 2007, AHA/ACC/HRS recommendations on the electrocardiogram):
25 mm/s and 10 mm/mV, so that a 1 mm box is 0.04 s and 0.1 mV. In the 3x4 format each lead has 2.5 s, columns
follow each other in time, and a rhythm strip below runs through all 10 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from render.errors import InputError
from render.pages.options import CHEST_LEADS, PageOptions, options_named, sample_options


@dataclass(frozen=True)
class Trace:
    """One stretch of one lead.

    Attributes:
        x0: left end in mm from the page's left edge; the sample at `start` lies here.
        baseline: height of 0 mV in mm from the page's top edge.
        start: the time shown, seconds from the record's first sample, end excluded.
        end: the time shown, seconds from the record's first sample, end excluded.
        top: its row, mm. The trace itself may leave the row, as on real paper.
        bottom: its row, mm. The trace itself may leave the row, as on real paper.
        mm_per_mv: gain.
        polarity: 1, or -1 for a trace that is drawn upside down, with a minus before its name.
    """

    lead: str
    x0: float
    baseline: float
    start: float
    end: float
    top: float
    bottom: float
    mm_per_mv: float
    polarity: int

    @property
    def label(self) -> str:
        """The name printed at the trace."""
        return f"-{self.lead}" if self.polarity < 0 else self.lead


@dataclass(frozen=True)
class Pulse:
    """The calibration pulse of a row: 1 mV high, 0.2 s long.

    Attributes:
        x: where it rises, mm.
        baseline: mm.
        gains: mm per mV, each for an equal part of the 0.2 s: a row of two gains has two steps, the sign of half
            standard (Garcia, 12-Lead ECG: The Art of Interpretation).
    """

    x: float
    baseline: float
    gains: tuple[float, ...]


@dataclass(frozen=True)
class Layout:
    """A page of ECG paper.

    Attributes:
        name: in words for `layout_named`.
        width: mm.
        height: mm.
        mm_per_s: paper speed.
        grid_top: the paper's grid begins here, mm; the header is above it.
        separators: (x mm, baseline mm) where one lead ends and the next begins.
        lead_names: whether every trace has its lead's name beside it.
    """

    name: str
    width: float
    height: float
    mm_per_s: float
    grid_top: float
    traces: tuple[Trace, ...]
    pulses: tuple[Pulse, ...]
    separators: tuple[tuple[float, float], ...]
    lead_names: bool

    @property
    def baselines(self) -> tuple[float, ...]:
        """The rows' heights of 0 mV, mm, from top to bottom."""
        return tuple(sorted({trace.baseline for trace in self.traces}))

    @property
    def gains(self) -> tuple[float, ...]:
        """The gains on the page, mm per mV, each once: one, or that of limb leads and that of chest leads."""
        return tuple(dict.fromkeys(trace.mm_per_mv for trace in self.traces))

    @property
    def seconds(self) -> float:
        """How many seconds of a record the page shows, from its first sample on."""
        return max(trace.end for trace in self.traces)

    def trace_end(self, trace: Trace) -> float:
        """The right end of a trace, mm."""
        return trace.x0 + (trace.end - trace.start) * self.mm_per_s


_TRACE_MM = 250.0  # 10 s at 25 mm/s
_GRID_TOP = 10.0
# Rows further apart than the maximum look lost; closer than the minimum, names overlap the traces of the row above.
_MIN_ROW, _MAX_ROW = 15.0, 40.0

PULSE_S = 0.2
"""Duration of a calibration pulse, seconds."""


def layout_named(words: str) -> Layout:
    """The layout that `words` describe: see `options_named`. Raises `InputError` for words that describe none."""
    return make_layout(options_named(words))


_MAX_DRAWS = 100


def sample_layout(words: str, rng: np.random.Generator) -> Layout:
    """The layout of one page: `layout_named`, but the word "mixed" samples what is not given (see `sample_options`).

    Raises:
        InputError: For words that describe no layout, or none that fits on the paper.
    """
    for _ in range(_MAX_DRAWS):
        options = sample_options(words, rng)
        try:
            return make_layout(options)
        except InputError:  # twelve rows were sampled for a low paper that `words` name
            continue
    return make_layout(options)


@lru_cache(maxsize=256)
def make_layout(options: PageOptions) -> Layout:
    """The layout of a page.

    Raises:
        InputError: Where the paper is too low for the format's rows.
    """
    width, height = options.size
    left = 5.0 * round((width - _TRACE_MM) / 2 / 5.0)  # on a heavy line of the grid
    first, pitch = _first_baseline_and_pitch(options)
    rows = [_row(options, labels, left, first + i * pitch, pitch) for i, labels in enumerate(options.rows)]
    return Layout(
        name=options.name,
        width=width,
        height=height,
        mm_per_s=options.mm_per_s,
        grid_top=_GRID_TOP,
        traces=tuple(trace for row in rows for trace in row),
        pulses=() if options.pulse == "none" else tuple(_pulse(options, left, row) for row in rows),
        separators=tuple((t.x0, t.baseline) for row in rows for t in row[1:]) if options.separators else (),
        lead_names=options.lead_names,
    )


def _row(options: PageOptions, labels: tuple[str, ...], left: float, baseline: float, pitch: float) -> list[Trace]:
    """The traces of one row: its leads share the page's time equally."""
    share = _TRACE_MM / options.mm_per_s / len(labels)
    traces = []
    for k, label in enumerate(labels):
        lead = label.removeprefix("-")
        start = 0.0 if options.columns == "simultaneous" else k * share
        half_gain = options.half_chest and lead in CHEST_LEADS
        traces.append(
            Trace(
                lead=lead,
                x0=left + k * share * options.mm_per_s,
                baseline=baseline,
                start=start,
                end=start + share,
                top=baseline - pitch / 2,
                bottom=baseline + pitch / 2,
                mm_per_mv=options.mm_per_mv / 2 if half_gain else options.mm_per_mv,
                polarity=1 if label == lead else -1,
            )
        )
    return traces


def _first_baseline_and_pitch(options: PageOptions) -> tuple[float, float]:
    """The top row's baseline and the rows' distance, mm, both on heavy lines of the grid: heights are easy to read."""
    height, rows = options.size[1], len(options.rows)
    room = height - _GRID_TOP
    pitch = min(5.0 * (room / rows // 5.0), _MAX_ROW)
    if pitch < _MIN_ROW:
        raise InputError(
            f"layout {options.name!r}: {rows} rows do not fit on a page {height:g} mm high; add 280x280mm, A4 or Letter"
        )
    spare = room - rows * pitch
    return 5.0 * round((_GRID_TOP + spare / 2 + pitch / 2) / 5.0), pitch


def _pulse(options: PageOptions, left: float, row: list[Trace]) -> Pulse:
    """The pulse of a row, in the middle of its margin as far as the grid's lines allow."""
    long, right = PULSE_S * options.mm_per_s, left + _TRACE_MM
    after = right + (options.size[0] - right - long) // 2
    gains = tuple(dict.fromkeys(trace.mm_per_mv for trace in row))
    return Pulse(after if options.pulse == "end" else (left - long) // 2, row[0].baseline, gains)
