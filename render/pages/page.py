"""A record on paper, right to the millimetre, with the geometry to read it back.

A sample t seconds after its column's start lies `mm_per_s` * t mm right of the column's left end; v mV lie
`mm_per_mv` * v mm above the baseline (below, where a lead is drawn upside down). Nothing is resampled: straight
lines join the record's own samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from render.errors import InputError
from render.pages.geometry import LeadTrace, PageGeometry
from render.pages.grid import RuledPaper, ruled_paper
from render.pages.header import lines
from render.pages.layout import PULSE_S, Layout, Pulse, Trace, layout_named
from render.pages.paper import Colours, Paper
from render.pages.raster import (
    compose,
    draw_line,
    draw_text,
    draw_traces,
    palette,
    png_bytes,
    text_width,
)
from render.record import LEADS, EcgRecord

# Below 1 px per mm small boxes and waves are gone; above 16 (406 dpi) no scanner or model gains anything.
_LEAST_PX_PER_MM, _MOST_PX_PER_MM = 1.0, 16.0

_TRACE_MM, _LEAST_PX = 0.35, 1.0
_SEPARATOR_MM = 0.25
_USUAL = Paper()
# Above and below the baseline, so that no one takes the tick for a pacemaker's spike or a QRS complex.
_SEPARATOR_TICKS_MM = ((-7.5, -5.0), (5.0, 7.5))
_NAME_MM = 4.6
_FIELD_GAP = "    "  # between the fields of a head
_NAME_RIGHT_MM, _NAME_BASELINE_MM = 1.5, 5.0  # from the left end and the top of a trace
_NAME_CLEAR_MM = 5.0  # a name stands at least so high above 0 mV, or P waves would run through it in low rows
_PULSE_MV, _PULSE_FOOT_MM = 1.0, 1.5

_MASKED_FROM = 128  # half of full ink: a pixel that a line covers by half belongs to it
PAPER_CLASS, GRID_CLASS, PRINT_CLASS, SIGNAL_CLASS = 0, 1, 2, 3
"""Values of a page's mask. Print is all that is drawn but the traces: text, names, calibration pulses, separators."""


@dataclass(frozen=True, eq=False)
class Page:
    """A drawn page.

    image: uint8 (height, width), indices into `palette`, uint8 (256, 3) RGB.
    geometry: where every trace lies.
    mask: uint8 (height, width), what each pixel belongs to: the classes above; None where it was not asked for.
    """

    image: NDArray[np.uint8]
    palette: NDArray[np.uint8]
    geometry: PageGeometry
    mask: NDArray[np.uint8] | None = None

    def png(self) -> bytes:
        """The page as an 8-bit palette PNG with its true size (pixels per metre)."""
        return png_bytes(self.image, self.palette, self.geometry.px_per_mm)

    def to_pil(self) -> Image.Image:
        """The page as an RGB image."""
        return Image.fromarray(self.palette[self.image])


@dataclass(frozen=True, eq=False)
class _Sheet:
    """What every record on the same layout, paper and width shares. Arrays are read-only.

    paper: without ink. ink: names, pulses and separators. name_boxes: of each trace's name.
    """

    paper: RuledPaper
    palette: NDArray[np.uint8]
    ink: NDArray[np.uint8]
    name_boxes: tuple[tuple[int, int, int, int] | None, ...]


def draw(
    record: EcgRecord, *, layout: str = "3x4+1R", width: int = 1120, paper: Paper = _USUAL, mask: bool = False
) -> Page:
    """Draw the record from its first sample on, as far as the page reaches.

    layout: words of `render.pages.options`, such as "6x2,cabrera". width: of the page in pixels; 1120 are 4 px per
    mm on paper 280 mm wide. The height follows. paper: colours, grid and printed text. mask: whether the page is to
    carry its mask.
    A shorter record draws what is there; a sample that is not finite leaves a gap.
    Raises `InputError` for an unknown layout or a width out of range.
    """
    plan = layout_named(layout)
    px_per_mm = _checked_scale(plan, width)
    sheet = _sheet(plan, width, paper.colours, paper.grid)
    ink = sheet.ink.copy()
    _draw_text(ink, record, plan, paper, px_per_mm)
    traces = np.zeros_like(ink) if mask else ink
    spans = [_span(trace, record) for trace in plan.traces]
    starts = [_sample_x(trace, span[0], record, plan) for trace, span in zip(plan.traces, spans, strict=True)]
    draw_traces(
        traces,
        record.signal,
        rows=np.array([LEADS.index(trace.lead) for trace in plan.traces]),
        firsts=np.array([first for first, _ in spans]),
        lasts=np.array([last for _, last in spans]),
        x0s=np.array(starts) * px_per_mm,
        x_step=plan.mm_per_s * px_per_mm / record.sampling_rate,
        scales=np.array([trace.mm_per_mv * (-1 if trace.inverted else 1) for trace in plan.traces]) * px_per_mm,
        baselines=np.array([trace.baseline for trace in plan.traces]) * px_per_mm,
        width=_line_width(_TRACE_MM, px_per_mm),
    )
    classes = _classes(sheet.paper.lines(), ink, traces) if mask else None
    image = compose(sheet.paper.bare, np.maximum(ink, traces) if mask else ink)
    return Page(image, sheet.palette, _geometry(plan, sheet, spans, record, px_per_mm), classes)


