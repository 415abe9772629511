"""The report's figures for a paper, as SVG and PDF: text stays text, fonts are embedded as TrueType.

The same report gives the same bytes (with one version of matplotlib): the files carry no date, and the ids in the SVG
do not depend on chance. Colours and marks are those of the report's page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from eval.metrics.bootstrap import Interval
from eval.metrics.judge import Report
from eval.metrics.system_metrics import SystemMetrics
from eval.report.charts import COLOURS, Look, axis_low
from eval.report.html import roc_curves
from eval.types import TASK_LABELS
from render.io import atomic_write

ONE_COLUMN_MM, TWO_COLUMNS_MM = 89.0, 183.0
"""Widths of figures in a journal of two columns (those of Nature)."""
FIGURE_FORMATS = ("svg", "pdf")

_MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle": "^", "plus": "P", "wedge": "v", "hexagon": "h",
    "bar": [(-0.4, -1), (0.4, -1), (0.4, 1), (-0.4, 1)],
}  # fmt: skip
_MM_PER_INCH = 25.4
_ROW_MM = 4.0
_STYLE = {
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "ecg-vlm",
    "text.parse_math": False,  # a system's name may contain a dollar sign
}
_METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def write_figures(out: Path, report: Report) -> list[Path]:
    """Write the figures of a report into the folder `out`; returns the files, none for a report without scores.

    macro-auc: macro-AUC of each system per task, one column wide. differences: paired differences to the first system,
    one column. roc: ROC curves of the classes that the report shows, two columns. reliability: reliability curves of
    each system, two columns. Intervals are the 95 % ones.
    """
    systems = [system for system in report.systems if system.macro_auc]
    if not systems:
        return []
    with rc_context(_STYLE):
        figures = {"macro-auc": _macro_auc(report, systems), "reliability": _reliability(systems)}
        if report.differences:
            figures["differences"] = _differences(report)
        if roc_curves(systems):
            figures["roc"] = _roc(systems)
        return [_save(figure, out / f"{name}.{kind}") for name, figure in figures.items() for kind in FIGURE_FORMATS]


def _save(figure: Figure, path: Path) -> Path:
    kind = path.suffix[1:]
    with atomic_write(path) as partial:
        figure.savefig(partial, format=kind, metadata=_METADATA[kind])
    return path


def _macro_auc(report: Report, systems: Sequence[SystemMetrics]) -> Figure:
    rows = [[(system.macro_auc or {}).get(task) for system in systems] for task in report.tasks]
    labels = [
        f"{TASK_LABELS[task]} ({report.scored_classes(task)}, n = {facts.records})"
        for task, facts in report.tasks.items()
    ]
    looks = [Look(i) for i in range(len(systems))]
    figure, axes = _forest(rows, labels, looks, [system.name for system in systems])
    axes.set_xlim(axis_low([value for row in rows for value in row]), 1.0)
    axes.axvline(0.5, color="0.4", linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel("macro-AUC, 95 % interval")
    return figure


def _differences(report: Report) -> Figure:
    place = {system.name: i for i, system in enumerate(s for s in report.systems if s.macro_auc)}
    rows = [[difference.macro_auc.get(task) for difference in report.differences] for task in report.tasks]
    looks = [Look(place[difference.second]) for difference in report.differences]
    names = [f"{difference.first} minus {difference.second}" for difference in report.differences]
    figure, axes = _forest(rows, [TASK_LABELS[task] for task in report.tasks], looks, names)
    axes.axvline(0.0, color="0.4", linewidth=0.6, zorder=0)
    axes.set_xlabel("difference of macro-AUC, paired, 95 % interval")
    return figure


def _forest(
    rows: Sequence[Sequence[Interval | None]], labels: Sequence[str], looks: Sequence[Look], names: Sequence[str]
) -> tuple[Figure, Any]:
    """Marks with whiskers: one row of intervals per label, one interval per name."""
    height = _ROW_MM * (len(rows) * max(2, len(names)) + len(names)) * 0.75 + 14
    figure = _figure(ONE_COLUMN_MM, height)
    axes = figure.add_subplot()
    step = 0.7 / len(names)
    for i, (look, name) in enumerate(zip(looks, names, strict=True)):
        axes.plot([], [], **_line(look) | _mark(look), label=name)
        for y, row in enumerate(rows):
            value, at = row[i], y + (i - (len(names) - 1) / 2) * step
            if value is None or math.isnan(value.value):
                continue
            axes.plot([value.low95, value.high95], [at, at], **_line(look))
            axes.plot(value.value, at, **_mark(look))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left")
    return figure, axes


def _roc(systems: Sequence[SystemMetrics]) -> Figure:
    panels = roc_curves(systems)
    figure, axes = _grid(len(panels), 3)
    for (title, curves), ax in zip(panels, axes, strict=True):
        for i, roc in curves:
            ax.plot(roc.false_positive_rate, roc.true_positive_rate, **_line(Look(i)), label=systems[i].name)
        _unit_square(ax, title, "1 − specificity", "sensitivity")
    names = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(names.values(), names.keys(), loc="outside lower left", ncols=min(4, len(systems)))
    return figure


def _reliability(systems: Sequence[SystemMetrics]) -> Figure:
    """Dashed and hollow: as given; solid: calibrated."""
    figure, axes = _grid(len(systems), min(4, max(2, len(systems))))
    for i, (system, ax) in enumerate(zip(systems, axes, strict=True)):
        colour = COLOURS[Look(i).colour]
        for label, metrics, style in (
            ("as given", system.probabilities, {"linestyle": "--", "markerfacecolor": "white"}),
            ("calibrated", system.calibrated, {"linestyle": "-"}),
        ):
            if metrics is not None:
                bins = metrics.reliability
                x, y = [b.predicted for b in bins], [b.observed for b in bins]
                ax.plot(x, y, color=colour, marker="o", label=label, **style)
        ax.legend(loc="upper left")
        _unit_square(ax, system.name, "predicted probability", "share with the statement")
    return figure


def _grid(count: int, columns: int) -> tuple[Figure, list[Any]]:
    """A figure of two columns with `count` square panels, `columns` in a row."""
    rows = math.ceil(count / columns)
    side = TWO_COLUMNS_MM / columns
    figure = _figure(TWO_COLUMNS_MM, rows * (side + 4) + 8)
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(count)]


def _figure(width_mm: float, height_mm: float) -> Figure:
    return Figure(figsize=(width_mm / _MM_PER_INCH, height_mm / _MM_PER_INCH), layout="constrained")


def _unit_square(ax: Any, title: str, x_label: str, y_label: str) -> None:
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=x_label, ylabel=y_label)
    ax.set_title(title, fontsize=7, loc="left")
    ax.set_xticks([0, 0.5, 1])
    ax.set_yticks([0, 0.5, 1])


def _line(look: Look) -> dict[str, Any]:
    return {"color": COLOURS[look.colour], "linestyle": "--" if look.dash else "-"}


def _mark(look: Look) -> dict[str, Any]:
    return {"marker": _MARKERS[look.shape], "color": COLOURS[look.colour]}
