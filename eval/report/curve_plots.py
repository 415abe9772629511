"""Small square plots as inline SVG: ROC curves and reliability curves, side by side in a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

SIZE = 200
_LEFT, _BOTTOM, _TOP, _RIGHT = 34, 34, 24, 10
_WIDTH, _HEIGHT = _LEFT + SIZE + _RIGHT, _TOP + SIZE + _BOTTOM


@dataclass(frozen=True)
class PlotLine:
    """One curve on the unit square. style: number of its colour; dashed: drawn so; dots: a mark at every point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int
    dashed: bool = False
    dots: bool = False


def panel(title: str, lines: Sequence[PlotLine], *, x_label: str, y_label: str) -> str:
    """A square plot of curves over [0, 1] x [0, 1] with the diagonal as a guide. All words are escaped."""
    parts = [f'<svg class="panel" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<text class="head" x="{_LEFT}" y="15">{escape(title)}</text>')
    for tick in (0.0, 0.5, 1.0):
        x, y = _x(tick), _y(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_y(0)}" y2="{_y(1)}"/>')
        parts.append(f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_y(0) + 14}">{tick:g}</text>')
        parts.append(f'<text class="tick side" x="{_LEFT - 6}" y="{y + 4:.1f}">{tick:g}</text>')
    parts.append(f'<line class="chance" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(0)}" y2="{_y(1)}"/>')
    parts.append(f'<text class="tick" x="{_x(0.5)}" y="{_HEIGHT - 4}">{escape(x_label)}</text>')
    middle = _y(0.5)
    turned = f'transform="rotate(-90 9 {middle})"'
    parts.append(f'<text class="tick" x="9" y="{middle}" {turned}>{escape(y_label)}</text>')
    parts += [_curve(line) for line in lines]
    return "".join(parts) + "</svg>"


def _curve(line: PlotLine) -> str:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 3"' if line.dashed else ""
    dots = "".join(f'<circle class="s{line.style}" cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="2.6"/>' for x, y in points)
    return (
        f'<g><title>{escape(line.name)}</title><polyline class="s{line.style} curve" points="{path}"{dash}/>'
        f"{dots if line.dots else ''}</g>"
    )


def _x(value: float) -> float:
    return _LEFT + SIZE * min(max(value, 0.0), 1.0)


def _y(value: float) -> float:
    return _TOP + SIZE * (1 - min(max(value, 0.0), 1.0))
