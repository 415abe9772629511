"""The report as one HTML page that loads nothing: figures, charts, example pages and metadata inside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import shorten
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from eval.metrics.ecgbench import NAME as ECGBENCH
from eval.metrics.judge import Report
from eval.metrics.ranking import Interval
from eval.metrics.system_metrics import SystemMetrics
from eval.report.interval_charts import IntervalRow, axis_low, interval_chart, legend_mark
from eval.report.sections import (
    BARE,
    confusable_pair_rows,
    decision_metrics,
    reliability_panels,
    roc_panels,
    score_metrics,
)
from render.statements import LABEL_TASKS, STATEMENTS, Statement

FEW_POSITIVES = 10
"""Below this number of positives a statement's AUC is drawn pale."""
TOO_FEW_POSITIVES = 3
"""Below this number no interval is shown: resampling one or two positives says next to nothing about others, and
the bootstrap interval comes out far too narrow."""

TASK_LABELS = {
    "all": "all",
    "diagnostic": "diagnostic",
    "subdiagnostic": "subclass",
    "superdiagnostic": "superclass",
    "form": "form",
    "rhythm": "rhythm",
}
"""Task -> the short word that tables use."""

_GROUPS = {
    "NORM": "Normal",
    "MI": "Infarction and injury",
    "STTC": "ST-T changes and ischemia",
    "CD": "Conduction",
    "HYP": "Hypertrophy and enlargement",
}


@dataclass(frozen=True)
class Example:
    """One page of the gallery: a PNG, a question, (system, answer) pairs, the true statements, and why it is shown."""

    image_png: bytes
    question: str
    answers: tuple[tuple[str, str], ...]
    statements: tuple[str, ...]
    record_id: str = ""
    why: str = ""


