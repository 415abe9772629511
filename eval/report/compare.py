"""Reports side by side: one row per system of each, and paired differences where the very same records were judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.evaluation import REPORT, SCORES, read_evaluation, read_report
from eval.metrics.ranking import Interval
from eval.metrics.system_metrics import Sampling, bootstrap_tasks
from eval.metrics.tasks import task_view
from eval.report.html import TASK_LABELS, template
from eval.report.write import heads, interval_lines
from render.errors import InputError
from render.io import atomic_write
from render.statements import LABEL_TASKS

_UNDEFINED = Interval(*[math.nan] * 5)


@dataclass(frozen=True)
class ComparisonRow:
    """One system of one report. macro_auc: task -> interval; empty for a system that answered in words only."""

    report: str
    system: str
    records: int
    macro_auc: dict[str, Interval]


@dataclass(frozen=True)
class Pair:
    """Paired difference of macro AUC between the first systems of two reports on the same records."""

    first: str
    second: str
    macro_auc: dict[str, Interval]


@dataclass(frozen=True)
class Comparison:
    """Reports side by side. groups: reports that judged the same records; figures compare within a group only."""

    rows: tuple[ComparisonRow, ...]
    groups: tuple[tuple[str, ...], ...]
    pairs: tuple[Pair, ...]

    @property
    def verdict(self) -> str:
        """Whether the figures may be compared, in one sentence."""
        if len(self.groups) == 1:
            return "All reports judged the same records with the same labels: the figures can be compared."
        sets = "; ".join(", ".join(group) for group in self.groups)
        return f"The reports judged different records ({sets}): what differs may be the records and not the systems."


def compare_reports(paths: Sequence[Path], *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Read the reports (folders, or their `report.json`) and compare them.

    Paired differences are drawn anew from the kept scores, for reports on the first one's records that have any.
    Raises InputError for fewer than two reports, or one that cannot be read.
    """
    if len(paths) < 2:
        raise InputError("compare: name at least two reports")
    folders = [path.parent if path.name == REPORT else path for path in paths]
    if len({folder.resolve() for folder in folders}) != len(folders):
        raise InputError(f"compare: {', '.join(map(str, paths))}: one report stands twice; name each once")
    names = _names(folders)
    found = [read_report(folder / REPORT) for folder in folders]
    rows, digests = [], []
    for name, folder, data in zip(names, folders, found, strict=True):
        where = str(folder / REPORT)
        systems = _field(data, "systems", list, where)
        rows += [_row(name, system, _field(data, "records", int, where), where) for system in systems]
        digests.append(_field(data, "records_sha256", str, where))
    groups = tuple(tuple(n for n, d in zip(names, digests, strict=True) if d == one) for one in dict.fromkeys(digests))
    alike = [(n, f) for n, f, d in zip(names, folders, digests, strict=True) if d == digests[0]]
    return Comparison(tuple(rows), groups, _pairs(alike, Sampling(resamples, seed)))


def comparison_text(comparison: Comparison) -> str:
    """The comparison for a terminal: one line per system, macro AUC per task."""
    wide = min(44, max(len(_title(row)) for row in comparison.rows))
    lines = [comparison.verdict, "", "Macro-AUC, 95 % interval below", ""]
    lines.append(heads(wide))
    for row in comparison.rows:
        lines += interval_lines(_title(row), row.macro_auc, wide)
    for pair in comparison.pairs:
        lines += ["", f"{pair.first} minus {pair.second}", *interval_lines("", pair.macro_auc, wide, "+")]
    return "\n".join(lines)


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the comparison as one HTML page that loads nothing; all words from the reports are escaped."""
    html = template("compare.html.j2").render(
        comparison=comparison, tasks=LABEL_TASKS, labels=TASK_LABELS, nothing=_UNDEFINED
    )
    with atomic_write(path) as partial:
        partial.write_text(html, encoding="utf-8")


def _names(folders: Sequence[Path]) -> list[str]:
    """Folder names where these tell the reports apart, whole paths otherwise."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _pairs(alike: Sequence[tuple[str, Path]], sampling: Sampling) -> tuple[Pair, ...]:
    kept = [(name, folder) for name, folder in alike if (folder / SCORES).is_file()]
    if len(kept) < 2 or kept[0] != alike[0]:
        return ()
    records = read_evaluation(kept[0][1] / SCORES).records
    views = {task: task_view(records.statements, task) for task in LABEL_TASKS}
    drawn = {
        name: bootstrap_tasks(
            read_evaluation(folder / SCORES).systems[0].scores_of(records.record_ids), views, sampling
        )
        for name, folder in kept
    }
    (first, _), *others = kept
    return tuple(
        Pair(first, name, {t: r.auc.minus(drawn[name][t].auc).summary().macro for t, r in drawn[first].items()})
        for name, _ in others
    )


def _row(report: str, system: object, records: int, where: str) -> ComparisonRow:
    if not isinstance(system, dict):
        raise InputError(f"{where}: field 'systems' holds {system!r:.60}, expected objects; make the report again")
    name = _field(system, "name", str, where)
    figures = system.get("macro_auc") or {}
    if not isinstance(figures, dict):
        raise InputError(f"{where}: field 'macro_auc' of {name!r:.60} is no object; make the report again")
    return ComparisonRow(
        report, name, records, {task: _interval(figures[task], where) for task in LABEL_TASKS if task in figures}
    )


def _interval(value: object, where: str) -> Interval:
    names = ("value", "low90", "high90", "low95", "high95")
    numbers = [value.get(name) if isinstance(value, Mapping) else "" for name in names]
    if not all(n is None or (isinstance(n, int | float) and abs(n) <= 1) for n in numbers):
        raise InputError(f"{where}: field 'macro_auc' holds {value!r:.60}, expected an interval; make the report again")
    return Interval(*(math.nan if n is None else float(n) for n in numbers))


def _field(data: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    if not isinstance(data.get(name), kind):
        raise InputError(
            f"{where}: field {name!r} is {data.get(name)!r:.60}, expected {kind.__name__}; "
            "make the report again with: ecg-vlm evaluate --from"
        )
    return data[name]


def _title(row: ComparisonRow) -> str:
    return f"{row.report}: {row.system}"
