"""A record drawn on paper, true to the millimetre, with the geometry to read it back.

A sample t seconds after its column's start lies `mm_per_s` * t mm right of the column's left end; v mV lie
`mm_per_mv` * v mm above the baseline (below, where a lead is drawn upside down). `render.pages.geometry` has the same
mapping in pixels. Nothing is resampled: straight lines join the record's own samples.
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

# Below 1 px per mm small boxes and waves vanish; above 16 (406 dpi) no scanner or model gains anything.
_MIN_PX_PER_MM, _MAX_PX_PER_MM = 1.0, 16.0

_TRACE_MM, _MIN_PX = 0.35, 1.0
_SEPARATOR_MM = 0.25
_DEFAULT_PAPER = Paper()
# Above and below the baseline, so that a tick does not look like a pacemaker's spike or a QRS complex.
_SEPARATOR_TICKS_MM = ((-7.5, -5.0), (5.0, 7.5))
_NAME_MM = 4.6
_FIELD_GAP = "    "  # between the fields of a head
_NAME_RIGHT_MM, _NAME_BASELINE_MM = 1.5, 5.0  # from the left end and the top of a trace
_NAME_CLEAR_MM = 5.0  # a name's least height above 0 mV: any lower, P waves would overlap it in low rows
_PULSE_MV, _PULSE_FOOT_MM = 1.0, 1.5

_MASK_THRESHOLD = 128  # half of full ink: a pixel that a line covers by half belongs to it
PAPER_CLASS, GRID_CLASS, PRINT_CLASS, SIGNAL_CLASS = 0, 1, 2, 3
"""Values of a page's mask. Print is all ink except the traces: text, names, calibration pulses, separators."""


@dataclass(frozen=True, eq=False)
class Page:
    """A drawn page.

    Attributes:
        image: uint8 (height, width), indices into `palette`, uint8 (256, 3) RGB.
        geometry: where every trace lies.
        mask: uint8 (height, width), the class of each pixel, one of the four above; None unless it was requested.
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
    """What all records on the same layout, paper and width share. Arrays are read-only.

    paper: without ink. ink: names, pulses and separators. name_boxes: the box of each trace's name, pixels.
    """

    paper: RuledPaper
    palette: NDArray[np.uint8]
    ink: NDArray[np.uint8]
    name_boxes: tuple[tuple[int, int, int, int] | None, ...]


def draw(
    record: EcgRecord, *, layout: str = "3x4+1R", width: int = 1120, paper: Paper = _DEFAULT_PAPER, mask: bool = False
) -> Page:
    """Draw the record from its first sample on, for as many seconds as the page shows.

    Of a shorter record all samples are drawn; a sample that is not finite leaves a gap.

    Args:
        layout: words of `render.pages.options`, such as "6x2,cabrera".
        width: of the page in pixels; 1120 are 4 px per mm on paper 280 mm wide. The height follows.
        paper: colours, grid and printed text.
        mask: whether the page gets its mask.

    Raises:
        InputError: For an unknown layout or a width out of range.
    """
    page_layout = layout_named(layout)
    px_per_mm = _scale(page_layout, width)
    sheet = _sheet(page_layout, width, paper.colours, paper.grid)
    ink = sheet.ink.copy()
    _draw_text(ink, record, page_layout, paper, px_per_mm)
    traces = np.zeros_like(ink) if mask else ink
    spans = [_span(trace, record) for trace in page_layout.traces]
    starts = [
        _sample_x(trace, span[0], record, page_layout) for trace, span in zip(page_layout.traces, spans, strict=True)
    ]
    draw_traces(
        traces,
        record.signal,
        rows=np.array([LEADS.index(trace.lead) for trace in page_layout.traces]),
        firsts=np.array([first for first, _ in spans]),
        lasts=np.array([last for _, last in spans]),
        x0s=np.array(starts) * px_per_mm,
        x_step=page_layout.mm_per_s * px_per_mm / record.sampling_rate,
        scales=np.array([trace.mm_per_mv * trace.polarity for trace in page_layout.traces]) * px_per_mm,
        baselines=np.array([trace.baseline for trace in page_layout.traces]) * px_per_mm,
        width=_line_width(_TRACE_MM, px_per_mm),
    )
    classes = _classes(sheet.paper.lines(), ink, traces) if mask else None
    image = compose(sheet.paper.bare, np.maximum(ink, traces) if mask else ink)
    return Page(image, sheet.palette, _geometry(page_layout, sheet, spans, record, px_per_mm), classes)


def _classes(grid: NDArray[np.bool_], print_ink: NDArray[np.uint8], traces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask: a trace covers print, and print covers the grid."""
    classes = np.where(grid, np.uint8(GRID_CLASS), np.uint8(PAPER_CLASS))
    classes[print_ink >= _MASK_THRESHOLD] = PRINT_CLASS
    classes[traces >= _MASK_THRESHOLD] = SIGNAL_CLASS
    return classes


def _line_width(mm: float, px_per_mm: float) -> float:
    """Pixels; at least one, as a thinner line would only be paler."""
    return max(mm * px_per_mm, _MIN_PX)


