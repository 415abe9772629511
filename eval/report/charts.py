"""Charts for the report's page as inline SVG: interval charts, and square plots of ROC and reliability curves.

Charts fit any width. In an interval chart x is a percentage of the plot's width, while text and marks keep their size
in pixels: a `viewBox` would shrink the labels with the plot, to 4 pixels on a telephone. The square plots are wide
enough there to use one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from eval.metrics.bootstrap import Interval

COLOURS = ("#0b62a4", "#d55e00", "#009e73", "#8c2bee", "#5e1608", "#a198cd", "#3f2145", "#370b8e")
DARK_COLOURS = ("#66b3ff", "#e64d00", "#3a784f", "#a413ec", "#e599b3", "#bd0fa0", "#bdbd75", "#bbff33")
"""One colour a system, on white and on the dark page. Any two are at least 20 apart in CIELAB, for people with normal
vision and with protanopia, deuteranopia or tritanopia (simulated after Machado et al. 2009)."""
SHAPES = ("circle", "square", "diamond", "triangle", "plus", "wedge", "hexagon", "bar")
"""One shape a system, so that eight can be told apart without colour."""

_PIXELS_A_SYSTEM = 11
_PANEL = 200
_LEFT, _BOTTOM, _TOP, _RIGHT = 34, 34, 24, 10
_PANEL_WIDTH, _PANEL_HEIGHT = _LEFT + _PANEL + _RIGHT, _TOP + _PANEL + _BOTTOM
_SHAPE_SVG = {
    "circle": '<circle r="4.2"/>',
    "square": '<rect x="-3.7" y="-3.7" width="7.4" height="7.4"/>',
    "diamond": '<polygon points="0,-5.2 5.2,0 0,5.2 -5.2,0"/>',
    "triangle": '<polygon points="0,-4.8 4.8,4 -4.8,4"/>',
    "plus": '<path d="M-1.5,-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z"/>',
    "wedge": '<polygon points="0,4.8 4.8,-4 -4.8,-4"/>',
    "hexagon": '<polygon points="-2.6,-4.5 2.6,-4.5 5.2,0 2.6,4.5 -2.6,4.5 -5.2,0"/>',
    "bar": '<rect x="-1.6" y="-5" width="3.2" height="10"/>',
}


@dataclass(frozen=True)
class Look:
    """How system number `index` is drawn everywhere; no two of the first 32 are the same.

    colour: a number in `COLOURS`. dash: from the ninth system on, when the colours begin again.
    """

    index: int

    @property
    def colour(self) -> int:
        """Number of the colour."""
        return self.index % len(COLOURS)

    @property
    def dash(self) -> bool:
        """Whether lines are dashed."""
        return self.index >= len(COLOURS)

    @property
    def shape(self) -> str:
        """One of `SHAPES`."""
        return SHAPES[(self.index + self.index // len(COLOURS)) % len(SHAPES)]


@dataclass(frozen=True)
class IntervalRow:
    """One line of a chart: a label, a grey note behind it, a count, and one interval (or None) per system.

    An interval whose limits are NaN is drawn as a mark without whisker.

    Attributes:
        faint: drawn pale, because it rests on too few positives.
        group: heading above the row when it changes.
    """

    label: str
    note: str
    count: str
    values: tuple[Interval | None, ...]
    group: str = ""
    faint: bool = False


@dataclass(frozen=True)
class PlotLine:
    """One curve on the unit square. colour: number in `COLOURS`; dots: a mark at every point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    dash: bool = False
    dots: bool = False


def interval_chart(
    rows: Sequence[IntervalRow], systems: Sequence[str], *, low: float, high: float, title: str, count_label: str
) -> str:
    """Marks with 95 % whiskers over the AUC axis from `low` to `high`, and a line at 0.5 for chance, as HTML.

    Systems differ by colour and by shape, so that the chart is legible on a grey printer and in colour blindness.

    Args:
        count_label: heading of the counts.
    """
    parts = [f'<div class="chart" role="group" aria-label="{escape(title)}">', _axis(low, high, count_label)]
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            parts.append(f'<div class="group">{escape(group)}</div>')
        parts.append(_row(row, systems, low, high))
    return "\n".join(parts) + "</div>"


def legend_mark(index: int) -> str:
    """The mark of system number `index` as a small SVG for legends and tables."""
    look = Look(index)
    return (
        f'<svg class="mark s{look.colour}" viewBox="-7 -7 14 14" aria-hidden="true">{_SHAPE_SVG[look.shape]}'
        f"{_legend_dash(look)}</svg>"
    )


def axis_low(values: Sequence[Interval | None]) -> float:
    """The lowest tick (a tenth, at most 0.4) that keeps every lower limit on the chart."""
    lows = [v.low95 for v in values if v is not None and math.isfinite(v.low95)]
    return max(0.0, min(0.4, math.floor(min(lows, default=0.4) * 10) / 10))


