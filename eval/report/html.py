"""The report as one HTML page without external resources: figures, charts, example pages and metadata are inside."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from eval.metrics.answers import ECGBENCH
from eval.metrics.bootstrap import Interval
from eval.metrics.judge import Report
from eval.metrics.system_metrics import ConfusablePair, ProbabilityMetrics, Roc, SystemMetrics
from eval.report.charts import (
    COLOURS,
    DARK_COLOURS,
    IntervalRow,
    Look,
    PlotLine,
    axis_low,
    interval_chart,
    legend_mark,
    panel,
)
from eval.report.explanations import EXPLANATIONS
from eval.report.gallery import Example
from eval.types import TASK_LABELS
from render.statements import LABEL_TASKS, STATEMENTS, Statement

WORST_PAIRS = 15
FEW_POSITIVES = 10
"""A statement with fewer positives is drawn pale."""
TOO_FEW_POSITIVES = 3
"""A statement with fewer positives has no interval: resamples of one or two positives contain next to no information
about others, and the bootstrap interval would be far too narrow."""

WITHOUT_INTERVAL = ("Calibration error (ECE), as given", "Calibration error (ECE), calibrated")
"""Metrics without an interval: resampling adds to a calibration error, so percentiles would not contain its value."""

MetricRows = list[tuple[str, list[tuple[SystemMetrics, Mapping[str, Interval] | Mapping[str, float]]]]]
"""Metric -> (system, figures per task)."""

_GROUPS = {
    "NORM": "Normal",
    "MI": "Infarction and injury",
    "STTC": "ST-T changes and ischemia",
    "CD": "Conduction",
    "HYP": "Hypertrophy and enlargement",
}


def template(name: str, **filters: Callable[..., Any]) -> Template:
    """A page's template, which escapes everything; filters: in addition to those for numbers."""
    environment = Environment(
        loader=PackageLoader("eval.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, signed_number=signed_number, limits=limits, **filters)
    environment.globals.update(colours=COLOURS, dark_colours=DARK_COLOURS)
    return environment.get_template(name)


def report_html(report: Report, examples: Sequence[Example] = ()) -> str:
    """The whole page as text. All text from outside (answers, names, metadata) is escaped."""
    systems = [system for system in report.systems if system.macro_auc]
    costs = [system for system in report.systems if system.cost]
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "cell": _cell,
        "direction": _direction,
        "state": _state,
    }
    return template("report.html.j2", **filters).render(
        report=report,
        systems=systems,
        mark_of={system.name: Markup(legend_mark(i)) for i, system in enumerate(systems)},
        with_thresholds=[system for system in systems if system.thresholded],
        with_answers=[system for system in report.systems if system.hard],
        tasks=LABEL_TASKS,
        labels=TASK_LABELS,
        means_of={system.name: missing_classes_text(report, system) for system in systems},
        ecgbench=ECGBENCH,
        names={code: statement.name for code, statement in STATEMENTS.items()},
        task_chart=Markup(_task_chart(report, systems)),
        statement_chart=Markup(_statement_chart(report, systems)),
        roc_panels=[Markup(svg) for svg in _roc_panels(systems)],
        reliability_panels=[Markup(svg) for svg in _reliability_panels(systems)],
        score_metrics=_score_metrics(systems),
        without_interval=WITHOUT_INTERVAL,
        decision_metrics=_decision_metrics(systems),
        confusable_pairs=_confusable_pairs(systems),
        statement_rows=_statement_rows(report),
        few=FEW_POSITIVES,
        too_few=TOO_FEW_POSITIVES,
        statement_cell=partial(_statement_cell, report),
        precision_cell=partial(_precision_cell, report),
        costs=costs,
        cost_keys=list(dict.fromkeys(key for system in costs for key in system.cost)),
        meta=_sections(report.meta),
        explanations=EXPLANATIONS,
        examples=[(example, _data_uri(example.image_png)) for example in examples],
    )


def missing_classes_text(report: Report, system: SystemMetrics) -> str:
    """On how many of the judged classes a system's means rest, of the tasks in which it lacks some; "" where none."""
    counts = {task: (report.scored_classes(task, system), report.scored_classes(task)) for task in LABEL_TASKS}
    words = [
        f"{TASK_LABELS[task]} {own} of {judged}"
        for task, (own, judged) in counts.items()
        if own < judged and task in (system.macro_auc or ())
    ]
    return f"means are over the classes that it scores: {', '.join(words)}" if words else ""


def number(value: float | None) -> str:
    """Three decimals, or a dash for an undefined figure."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def signed_number(value: float | None) -> str:
    """Three decimals with a sign (a true minus), or a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:+.3f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share in whole per cent, or a dash."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def limits(interval: Interval | None, show_sign: bool = False) -> str:
    """The 95 % limits as text: "0.71 to 0.83"; a third digit for small figures; empty when undefined."""
    if interval is None or math.isnan(interval.low95):
        return ""
    digits = 3 if not show_sign and interval.high95 < 0.2 else 2
    sign = "+" if show_sign else ""
    low, high = (f"{v:{sign}.{digits}f}" for v in (interval.low95, interval.high95))
    return f"{low} to {high}".replace("-", "−")


def _cell(figures: Mapping[str, Interval] | None, key: str) -> Interval | None:
    return None if figures is None else figures.get(key)


def _direction(interval: Interval | None) -> str:
    """CSS class of a difference: up or down only when the 95 % interval excludes zero."""
    if interval is None or math.isnan(interval.low95):
        return ""
    return "up" if interval.low95 > 0 else "down" if interval.high95 < 0 else ""


def _state(line: str) -> str:
    """CSS class of a line about contamination."""
    return "bad" if line.startswith("WARNING") else "open" if "not checked" in line else "fine"


def _task_chart(report: Report, systems: Sequence[SystemMetrics]) -> str:
    rows = [
        IntervalRow(
            TASK_LABELS[task],
            f"{report.scored_classes(task)} classes",
            str(facts.records),
            tuple(_cell(system.macro_auc, task) for system in systems),
        )
        for task, facts in report.tasks.items()
    ]
    low = axis_low([value for row in rows for value in row.values])
    title = "Macro-AUC of each system on each task"
    return interval_chart(rows, [s.name for s in systems], low=low, high=1.0, title=title, count_label="records")


def _statement_chart(report: Report, systems: Sequence[SystemMetrics]) -> str:
    rows = [
        IntervalRow(
            code,
            _short(statement.name),
            str(report.positives[code]),
            tuple(_statement_cell(report, system, code) for system in systems),
            group,
            faint=report.positives[code] < FEW_POSITIVES,
        )
        for group, code, statement in _statement_rows(report)
    ]
    title = "AUC of each statement for each system"
    return interval_chart(rows, [s.name for s in systems], low=0.0, high=1.0, title=title, count_label="positives")


def _roc_panels(systems: Sequence[SystemMetrics]) -> list[str]:
    """One ROC plot per class of `SystemMetrics.rocs`, with a curve for each system that scores it."""
    plots = []
    for title, curves in roc_curves(systems):
        lines = [
            PlotLine(systems[i].name, roc.false_positive_rate, roc.true_positive_rate, Look(i).colour, Look(i).dash)
            for i, roc in curves
        ]
        plots.append(panel(title, lines, x_label="1 - specificity", y_label="sensitivity"))
    return plots


def roc_curves(systems: Sequence[SystemMetrics]) -> list[tuple[str, list[tuple[int, Roc]]]]:
    """(title of a plot, its curves with the number of their system) of each class that has a ROC curve."""
    plots: dict[str, list[tuple[int, Roc]]] = {}
    for i, system in enumerate(systems):
        for roc in system.rocs:
            plots.setdefault(f"{roc.name} ({roc.positives} positive)", []).append((i, roc))
    return list(plots.items())


def _reliability_panels(systems: Sequence[SystemMetrics]) -> list[str]:
    """One reliability plot per system: dashed as given, solid calibrated."""
    plots = []
    for i, system in enumerate(systems):
        lines = [
            PlotLine(
                f"{system.name}, {kind}",
                [b.predicted for b in metrics.reliability],
                [b.observed for b in metrics.reliability],
                Look(i).colour,
                dash=kind == "as given",
                dots=True,
            )
            for kind, metrics in _probability_metrics(system)
        ]
        plots.append(panel(system.name, lines, x_label="probability given", y_label="share that has it"))
    return plots


def _probability_metrics(system: SystemMetrics) -> list[tuple[str, ProbabilityMetrics]]:
    kinds = (("as given", system.probabilities), ("calibrated", system.calibrated))
    return [(kind, metrics) for kind, metrics in kinds if metrics is not None]


def _score_metrics(systems: Sequence[SystemMetrics]) -> MetricRows:
    """Rows of the metrics of probabilities, apart from the AUC."""
    rows: MetricRows = [
        ("Average precision, macro", [(s, s.average_precision or {}) for s in systems]),
        ("Fmax", [(s, s.fmax or {}) for s in systems]),
    ]
    for kind in ("as given", "calibrated"):
        metrics = [(s, m) for s in systems for name, m in _probability_metrics(s) if name == kind]
        if metrics:
            rows.append((f"Brier score, {kind}", [(s, m.brier) for s, m in metrics]))
            rows.append((f"Calibration error (ECE), {kind}", [(s, m.calibration_error) for s, m in metrics]))
    return rows


def _decision_metrics(systems: Sequence[SystemMetrics]) -> MetricRows:
    """Rows of the metrics of decisions at frozen thresholds."""
    metrics = [(s, s.thresholded) for s in systems if s.thresholded is not None]
    return [
        ("F1, macro", [(s, m.f1) for s, m in metrics]),
        ("Precision, macro", [(s, m.precision) for s, m in metrics]),
        ("Recall, macro", [(s, m.recall) for s, m in metrics]),
        ("Balanced accuracy, macro", [(s, m.balanced_accuracy) for s, m in metrics]),
        ("Hamming loss (share of wrong entries; lower is better)", [(s, m.hamming_loss) for s, m in metrics]),
        ("Exact match (share of records with every class right)", [(s, m.exact_match) for s, m in metrics]),
    ]


def _confusable_pairs(
    systems: Sequence[SystemMetrics],
) -> list[tuple[ConfusablePair, list[tuple[SystemMetrics, ConfusablePair | None]]]]:
    """The pairs that the first system separates worst, each with the figures of every system."""
    pairs = [{(pair.first, pair.second): pair for pair in system.neighbours} for system in systems]
    return [
        (
            worst,
            [
                (system, of_system.get((worst.first, worst.second)))
                for system, of_system in zip(systems, pairs, strict=True)
            ],
        )
        for worst in (systems[0].neighbours[:WORST_PAIRS] if systems else ())
    ]


def _statement_cell(report: Report, system: SystemMetrics, code: str) -> Interval | None:
    """A statement's AUC, without limits when they would rest on too few positives."""
    return _with_enough_positives(report, code, _cell(system.statement_auc, code))


def _precision_cell(report: Report, system: SystemMetrics, code: str) -> Interval | None:
    """A statement's average precision, likewise."""
    return _with_enough_positives(report, code, _cell(system.statement_precision, code))


def _with_enough_positives(report: Report, code: str, interval: Interval | None) -> Interval | None:
    if interval is None or report.positives[code] >= TOO_FEW_POSITIVES:
        return interval
    return Interval(interval.value, *[math.nan] * 4)


def _statement_rows(report: Report) -> list[tuple[str, str, Statement]]:
    """(group, code, statement) of every statement of which a system has an AUC: by group, then by number of positives.

    Not those that no record or every one has, nor those that no system scores.
    """
    scored = {code for system in report.systems for code in system.statement_auc or ()}
    rows = [(_group(s), code, s) for code, s in STATEMENTS.items() if code in scored]
    order = ["Rhythm", *_GROUPS.values(), "Form"]
    return sorted(rows, key=lambda row: (order.index(row[0]), -report.positives[row[1]], row[1]))


def _group(statement: Statement) -> str:
    return "Rhythm" if statement.rhythm else _GROUPS.get(statement.superclass, "Form")


def _short(name: str) -> str:
    """A statement's name without its article."""
    return name.removeprefix("an ").removeprefix("a ").replace("myocardial infarction", "MI")


def _sections(meta: Mapping[str, object]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Metadata as (section, [(key, text)]); values without a section form the first one."""
    plain = [(key, str(value)) for key, value in meta.items() if not isinstance(value, Mapping)]
    nested = [
        (key, [(str(k), str(v)) for k, v in value.items()]) for key, value in meta.items() if isinstance(value, Mapping)
    ]
    return ([("run", plain)] if plain else []) + nested


def _data_uri(png: bytes) -> str:
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("an example's image is not a PNG")
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