def _classes(ruled: NDArray[np.bool_], printed: NDArray[np.uint8], traces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask; where things lie over each other the trace wins, then print."""
    classes = np.where(ruled, np.uint8(GRID_CLASS), np.uint8(PAPER_CLASS))
    classes[printed >= _MASKED_FROM] = PRINT_CLASS
    classes[traces >= _MASKED_FROM] = SIGNAL_CLASS
    return classes


def _line_width(mm: float, px_per_mm: float) -> float:
    """Pixels; never below one, where a line would only be paler."""
    return max(mm * px_per_mm, _LEAST_PX)


def _checked_scale(plan: Layout, width: int) -> float:
    """Pixels per mm."""
    least, most = math.ceil(plan.width * _LEAST_PX_PER_MM), math.floor(plan.width * _MOST_PX_PER_MM)
    if not least <= width <= most:
        raise InputError(f"page width {width} px: must lie between {least} and {most}; 1120 is about 4 pixels per mm")
    return width / plan.width


def _span(trace: Trace, record: EcgRecord) -> tuple[int, int]:
    """The samples of a trace that the record has: first, and last excluded."""
    n = record.signal.shape[1]
    # 2.5 s * 499.9999 Hz must not lose a sample to rounding.
    first, last = (math.ceil(t * record.sampling_rate - 1e-6) for t in (trace.start, trace.end))
    return min(first, n), min(last, n)


def _sample_x(trace: Trace, sample: int, record: EcgRecord, plan: Layout) -> float:
    """Where a sample lies, mm from the page's left edge."""
    return trace.x0 + (sample / record.sampling_rate - trace.start) * plan.mm_per_s


def _geometry(
    plan: Layout, sheet: _Sheet, spans: list[tuple[int, int]], record: EcgRecord, px_per_mm: float
) -> PageGeometry:
    leads = tuple(
        LeadTrace(
            lead=trace.lead,
            label=trace.label,
            box=(
                round(trace.x0 * px_per_mm, 4),
                round(trace.top * px_per_mm, 4),
                round(plan.trace_end(trace) * px_per_mm, 4),
                round(trace.bottom * px_per_mm, 4),
            ),
            name_box=name_box,
            start_s=trace.start,
            start_sample=first,
            end_sample=last,
            baseline_y=round(trace.baseline * px_per_mm, 4),
            px_per_mm=px_per_mm,
            mm_per_s=plan.mm_per_s,
            mm_per_mv=trace.mm_per_mv,
            inverted=trace.inverted,
        )
        for trace, name_box, (first, last) in zip(plan.traces, sheet.name_boxes, spans, strict=True)
    )
    return PageGeometry(
        layout=plan.name,
        width=sheet.ink.shape[1],
        height=sheet.ink.shape[0],
        px_per_mm=px_per_mm,
        mm_per_s=plan.mm_per_s,
        mm_per_mv=plan.gains[0],
        sampling_rate=float(record.sampling_rate),
        homography=np.eye(3),
        leads=leads,
    )


def _draw_text(ink: NDArray[np.uint8], record: EcgRecord, plan: Layout, paper: Paper, px_per_mm: float) -> None:
    """Head and foot; a line's last fields give way where there is no room."""
    left = plan.traces[0].x0 * px_per_mm
    right = max(plan.trace_end(trace) for trace in plan.traces) * px_per_mm
    for line in lines(record, plan, paper.text, paper.findings):
        y, size = line.baseline * px_per_mm, line.size * px_per_mm
        fields = list(line.fields)
        until = right - text_width(line.right, size) - size if line.right else right
        while fields and text_width(_FIELD_GAP.join(fields), size) > until - left:
            fields.pop()
        if fields:
            draw_text(ink, _FIELD_GAP.join(fields), left, y, size)
        if line.right:
            draw_text(ink, line.right, right - text_width(line.right, size), y, size)


@lru_cache(maxsize=8)
def _sheet(plan: Layout, width: int, colours: Colours, grid: str) -> _Sheet:
    px_per_mm = width / plan.width
    shape = (round(plan.height * px_per_mm), width)
    ink = np.zeros(shape, dtype=np.uint8)
    for pulse in plan.pulses:
        draw_line(ink, _outline(pulse, plan) * px_per_mm, _line_width(_TRACE_MM, px_per_mm))
    for x, baseline in plan.separators:
        for low, high in _SEPARATOR_TICKS_MM:
            ends = np.array([[x, baseline + low], [x, baseline + high]]) * px_per_mm
            draw_line(ink, ends, _line_width(_SEPARATOR_MM, px_per_mm))
    names = tuple(
        draw_text(
            ink,
            trace.label,
            (trace.x0 + _NAME_RIGHT_MM) * px_per_mm,
            min(trace.top + _NAME_BASELINE_MM, trace.baseline - _NAME_CLEAR_MM) * px_per_mm,
            _NAME_MM * px_per_mm,
        )
        if plan.lead_names
        else None
        for trace in plan.traces
    )
    ruled = ruled_paper(plan.width, plan.height, plan.grid_top, width, grid)
    ground, line = np.array(colours.paper), np.array(colours.line)
    colour_table = palette(ground + ruled.levels[:, None] * (line - ground), np.array(colours.ink))
    for array in (ink, colour_table):
        array.setflags(write=False)
    return _Sheet(ruled, colour_table, ink, names)


def _outline(pulse: Pulse, plan: Layout) -> NDArray[np.float64]:
    """The line of a calibration pulse: (4 + 2 for each of its gains, 2) mm."""
    long = PULSE_S * plan.mm_per_s
    edges = pulse.x + np.arange(len(pulse.gains) + 1) / len(pulse.gains) * long
    points = [(edges[0] - _PULSE_FOOT_MM, pulse.baseline), (edges[0], pulse.baseline)]
    for gain, left, right in zip(pulse.gains, edges[:-1], edges[1:], strict=True):
        top = pulse.baseline - _PULSE_MV * gain
        points += [(left, top), (right, top)]
    points += [(edges[-1], pulse.baseline), (edges[-1] + _PULSE_FOOT_MM, pulse.baseline)]
    return np.array(points)
