"""A record on ECG paper as a matplotlib figure, for a notebook or a paper: lines stay lines in SVG and PDF.

For pages as pictures, many and fast, see `render.pages.page`.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from render.pages.layout import Layout, layout_named
from render.record import EcgRecord

_MM_PER_INCH = 25.4
_POINTS_PER_MM = 72 / _MM_PER_INCH
_GRID_LINES = ((1, 0.1, "#f4c6c6"), (5, 0.25, "#e58f8f"))  # every so many mm, width in mm, colour
_TRACE_MM, _NAME_MM = 0.3, 3.2  # line width; height of the lead names


class RecordFigure(Figure):
    """A matplotlib figure that a notebook shows as SVG, whatever its backend."""

    def _repr_svg_(self) -> str:
        buffer = io.StringIO()
        self.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()


def plot_record(record: EcgRecord, layout: str = "3x4+1R") -> RecordFigure:
    """The record on ECG paper, true to size: 1 mm of the figure is 1 mm of paper (25 mm/s and 10 mm/mV by default).

    Args:
        layout: as for `ecg-vlm render --layout`, "6x2,cabrera,50mm/s" for example. `figure.savefig("ecg.pdf")`
            saves it.

    Raises:
        InputError: For a layout that is not known.
    """
    page = layout_named(layout)
    figure = RecordFigure(figsize=(page.width / _MM_PER_INCH, page.height / _MM_PER_INCH))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, page.width), ylim=(page.height, 0))
    axes.axis("off")
    _draw_grid(axes, page)
    for trace in page.traces:
        first, last = (round(t * record.sampling_rate) for t in (trace.start, trace.end))
        samples = record.lead(trace.lead)[first:last] * trace.polarity
        x = trace.x0 + np.arange(samples.size) / record.sampling_rate * page.mm_per_s
        y = trace.baseline - samples * trace.mm_per_mv
        axes.plot(x, y, color="black", linewidth=_TRACE_MM * _POINTS_PER_MM, solid_joinstyle="round", gid=trace.label)
        if page.lead_names:
            size = _NAME_MM * _POINTS_PER_MM
            axes.text(trace.x0 + 1, trace.top + 1, trace.label, size=size, va="top", family="sans-serif")
    title = f"{record.record_id}    {page.mm_per_s:g} mm/s    {'/'.join(f'{gain:g}' for gain in page.gains)} mm/mV"
    axes.text(1, 1, title, size=_NAME_MM * _POINTS_PER_MM, va="top", family="sans-serif")
    return figure


def _draw_grid(axes: Axes, page: Layout) -> None:
    for step, width, colour in _GRID_LINES:
        columns = np.arange(0, page.width + step / 2, step)
        rows = np.arange(page.grid_top, page.height + step / 2, step)
        lines = [[(x, page.grid_top), (x, page.height)] for x in columns]
        lines += [[(0, y), (page.width, y)] for y in rows]
        axes.add_collection(LineCollection(lines, linewidths=width * _POINTS_PER_MM, colors=colour, zorder=0))
