"""Write the report: `report.html` for people, `report.json` for programs, a table for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from eval.metrics.bootstrap import Interval
from eval.metrics.judge import Evaluation, Report, judge, plain
from eval.metrics.system_metrics import SystemMetrics
from eval.report.gallery import Example
from eval.report.html import missing_classes_text, report_html
from eval.types import TASK_LABELS
from render.io import atomic_write
from render.statements import LABEL_TASKS

NO_INTERVAL = Interval(*[math.nan] * 5)
"""The interval of a task without records."""


def write_report(
    out: Path, evaluation: Evaluation, *, examples: Sequence[Example] = (), resamples: int = 1000, seed: int = 0
) -> Report:
    """Judge an evaluation and write `out/report.html` and `out/report.json`; errors as of `judge`."""
    report = judge(evaluation, resamples=resamples, seed=seed)
    html = report_html(report, examples)
    gallery = [{k: v for k, v in asdict(example).items() if k != "image_png"} for example in examples]
    data = {**json.loads(report.to_json()), "examples": plain(gallery)}
    with atomic_write(out / "report.json") as path:
        path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    with atomic_write(out / "report.html") as path:
        path.write_text(html, encoding="utf-8")
    return report


def text_table(report: Report) -> str:
    """The headline and tables of systems and tasks for a terminal, plain text, at most 100 columns wide.

    Macro-AUC of the systems that give probabilities; F1, precision and recall of those that answer in words alone.
    """
    width = min(max([len(s.name) for s in report.systems] + [len("records (classes)")]), 34)
    lines = [report.headline, f"Judged on {report.records:,} records: {report.dataset}"]
    with_scores = [system for system in report.systems if system.macro_auc]
    if with_scores:
        lines += ["", "Macro-AUC, 95 % interval below (0.5 = chance, 1 = perfect)", "", table_header(width)]
    for system in with_scores:
        lines += interval_lines(system.name, system.macro_auc, width)
    for difference in report.differences:
        title = f"{difference.first} minus {difference.second}"
        lines += ["", title, *interval_lines("", difference.macro_auc, width, "+")]
    if report.controls:
        lines += ["", f"{report.systems[0].name} on altered pages"]
    for control in report.controls:
        lines += interval_lines(control.name, control.macro_auc, width)
    for system in report.systems:
        lines += _word_lines(system, width) if system.hard and not system.macro_auc else []
    for answers in report.answer_differences:
        title = f"{answers.first} minus {answers.second}, F1 of answers in words"
        lines += ["", title, *interval_lines("", answers.f1, width, "+")]
    sizes = [f"{facts.records} ({report.scored_classes(task)})" for task, facts in report.tasks.items()]
    lines += ["", f"{'records (classes)':<{width}}" + "".join(f"{size:>11}" for size in sizes)]
    for system in report.systems:
        if facts := system_facts(report, system):
            lines += ["", f"{system.name}: {'; '.join(facts)}"]
    lines += [f"\n! {line}" for line in report.warnings]
    return "\n".join(lines)


def system_facts(report: Report, system: SystemMetrics) -> list[str]:
    """What else there is to say of a system: its notes, tasks that lack a class, answers, refusals."""
    facts = [system.notes] if system.notes else []
    facts += [text] if (text := missing_classes_text(report, system)) else []
    if system.hard:
        share = f"{100 * system.hard.unparsed:.1f} %"
        facts.append(f"{system.hard.answers} answers about {system.hard.records} records; in {share} nothing was read")
    return facts + (list(system.refusals.lines()) if system.refusals else [])


def _word_lines(system: SystemMetrics, width: int) -> list[str]:
    """The figures of answers in words, one table a system."""
    assert system.hard is not None
    decisions = system.hard.decisions
    lines = ["", f"{system.name}, answers in words; 95 % interval below", "", table_header(width)]
    for name, figures in (("F1", decisions.f1), ("precision", decisions.precision), ("recall", decisions.recall)):
        lines += interval_lines(f"{name}, macro", figures, width)
    return lines


def table_header(width: int) -> str:
    """The header of a table of tasks; width: of the column of names."""
    return " " * width + "".join(f"{label:>11}" for label in TASK_LABELS.values())


def interval_lines(title: str, figures: Mapping[str, Interval] | None, width: int, sign: str = "") -> list[str]:
    """Two lines of a table of tasks: the values, and their 95 % limits; one line for a system without values."""
    if not figures:
        return [f"{title[:width]:<{width}}  answers in words only, no probabilities"]
    intervals = [figures.get(task, NO_INTERVAL) for task in LABEL_TASKS]
    return [
        f"{title[:width]:<{width}}" + "".join(f"{_number(i.value, sign):>11}" for i in intervals),
        " " * width + "".join(f"{_limits(i, sign):>11}" for i in intervals),
    ]


def _number(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.3f}"


def _limits(interval: Interval, sign: str = "") -> str:
    if math.isnan(interval.low95):
        return "-"
    low, high = (f"{v:{sign}.2f}".replace("0.", ".", 1) for v in (interval.low95, interval.high95))
    return f"{low}-{high}" if not sign else f"{low},{high}"
