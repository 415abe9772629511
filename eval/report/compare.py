"""Reports side by side: one row per system, and paired differences between reports on exactly the same records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.metrics.bootstrap import Interval, Sampling
from eval.metrics.system_metrics import bootstrap_tasks, macro_differences
from eval.report.html import template
from eval.report.write import NO_INTERVAL, interval_lines, table_header
from eval.storage import REPORT, SCORES, read_evaluation, read_report
from eval.types import TASK_LABELS, task_view
from render.errors import InputError
from render.io import atomic_write
from render.statements import LABEL_TASKS

_REMAKE = "make the report again with: ecg-vlm evaluate --from"


@dataclass(frozen=True)
class ComparisonRow:
    """One system of one report.

    Attributes:
        macro_auc: task -> interval; empty for a system with answers in words only.
        f1: of answers in words, likewise; empty without any.
    """

    report: str
    system: str
    records: int
    macro_auc: dict[str, Interval]
    f1: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Paired difference of macro AUC between the first systems of two reports on the same records."""

    first: str
    second: str
    macro_auc: dict[str, Interval]


@dataclass(frozen=True)
class Comparison:
    """Reports side by side. groups: reports on the same records; figures are comparable within a group only."""

    rows: tuple[ComparisonRow, ...]
    groups: tuple[tuple[str, ...], ...]
    pairs: tuple[Pair, ...]

    @property
    def verdict(self) -> str:
        """Whether the figures may be compared, in one sentence."""
        if len(self.groups) == 1:
            return "All reports judged the same records with the same labels: the figures can be compared."
        sets = "; ".join(", ".join(group) for group in self.groups)
        return f"The reports judged different records ({sets}): their figures may differ because of the records."


def compare_reports(paths: Sequence[Path], *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Read the reports (folders, or their `report.json`) and compare them.

    Paired differences are computed again from the files of scores, for reports on the same records as the first.

    Raises:
        InputError: For fewer than two reports, or one that cannot be read.
    """
    if len(paths) < 2:
        raise InputError("compare: one report has nothing to be compared with; name at least two reports")
    folders = [path.parent if path.name == REPORT else path for path in paths]
    if len({folder.resolve() for folder in folders}) != len(folders):
        raise InputError(f"compare: {', '.join(map(str, paths))}: one report occurs twice; name each once")
    names = _names(folders)
    reports = [read_report(folder / REPORT) for folder in folders]
    rows, digests = [], []
    for name, folder, data in zip(names, folders, reports, strict=True):
        where = str(folder / REPORT)
        systems = _field(data, "systems", list, where)
        rows += [_row(name, system, _field(data, "records", int, where), where) for system in systems]
        digests.append(_field(data, "records_sha256", str, where))
    groups = tuple(tuple(n for n, d in zip(names, digests, strict=True) if d == one) for one in dict.fromkeys(digests))
    comparable = [(n, f) for n, f, d in zip(names, folders, digests, strict=True) if d == digests[0]]
    return Comparison(tuple(rows), groups, _pairs(comparable, Sampling(resamples, seed)))


def comparison_text(comparison: Comparison) -> str:
    """The comparison for a terminal: one line per system, macro AUC per task."""
    width = min(44, max(len(_title(row)) for row in comparison.rows))
    lines = [comparison.verdict, "", "Macro-AUC, 95 % interval below", ""]
    lines.append(table_header(width))
    for row in comparison.rows:
        lines += interval_lines(_title(row), row.macro_auc, width)
    if any(row.f1 for row in comparison.rows):
        lines += ["", "F1 of answers in words, macro, 95 % interval below", "", table_header(width)]
    for row in comparison.rows:
        lines += interval_lines(_title(row), row.f1, width) if row.f1 else []
    for pair in comparison.pairs:
        lines += ["", f"{pair.first} minus {pair.second}", *interval_lines("", pair.macro_auc, width, "+")]
    return "\n".join(lines)


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the comparison as one HTML page without external resources; all text from the reports is escaped."""
    html = template("compare.html.j2").render(
        comparison=comparison, tasks=LABEL_TASKS, labels=TASK_LABELS, no_interval=NO_INTERVAL
    )
    with atomic_write(path) as partial:
        partial.write_text(html, encoding="utf-8")


def _names(folders: Sequence[Path]) -> list[str]:
    """Folder names where these are unique, whole paths otherwise."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _pairs(comparable: Sequence[tuple[str, Path]], sampling: Sampling) -> tuple[Pair, ...]:
    with_scores = [(name, folder) for name, folder in comparable if (folder / SCORES).is_file()]
    if len(with_scores) < 2 or with_scores[0] != comparable[0]:
        return ()
    records = read_evaluation(with_scores[0][1] / SCORES).records
    views = {task: task_view(records.statements, task) for task in LABEL_TASKS}
    samples = {
        name: bootstrap_tasks(
            read_evaluation(folder / SCORES).systems[0].task_scores(records.record_ids), views, sampling
        )
        for name, folder in with_scores
    }
    (first, _), *others = with_scores
    return tuple(Pair(first, name, macro_differences(samples[first], samples[name])) for name, _ in others)


def _row(report: str, system: object, records: int, where: str) -> ComparisonRow:
    if not isinstance(system, dict):
        raise InputError(f"{where}: field 'systems' contains {system!r:.60}, expected objects; {_REMAKE}")
    name = _field(system, "name", str, where)
    hard = system.get("hard") or {}
    decisions = hard.get("decisions") if isinstance(hard, dict) else None
    f1 = decisions.get("f1") if isinstance(decisions, dict) else None
    return ComparisonRow(
        report,
        name,
        records,
        _intervals(system.get("macro_auc"), f"{where}: field 'macro_auc' of {name!r:.60}"),
        _intervals(f1, f"{where}: field 'f1' of {name!r:.60}"),
    )


def _intervals(figures: object, where: str) -> dict[str, Interval]:
    """Task -> interval, from the JSON; empty for null."""
    if not figures:
        return {}
    if not isinstance(figures, dict):
        raise InputError(f"{where} is not an object; {_REMAKE}")
    return {task: _interval(figures[task], where) for task in LABEL_TASKS if task in figures}


def _interval(value: object, where: str) -> Interval:
    names = ("value", "low90", "high90", "low95", "high95")
    numbers = [value.get(name) if isinstance(value, Mapping) else "" for name in names]
    if not all(n is None or (isinstance(n, int | float) and abs(n) <= 1) for n in numbers):
        raise InputError(f"{where} contains {value!r:.60}, expected an interval; {_REMAKE}")
    return Interval(*(float("nan") if n is None else float(n) for n in numbers))


def _field(data: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    if not isinstance(data.get(name), kind):
        raise InputError(f"{where}: field {name!r} is {data.get(name)!r:.60}, expected {kind.__name__}; {_REMAKE}")
    return data[name]


def _title(row: ComparisonRow) -> str:
    return f"{row.report}: {row.system}"