def panel(title: str, lines: Sequence[PlotLine], *, x_label: str, y_label: str) -> str:
    """A square plot of curves over [0, 1] x [0, 1] with the diagonal as a guide. All text is escaped."""
    parts = [
        f'<svg class="panel" width="100%" viewBox="0 0 {_PANEL_WIDTH} {_PANEL_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    parts.append(f'<text class="head" x="{_LEFT}" y="15">{escape(title)}</text>')
    for tick in (0.0, 0.5, 1.0):
        x, y = _panel_x(tick), _panel_y(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_panel_y(0)}" y2="{_panel_y(1)}"/>')
        parts.append(f'<line class="grid" x1="{_panel_x(0)}" x2="{_panel_x(1)}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_panel_y(0) + 14}">{tick:g}</text>')
        parts.append(f'<text class="tick side" x="{_LEFT - 6}" y="{y + 4:.1f}">{tick:g}</text>')
    parts.append(f'<line class="chance" x1="{_panel_x(0)}" x2="{_panel_x(1)}" y1="{_panel_y(0)}" y2="{_panel_y(1)}"/>')
    parts.append(f'<text class="tick" x="{_panel_x(0.5)}" y="{_PANEL_HEIGHT - 4}">{escape(x_label)}</text>')
    middle = _panel_y(0.5)
    rotation = f'transform="rotate(-90 9 {middle})"'
    parts.append(f'<text class="tick" x="9" y="{middle}" {rotation}>{escape(y_label)}</text>')
    parts += [_curve(line) for line in lines]
    return "".join(parts) + "</svg>"


def _axis(low: float, high: float, count_label: str) -> str:
    ticks = []
    for tenth in _tenths(low, high):
        text = "chance" if tenth == 5 else f"{tenth / 10:.1f}"
        ticks.append(f'<text class="tick" x="{_percent(tenth / 10, low, high)}" y="13">{text}</text>')
    return (
        f'<div class="line axis"><div class="label"><span class="note"></span><span class="count">'
        f'{escape(count_label)}</span></div><svg class="plot" width="100%" height="18" aria-hidden="true">'
        f"{''.join(ticks)}</svg></div>"
    )


def _row(row: IntervalRow, systems: Sequence[str], low: float, high: float) -> str:
    height = _PIXELS_A_SYSTEM * len(systems) + 10
    parts = [
        f'<div class="{"line faint" if row.faint else "line"}"><div class="label"><b>{escape(row.label)}</b>'
        f'<span class="note">{escape(row.note)}</span><span class="count">{escape(row.count)}</span></div>'
        f'<svg class="plot" width="100%" height="{height}">'
    ]
    for tenth in _tenths(low, high):
        x = _percent(tenth / 10, low, high)
        parts.append(f'<line class="{"chance" if tenth == 5 else "grid"}" x1="{x}" x2="{x}" y2="100%"/>')
    gap = (height - 9) / max(1, len(systems))
    for i, (name, value) in enumerate(zip(systems, row.values, strict=True)):
        if value is None or math.isnan(value.value):
            continue
        y = height / 2 + (i - (len(systems) - 1) / 2) * gap
        parts.append(_interval(value, Look(i), y, f"{row.label}, {name}", low, high))
    return "".join(parts) + "</svg></div>"


def _interval(value: Interval, look: Look, y: float, name: str, low: float, high: float) -> str:
    tip, whisker = f"{name}: {value.value:.3f}", ""
    if math.isfinite(value.low95):
        tip += f" (95 % interval {value.low95:.3f} to {value.high95:.3f})"
        left, right = _percent(value.low95, low, high), _percent(value.high95, low, high)
        dash = ' stroke-dasharray="4 2"' if look.dash else ""
        whisker = f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"{dash}/>'
    mark = f'<svg x="{_percent(value.value, low, high)}" y="{y:.1f}">{_SHAPE_SVG[look.shape]}</svg>'
    return f'<g class="s{look.colour}"><title>{escape(tip)}</title>{whisker}{mark}</g>'


def _legend_dash(look: Look) -> str:
    return '<line x1="-7" x2="7" stroke-dasharray="4 2"/>' if look.dash else ""


def _tenths(low: float, high: float) -> range:
    return range(round(low * 10), round(high * 10) + 1)


def _percent(value: float, low: float, high: float) -> str:
    inside = min(max(value, low), high)
    return f"{100 * (inside - low) / (high - low):.2f}%"


def _curve(line: PlotLine) -> str:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    path = " ".join(f"{_panel_x(x):.1f},{_panel_y(y):.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 3"' if line.dash else ""
    dots = "".join(f'<circle cx="{_panel_x(x):.1f}" cy="{_panel_y(y):.1f}" r="2.6"/>' for x, y in points)
    return (
        f'<g class="s{line.colour}"><title>{escape(line.name)}</title><polyline class="curve" points="{path}"{dash}/>'
        f"{dots if line.dots else ''}</g>"
    )


def _panel_x(value: float) -> float:
    return _LEFT + _PANEL * min(max(value, 0.0), 1.0)


def _panel_y(value: float) -> float:
    return _TOP + _PANEL * (1 - min(max(value, 0.0), 1.0))
