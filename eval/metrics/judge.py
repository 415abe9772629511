"""The figures of an evaluation: every system on every task, with intervals, paired differences and controls.

Everything is recomputed from kept scores, answers and labels; no model is needed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from eval.controls import Control, ControlMetrics, control_metrics
from eval.metrics.calibration import Calibration
from eval.metrics.ranking import Interval, Rankings
from eval.metrics.system_metrics import Sampling, SystemMetrics, bootstrap_tasks, system_metrics
from eval.metrics.tasks import TaskView, task_view
from eval.report.published import CAVEAT, PUBLISHED, Published
from eval.types import LabelledRecords, System
from render.errors import InputError
from render.statements import LABEL_TASKS, STATEMENTS

JSON_FORMAT = 2
"""Version of the layout of `report.json`."""


@dataclass(frozen=True)
class TaskFacts:
    """What all systems share in a task: records with a label, classes in all, classes without a defined AUC."""

    records: int
    classes: int
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Paired difference of macro AUC, `first` minus `second`, per task."""

    first: str
    second: str
    macro_auc: dict[str, Interval]


@dataclass(frozen=True)
class Report:
    """All figures of an evaluation; what `report.json` holds.

    records_sha256: of the judged records and their labels: two reports with one digest judged the same.
    checked: one line per system: whether it was tuned on anything that is judged here. warnings: what makes figures
    flatter, such as a calibration fitted on judged records, or a control that stays above chance.
    controls: of the first system.
    """

    title: str
    headline: str
    meaning: str
    dataset: str
    records: int
    records_sha256: str
    positives: dict[str, int]
    tasks: dict[str, TaskFacts]
    systems: tuple[SystemMetrics, ...]
    differences: tuple[Difference, ...]
    controls: tuple[ControlMetrics, ...]
    checked: tuple[str, ...]
    warnings: tuple[str, ...]
    published: tuple[Published, ...]
    published_caveat: str
    resamples: int
    seed: int
    meta: dict[str, object]

    def to_json(self) -> str:
        """The report as JSON text; undefined figures are null."""
        return json.dumps(plain({"format": JSON_FORMAT, **asdict(self)}), ensure_ascii=False, indent=1) + "\n"


