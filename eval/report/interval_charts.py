"""Interval charts as inline SVG: crisp at any size, a few kilobytes, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from eval.metrics.ranking import Interval

WIDTH = 960
_LABELS = 350
_RIGHT = 24
_TOP = 30
_GROUP = 26


@dataclass(frozen=True)
class IntervalRow:
    """One line of a chart: a label, a grey note behind it, a count, and one interval (or None) per system.

    An interval whose limits are NaN is drawn as a dot without whisker.
    faint: drawn pale, because too few positives stand behind it. group: heading above the row when it changes.
    """

    label: str
    note: str
    count: str
    values: tuple[Interval | None, ...]
    group: str = ""
    faint: bool = False


def interval_chart(
    rows: Sequence[IntervalRow], systems: Sequence[str], *, low: float, high: float, title: str, counted: str
) -> str:
    """An SVG of dots with 95 % whiskers over the AUC axis from `low` to `high`, a line at 0.5 for chance.

    Systems differ by colour and by shape, so that the chart survives a grey printer and colour blindness.
    counted: heading of the counts.
    """
    step = 11 * len(systems) + 10
    parts: list[str] = []
    y, group = float(_TOP), ""
    for row in rows:
        if row.group and row.group != group:
            group = row.group
            parts.append(f'<text class="group" x="0" y="{y + _GROUP - 8:.1f}">{escape(group)}</text>')
            y += _GROUP
        parts.append(_row(row, systems, y, step, low, high))
        y += step
    height = y + 8
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + f'<text class="count" x="{_LABELS - 22}" y="14">{escape(counted)}</text>'
        + _axis(low, high, y)
        + "".join(parts)
        + "</svg>"
    )


def legend_mark(index: int) -> str:
    """The mark of system number `index` as a small SVG for legends and tables."""
    return f'<svg class="mark" viewBox="0 0 14 14" aria-hidden="true">{_mark(index, 7, 7)}</svg>'


def axis_low(values: Sequence[Interval | None]) -> float:
    """The lowest tick (a tenth, at most 0.4) that keeps every lower limit on the chart."""
    lows = [v.low95 for v in values if v is not None and math.isfinite(v.low95)]
    return max(0.0, min(0.4, math.floor(min(lows, default=0.4) * 10) / 10))


def _x(value: float, low: float, high: float) -> float:
    inside = min(max(value, low), high)
    return _LABELS + (inside - low) / (high - low) * (WIDTH - _LABELS - _RIGHT)


def _axis(low: float, high: float, bottom: float) -> str:
    parts = []
    for tenth in range(round(low * 10), round(high * 10) + 1):
        x = _x(tenth / 10, low, high)
        kind = "chance" if tenth == 5 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{bottom:.1f}"/>')
        text = "chance" if tenth == 5 else f"{tenth / 10:.1f}"
        parts.append(f'<text class="tick" x="{x:.1f}" y="14">{text}</text>')
    return "".join(parts)


def _row(row: IntervalRow, systems: Sequence[str], y: float, step: float, low: float, high: float) -> str:
    middle = y + step / 2
    parts = [
        f'<line class="rule" x1="0" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<g class="{"row faint" if row.faint else "row"}">'
        f'<text class="label" x="0" y="{middle + 4:.1f}">{escape(row.label)}'
        f'<tspan class="note" dx="8">{escape(row.note)}</tspan></text>'
        f'<text class="count" x="{_LABELS - 22}" y="{middle + 4:.1f}">{escape(row.count)}</text>'
    ]
    gap = (step - 9) / max(1, len(systems))
    for i, (name, value) in enumerate(zip(systems, row.values, strict=True)):
        if value is None or math.isnan(value.value):
            continue
        at = middle + (i - (len(systems) - 1) / 2) * gap
        tip = f"{row.label}, {name}: {value.value:.3f}"
        whisker = ""
        if math.isfinite(value.low95):
            tip += f" (95 % interval {value.low95:.3f} to {value.high95:.3f})"
            left, right = _x(value.low95, low, high), _x(value.high95, low, high)
            whisker = f'<line class="s{i % 6}" x1="{left:.1f}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
        parts.append(f"<g><title>{escape(tip)}</title>{whisker}{_mark(i, _x(value.value, low, high), at)}</g>")
    return "".join(parts) + "</g>"


def _mark(index: int, x: float, y: float) -> str:
    """Circle, square, diamond and triangle in turn, centred on (x, y)."""
    kind = f'class="s{index % 6}"'
    shape = index % 4
    if shape == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="4.2"/>'
    if shape == 1:
        return f'<rect {kind} x="{x - 3.7:.1f}" y="{y - 3.7:.1f}" width="7.4" height="7.4"/>'
    corners = [(0, -5.2), (5.2, 0), (0, 5.2), (-5.2, 0)] if shape == 2 else [(0, -4.8), (4.8, 4), (-4.8, 4)]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon {kind} points="{points}"/>'
