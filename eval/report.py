"""Write the report: `report.html` for people, `report.json` for programs, a table for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from eval.judge import Evaluated, Report, judge, plain
from eval.metrics import Interval
from eval.page import TASK_LABELS, Example, report_html
from eval.protocol import System
from eval.published import PUBLISHED, Published
from render.files import whole_file
from render.statements import TASKS

__all__ = ["Evaluated", "Example", "Report", "System", "text_table", "write_report"]


def write_report(
    out: Path,
    *,
    title: str,
    records: Evaluated,
    systems: Sequence[System],
    meta: Mapping[str, object],
    compare: Sequence[tuple[str, str]] = (),
    examples: Sequence[Example] = (),
    published: Sequence[Published] = PUBLISHED,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Judge `systems` on `records` and write `out/report.html` and `out/report.json`.

    compare: pairs (tuned, base) of system names whose difference is shown; the first makes the headline.
    meta: section -> {key: value} or section -> value: versions, seeds, commit, decoding, data set ...
    Raises InputError when a system lacks a record, or `compare` names a system that is not there.
    """
    report = judge(
        title=title,
        records=records,
        systems=systems,
        meta=meta,
        compare=compare,
        published=published,
        resamples=resamples,
        seed=seed,
    )
    html = report_html(report, examples)
    gallery = [{k: v for k, v in asdict(example).items() if k != "image_png"} for example in examples]
    data = {**json.loads(report.to_json()), "examples": plain(gallery)}
    with whole_file(out / "report.json") as path:
        path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    with whole_file(out / "report.html") as path:
        path.write_text(html, encoding="utf-8")
    return report


def text_table(report: Report) -> str:
    """The headline and the table systems x tasks for a terminal, plain text, at most 100 columns wide."""
    wide = max([len(s.name) for s in report.systems] + [len("records (classes)")])
    wide = min(wide, 34)
    lines = [report.headline, "", "Macro-AUC, 95 % interval below (0.5 = chance, 1 = perfect)", ""]
    lines.append(" " * wide + "".join(f"{label:>11}" for label in TASK_LABELS.values()))
    for system in report.systems:
        if system.macro_auc is None:
            lines.append(f"{system.name[:wide]:<{wide}}  answers in words only, no probabilities")
            continue
        lines.append(
            f"{system.name[:wide]:<{wide}}" + "".join(f"{_three(i.value):>11}" for i in _by_task(system.macro_auc))
        )
        lines.append(" " * wide + "".join(f"{_span(i):>11}" for i in _by_task(system.macro_auc)))
    for difference in report.differences:
        lines += ["", f"{difference.first} minus {difference.second}"]
        lines.append(" " * wide + "".join(f"{_three(i.value, '+'):>11}" for i in _by_task(difference.macro_auc)))
        lines.append(" " * wide + "".join(f"{_span(i, '+'):>11}" for i in _by_task(difference.macro_auc)))
    sizes = [f"{t.records} ({t.classes - len(t.left_out)})" for t in report.tasks.values()]
    lines += ["", f"{'records (classes)':<{wide}}" + "".join(f"{size:>11}" for size in sizes)]
    return "\n".join(lines)


def _by_task(figures: Mapping[str, Interval]) -> list[Interval]:
    nothing = Interval(*[math.nan] * 5)
    return [figures.get(task, nothing) for task in TASKS]


def _three(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.3f}"


def _span(interval: Interval, sign: str = "") -> str:
    if math.isnan(interval.low95):
        return "-"
    low, high = (f"{v:{sign}.2f}".replace("0.", ".", 1) for v in (interval.low95, interval.high95))
    return f"{low}-{high}" if not sign else f"{low},{high}"