def _scale(layout: Layout, width: int) -> float:
    """Pixels per mm."""
    minimum, maximum = math.ceil(layout.width * _MIN_PX_PER_MM), math.floor(layout.width * _MAX_PX_PER_MM)
    if not minimum <= width <= maximum:
        raise InputError(f"page width {width} px: give {minimum} to {maximum}; 1120 is about 4 pixels per mm")
    return width / layout.width


def _span(trace: Trace, record: EcgRecord) -> tuple[int, int]:
    """The samples of a trace that the record has: first, and last excluded."""
    n = record.signal.shape[1]
    # Rounding must not drop a sample of 2.5 s * 499.9999 Hz.
    first, last = (math.ceil(t * record.sampling_rate - 1e-6) for t in (trace.start, trace.end))
    return min(first, n), min(last, n)


def _sample_x(trace: Trace, sample: int, record: EcgRecord, layout: Layout) -> float:
    """The place of a sample, mm from the page's left edge."""
    return trace.x0 + (sample / record.sampling_rate - trace.start) * layout.mm_per_s


def _geometry(
    layout: Layout, sheet: _Sheet, spans: list[tuple[int, int]], record: EcgRecord, px_per_mm: float
) -> PageGeometry:
    leads = tuple(
        LeadTrace(
            lead=trace.lead,
            label=trace.label,
            box=(
                round(trace.x0 * px_per_mm, 4),
                round(trace.top * px_per_mm, 4),
                round(layout.trace_end(trace) * px_per_mm, 4),
                round(trace.bottom * px_per_mm, 4),
            ),
            name_box=name_box,
            start_s=trace.start,
            start_sample=first,
            end_sample=last,
            baseline_y=round(trace.baseline * px_per_mm, 4),
            px_per_mm=px_per_mm,
            mm_per_s=layout.mm_per_s,
            mm_per_mv=trace.mm_per_mv,
            inverted=trace.polarity < 0,
        )
        for trace, name_box, (first, last) in zip(layout.traces, sheet.name_boxes, spans, strict=True)
    )
    return PageGeometry(
        layout=layout.name,
        width=sheet.ink.shape[1],
        height=sheet.ink.shape[0],
        px_per_mm=px_per_mm,
        mm_per_s=layout.mm_per_s,
        mm_per_mv=layout.gains[0],
        sampling_rate=float(record.sampling_rate),
        homography=np.eye(3),
        leads=leads,
    )


def _draw_text(ink: NDArray[np.uint8], record: EcgRecord, layout: Layout, paper: Paper, px_per_mm: float) -> None:
    """Head and foot; a line's last fields are left out where there is no room."""
    left = layout.traces[0].x0 * px_per_mm
    right = max(layout.trace_end(trace) for trace in layout.traces) * px_per_mm
    for line in lines(record, layout, paper.text, paper.findings):
        y, size = line.baseline * px_per_mm, line.size * px_per_mm
        fields = list(line.fields)
        end = right - text_width(line.right, size) - size if line.right else right
        while fields and text_width(_FIELD_GAP.join(fields), size) > end - left:
            fields.pop()
        if fields:
            draw_text(ink, _FIELD_GAP.join(fields), left, y, size)
        if line.right:
            draw_text(ink, line.right, right - text_width(line.right, size), y, size)


@lru_cache(maxsize=8)
def _sheet(layout: Layout, width: int, colours: Colours, grid: str) -> _Sheet:
    px_per_mm = width / layout.width
    shape = (round(layout.height * px_per_mm), width)
    ink = np.zeros(shape, dtype=np.uint8)
    for pulse in layout.pulses:
        draw_line(ink, _outline(pulse, layout) * px_per_mm, _line_width(_TRACE_MM, px_per_mm))
    for x, baseline in layout.separators:
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
        if layout.lead_names
        else None
        for trace in layout.traces
    )
    blank = ruled_paper(layout.width, layout.height, layout.grid_top, width, grid)
    ground, line = np.array(colours.paper), np.array(colours.line)
    colour_table = palette(ground + blank.levels[:, None] * (line - ground), np.array(colours.ink))
    for array in (ink, colour_table):
        array.setflags(write=False)
    return _Sheet(blank, colour_table, ink, names)


def _outline(pulse: Pulse, layout: Layout) -> NDArray[np.float64]:
    """The line of a calibration pulse: (4 + 2 for each of its gains, 2) mm."""
    long = PULSE_S * layout.mm_per_s
    edges = pulse.x + np.arange(len(pulse.gains) + 1) / len(pulse.gains) * long
    points = [(edges[0] - _PULSE_FOOT_MM, pulse.baseline), (edges[0], pulse.baseline)]
    for gain, left, right in zip(pulse.gains, edges[:-1], edges[1:], strict=True):
        top = pulse.baseline - _PULSE_MV * gain
        points += [(left, top), (right, top)]
    points += [(edges[-1], pulse.baseline), (edges[-1] + _PULSE_FOOT_MM, pulse.baseline)]
    return np.array(points)
