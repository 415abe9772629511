"""Write the report: `report.html` for people, `report.json` for programs, a table for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from eval.controls import Control
from eval.metrics.calibration import Calibration
from eval.metrics.judge import Report, judge, plain
from eval.metrics.ranking import Interval
from eval.report.html import TASK_LABELS, Example, report_html
from eval.report.published import PUBLISHED, Published
from eval.types import LabelledRecords, System
from render.io import atomic_write
from render.statements import LABEL_TASKS

__all__ = ["Example", "LabelledRecords", "Report", "System", "text_table", "write_report"]


def write_report(
    out: Path,
    *,
    title: str,
    records: LabelledRecords,
    systems: Sequence[System],
    meta: Mapping[str, object],
    compare: Sequence[tuple[str, str]] = (),
    calibrations: Mapping[str, Calibration] | None = None,
    controls: Sequence[Control] = (),
    contamination: Sequence[str] = (),
    examples: Sequence[Example] = (),
    published: Sequence[Published] = PUBLISHED,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Judge `systems` on `records` and write `out/report.html` and `out/report.json`.

    compare: pairs (tuned, base) of system names whose difference is shown; the first makes the headline.
    calibrations: system name -> its frozen calibration; calibrated figures and decisions are shown for these only.
    controls: the first system's scores on altered pages. contamination: one line per system, see `Report`.
    meta: section -> {key: value} or section -> value: versions, seeds, commit, decoding, data set ...
    Raises InputError when a system lacks a record, or `compare` names a system that is not there.
    """
    report = judge(
        title=title,
        records=records,
        systems=systems,
        meta=meta,
        compare=compare,
        calibrations=calibrations,
        controls=controls,
        contamination=contamination,
        published=published,
        resamples=resamples,
        seed=seed,
    )
    html = report_html(report, examples)
    gallery = [{k: v for k, v in asdict(example).items() if k != "image_png"} for example in examples]
    data = {**json.loads(report.to_json()), "examples": plain(gallery)}
    with atomic_write(out / "report.json") as path:
        path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    with atomic_write(out / "report.html") as path:
        path.write_text(html, encoding="utf-8")
    return report


def text_table(report: Report) -> str:
    """The headline and the table systems x tasks for a terminal, plain text, at most 100 columns wide."""
    wide = min(max([len(s.name) for s in report.systems] + [len("records (classes)")]), 34)
    lines = [report.headline, "", "Macro-AUC, 95 % interval below (0.5 = chance, 1 = perfect)", "", heads(wide)]
    for system in report.systems:
        lines += interval_lines(system.name, system.macro_auc, wide)
    for difference in report.differences:
        title = f"{difference.first} minus {difference.second}"
        lines += ["", title, *interval_lines("", difference.macro_auc, wide, "+")]
    if report.controls:
        lines += ["", f"{report.systems[0].name} on altered pages"]
    for control in report.controls:
        lines += interval_lines(control.name, control.macro_auc, wide)
    sizes = [f"{t.records} ({t.classes - len(t.left_out)})" for t in report.tasks.values()]
    lines += ["", f"{'records (classes)':<{wide}}" + "".join(f"{size:>11}" for size in sizes)]
    for system in report.systems:
        if system.refusals:
            lines += ["", f"{system.name}: {'; '.join(system.refusals.lines())}"]
    lines += [f"\n! {line}" for line in report.warnings]
    return "\n".join(lines)


def heads(wide: int) -> str:
    """The heading of a table of tasks; wide: columns of the names."""
    return " " * wide + "".join(f"{label:>11}" for label in TASK_LABELS.values())


def interval_lines(title: str, figures: Mapping[str, Interval] | None, wide: int, sign: str = "") -> list[str]:
    """Two lines of a table of tasks: the values, and their 95 % limits; one for a system without any."""
    if not figures:
        return [f"{title[:wide]:<{wide}}  answers in words only, no probabilities"]
    nothing = Interval(*[math.nan] * 5)
    intervals = [figures.get(task, nothing) for task in LABEL_TASKS]
    return [
        f"{title[:wide]:<{wide}}" + "".join(f"{_three(i.value, sign):>11}" for i in intervals),
        " " * wide + "".join(f"{_span(i, sign):>11}" for i in intervals),
    ]


def _three(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.3f}"


def _span(interval: Interval, sign: str = "") -> str:
    if math.isnan(interval.low95):
        return "-"
    low, high = (f"{v:{sign}.2f}".replace("0.", ".", 1) for v in (interval.low95, interval.high95))
    return f"{low}-{high}" if not sign else f"{low},{high}"