def template(name: str, **filters: Callable[..., Any]) -> Template:
    """A page's template, escaping all it is given; filters: beside those for numbers."""
    environment = Environment(
        loader=PackageLoader("eval.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(three=three, signed=signed, span=span, **filters)
    return environment.get_template(name)


def report_html(report: Report, examples: Sequence[Example] = ()) -> str:
    """The whole page as text. All words from outside (answers, names, metadata) are escaped."""
    scored = [system for system in report.systems if system.macro_auc]
    mark_of = {system.name: Markup(legend_mark(i)) for i, system in enumerate(scored)}
    costs = [system for system in report.systems if system.cost]
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "cell": _cell,
        "direction": _direction,
        "state": _state,
    }
    return template("report.html.j2", **filters).render(
        report=report,
        scored=scored,
        decided=[system for system in scored if system.thresholded],
        mark_of=mark_of,
        spoken=[system for system in report.systems if system.hard],
        tasks=LABEL_TASKS,
        labels=TASK_LABELS,
        ecgbench=ECGBENCH,
        names={code: statement.name for code, statement in STATEMENTS.items()},
        task_chart=Markup(_task_chart(report, scored)),
        statement_chart=Markup(_statement_chart(report, scored)),
        roc_panels=[Markup(svg) for svg in roc_panels(scored)],
        reliability_panels=[Markup(svg) for svg in reliability_panels(scored)],
        score_metrics=score_metrics(scored),
        without_interval=BARE,
        decision_metrics=decision_metrics(scored),
        confusable_pair_rows=confusable_pair_rows(scored),
        statement_rows=_statement_rows(report),
        few=FEW_POSITIVES,
        too_few=TOO_FEW_POSITIVES,
        statement_cell=partial(_statement_cell, report),
        precision_cell=partial(_precision_cell, report),
        costs=costs,
        cost_keys=list(dict.fromkeys(key for system in costs for key in system.cost)),
        meta=_sections(report.meta),
        examples=[(example, _data_uri(example.image_png)) for example in examples],
    )


def three(value: float | None) -> str:
    """Three decimals, or a dash for an undefined figure."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Three decimals with a sign (a true minus), or a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:+.3f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share in whole per cent, or a dash."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def span(interval: Interval | None, show_sign: bool = False) -> str:
    """The 95 % limits in words: "0.71 to 0.83"; a third digit for small figures; empty when undefined."""
    if interval is None or math.isnan(interval.low95):
        return ""
    digits = 3 if not show_sign and interval.high95 < 0.2 else 2
    sign = "+" if show_sign else ""
    low, high = (f"{v:{sign}.{digits}f}" for v in (interval.low95, interval.high95))
    return f"{low} to {high}".replace("-", "−")


def _cell(figures: Mapping[str, Interval] | None, key: str) -> Interval | None:
    return None if figures is None else figures.get(key)


def _direction(interval: Interval | None) -> str:
    """Style class of a difference: up or down only when the 95 % interval leaves zero out."""
    if interval is None or math.isnan(interval.low95):
        return ""
    return "up" if interval.low95 > 0 else "down" if interval.high95 < 0 else ""


def _state(line: str) -> str:
    """Style class of a line about contamination."""
    return "bad" if line.startswith("WARNING") else "open" if "not checked" in line else "fine"


def _task_chart(report: Report, scored: Sequence[SystemMetrics]) -> str:
    rows = [
        IntervalRow(
            TASK_LABELS[task],
            f"{facts.classes - len(facts.left_out)} classes",
            str(facts.records),
            tuple(_cell(system.macro_auc, task) for system in scored),
        )
        for task, facts in report.tasks.items()
    ]
    low = axis_low([value for row in rows for value in row.values])
    title = "Macro-AUC of each system on each task"
    return interval_chart(rows, [s.name for s in scored], low=low, high=1.0, title=title, counted="records")


def _statement_chart(report: Report, scored: Sequence[SystemMetrics]) -> str:
    rows = [
        IntervalRow(
            code,
            _short(statement.name),
            str(report.positives[code]),
            tuple(_statement_cell(report, system, code) for system in scored),
            group,
            faint=report.positives[code] < FEW_POSITIVES,
        )
        for group, code, statement in _statement_rows(report)
    ]
    title = "AUC of each statement for each system"
    return interval_chart(rows, [s.name for s in scored], low=0.0, high=1.0, title=title, counted="positives")


def _statement_cell(report: Report, system: SystemMetrics, code: str) -> Interval | None:
    """A statement's AUC, without limits when too few positives stand behind them."""
    return _sure(report, code, _cell(system.statement_auc, code))


def _precision_cell(report: Report, system: SystemMetrics, code: str) -> Interval | None:
    """A statement's average precision, likewise."""
    return _sure(report, code, _cell(system.statement_precision, code))


def _sure(report: Report, code: str, interval: Interval | None) -> Interval | None:
    if interval is None or report.positives[code] >= TOO_FEW_POSITIVES:
        return interval
    return Interval(interval.value, *[math.nan] * 4)


def _statement_rows(report: Report) -> list[tuple[str, str, Statement]]:
    """(group, code, statement) of every statement with a defined AUC: by group, then by number of positives."""
    left_out = set(report.tasks["all"].left_out)
    chosen = [(_group(s), code, s) for code, s in STATEMENTS.items() if code not in left_out]
    order = ["Rhythm", *_GROUPS.values(), "Form"]
    return sorted(chosen, key=lambda row: (order.index(row[0]), -report.positives[row[1]], row[1]))


def _group(statement: Statement) -> str:
    return "Rhythm" if statement.rhythm else _GROUPS.get(statement.superclass, "Form")


def _short(name: str) -> str:
    """A statement's name without its article, cut at a word where it would run into the chart."""
    words = name.removeprefix("an ").removeprefix("a ").replace("myocardial infarction", "MI")
    return shorten(words, 34, placeholder=" …")


def _sections(meta: Mapping[str, object]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Metadata as (section, [(key, text)]); plain values gather in a first section."""
    plain = [(key, str(value)) for key, value in meta.items() if not isinstance(value, Mapping)]
    nested = [
        (key, [(str(k), str(v)) for k, v in value.items()]) for key, value in meta.items() if isinstance(value, Mapping)
    ]
    return ([("run", plain)] if plain else []) + nested


def _data_uri(png: bytes) -> str:
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("an example's image is not a PNG")
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