def judge(
    *,
    title: str,
    records: LabelledRecords,
    systems: Sequence[System],
    meta: Mapping[str, object],
    compare: Sequence[tuple[str, str]] = (),
    calibrations: Mapping[str, Calibration] | None = None,
    controls: Sequence[Control] = (),
    contamination: Sequence[str] = (),
    published: Sequence[Published] = PUBLISHED,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """The figures alone, nothing written. See `eval.report.write.write_report` for the arguments."""
    _check_names(systems)
    views = {task: task_view(records.statements, task) for task in LABEL_TASKS}
    if not views["all"].kept.any():
        raise InputError(
            f"{records.dataset}: no record carries any of the {len(STATEMENTS)} statements; nothing to judge"
        )
    sampling, frozen = Sampling(resamples, seed), calibrations or {}
    drawn = {
        system.name: bootstrap_tasks(system.scores_of(records.record_ids), views, sampling)
        for system in systems
        if system.scores is not None
    }
    differences = tuple(_difference(pair, drawn) for pair in compare)
    figures = tuple(
        system_metrics(system, records, views, drawn.get(system.name), frozen.get(system.name), sampling)
        for system in systems
    )
    altered = tuple(_control(control, systems, records, views, drawn, sampling) for control in controls)
    return Report(
        title=title,
        headline=headline(figures, differences, f"{len(records.record_ids):,} {records.noun}"),
        meaning=_meaning(figures, differences),
        dataset=records.dataset,
        records=len(records.record_ids),
        records_sha256=_digest(records),
        positives={code: sum(code in codes for codes in records.statements) for code in STATEMENTS},
        tasks={task: _task_facts(view) for task, view in views.items()},
        systems=figures,
        differences=differences,
        controls=altered,
        checked=tuple(contamination),
        warnings=(*_seen_in_fitting(frozen, records), *_not_looking(altered)),
        published=tuple(published),
        published_caveat=CAVEAT,
        resamples=resamples,
        seed=seed,
        meta=dict(meta),
    )


def headline(systems: Sequence[SystemMetrics], differences: Sequence[Difference], noun: str) -> str:
    """The result in one sentence; a difference whose 95 % interval holds zero is not called one."""
    if differences:
        pair, d = differences[0], differences[0].macro_auc["all"]
        digits = 2 if abs(d.value) >= 0.05 else 3  # "0.01 better" may hide a factor of two
        if d.low95 <= 0 <= d.high95 or math.isnan(d.low95):
            return (
                f"No difference between {pair.first} and {pair.second} can be shown on {noun}: "
                f"{d.value:+.{digits}f} macro-AUC, 95 % interval {d.low95:+.{digits}f} to {d.high95:+.{digits}f}."
            )
        low, high = sorted((abs(d.low95), abs(d.high95)))
        verb = "beats" if d.value > 0 else "falls behind"
        return (
            f"{pair.first} {verb} {pair.second} by {abs(d.value):.{digits}f} macro-AUC "
            f"(95 % interval {low:.{digits}f} to {high:.{digits}f}) on {noun}."
        )
    scored = [s for s in systems if s.macro_auc]
    if not scored:
        return f"{len(systems)} systems answered in words on {noun}; none gave probabilities, so there is no AUC."
    best = max(scored, key=lambda s: (s.macro_auc or {})["all"].value)
    auc = (best.macro_auc or {})["all"]
    return (
        f"{best.name} reaches a macro-AUC of {auc.value:.2f} "
        f"(95 % interval {auc.low95:.2f} to {auc.high95:.2f}) on {noun}."
    )


def _check_names(systems: Sequence[System]) -> None:
    names = [system.name for system in systems]
    if not names:
        raise InputError("no system to judge; name a model or a file of scores")
    if len(set(names)) != len(names):
        raise InputError(f"systems {', '.join(names)}: two have one name; rename one")


def _digest(records: LabelledRecords) -> str:
    rows = sorted((record, sorted(codes)) for record, codes in zip(records.record_ids, records.statements, strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _control(
    control: Control,
    systems: Sequence[System],
    records: LabelledRecords,
    views: Mapping[str, TaskView],
    drawn: Mapping[str, Mapping[str, Rankings]],
    sampling: Sampling,
) -> ControlMetrics:
    if systems[0].name not in drawn:
        raise InputError(f"control {control.name!r}: system {systems[0].name!r} gave no scores to compare with")
    return control_metrics(control, records, views, drawn[systems[0].name], sampling)


def _seen_in_fitting(calibrations: Mapping[str, Calibration], records: LabelledRecords) -> tuple[str, ...]:
    lines = (calibration.overlap(records) for calibration in calibrations.values())
    return tuple(f"{line}; its calibrated figures flatter" for line in lines if line)


def _difference(pair: tuple[str, str], drawn: Mapping[str, Mapping[str, Rankings]]) -> Difference:
    for name in pair:
        if name not in drawn:
            raise InputError(f"comparison {pair[0]!r} minus {pair[1]!r}: no system {name!r} with scores")
    first, second = drawn[pair[0]], drawn[pair[1]]
    return Difference(*pair, {task: first[task].auc.minus(second[task].auc).summary().macro for task in first})


def _not_looking(controls: Sequence[ControlMetrics]) -> tuple[str, ...]:
    return tuple(
        f"control {c.name}: macro-AUC {c.macro_auc['all'].value:.3f} with nothing to read on the page; "
        "part of the score comes from elsewhere"
        for c in controls
        if c.suspicious
    )


def _task_facts(view: TaskView) -> TaskFacts:
    defined = np.asarray(view.labels.any(axis=0) & ~view.labels.all(axis=0))
    left_out = tuple(name for name, good in zip(view.classes, defined.tolist(), strict=True) if not good)
    return TaskFacts(int(view.kept.sum()), len(view.classes), left_out)


def _meaning(systems: Sequence[SystemMetrics], differences: Sequence[Difference]) -> str:
    """What the macro AUC says, in the words of the system that the headline is about."""
    scored = {s.name: s.macro_auc["all"].value for s in systems if s.macro_auc}
    if not scored:
        return ""
    name = differences[0].first if differences else max(scored, key=lambda key: scored[key])
    return (
        f"Shown one page with a statement and one without, {name} scores the right page higher about "
        f"{100 * scored[name]:.0f} times in 100, averaged over the statements. Guessing would give 50."
    )


def plain(value: object) -> object:
    """The value in JSON's own types: NaN becomes null, anything unknown its text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
