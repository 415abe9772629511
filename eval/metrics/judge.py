"""From an evaluation to its report: every system on every task, with intervals, paired differences and controls.

Everything is computed from scores, answers and labels; no model is needed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from eval.metrics.answers import f1_differences
from eval.metrics.bootstrap import Interval, Rankings, Sampling
from eval.metrics.calibration import Calibration
from eval.metrics.controls import Control, ControlMetrics, control_metrics
from eval.metrics.published import PUBLISHED_CAVEAT, PUBLISHED_RESULTS, PublishedResult
from eval.metrics.system_metrics import SystemMetrics, bootstrap_tasks, macro_differences, system_metrics
from eval.types import TASK_LABELS, LabelledRecords, System, TaskView, task_view
from render.errors import InputError
from render.statements import LABEL_TASKS, STATEMENTS

JSON_FORMAT = 2
"""Version of the layout of `report.json`."""

TaskSamples = Mapping[str, Mapping[str, Rankings]]
"""System -> task -> bootstrap samples."""


@dataclass(frozen=True)
class Evaluation:
    """All that a report is computed from. The first system is compared with every other.

    Attributes:
        calibrations: system name -> its frozen calibration; calibrated figures and decisions are shown for these
            only.
        controls: the first system's scores on altered pages.
        contamination: one line per system: whether it was tuned on anything that is judged here.
        meta: section -> {key: value} or section -> value: versions, commit, data set ...
    """

    title: str
    records: LabelledRecords
    systems: tuple[System, ...]
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    contamination: tuple[str, ...] = ()
    meta: Mapping[str, object] = field(default_factory=dict)

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """Pairs of names, the first system and another, where both have scores; the first pair makes the headline."""
        names = [system.name for system in self.systems if system.has_scores]
        return [(names[0], name) for name in names[1:]] if names[:1] == [self.systems[0].name] else []


@dataclass(frozen=True)
class TaskFacts:
    """What all systems share in a task: records with a label, number of classes, classes without a defined AUC."""

    records: int
    classes: int
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Paired difference of macro AUC, `first` minus `second`, per task, over the classes that both score."""

    first: str
    second: str
    macro_auc: dict[str, Interval]


@dataclass(frozen=True)
class AnswerDifference:
    """Paired difference of the macro F1 of answers in words, `first` minus `second`, per task."""

    first: str
    second: str
    f1: dict[str, Interval]


@dataclass(frozen=True)
class Report:
    """All figures of an evaluation; the contents of `report.json`.

    Attributes:
        records_sha256: of the judged records and their labels: reports with the same digest judged the same
            records.
        checked: `Evaluation.contamination`.
        warnings: what makes figures too good, such as a calibration that was fitted on judged records, or a control
            that stays above chance.
        controls: of the first system.
        answer_differences: of the first system with answers in words to the others that answer about the same records.
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
    published: tuple[PublishedResult, ...]
    published_caveat: str
    resamples: int
    seed: int
    meta: dict[str, object]
    answer_differences: tuple[AnswerDifference, ...] = ()

    def scored_classes(self, task: str, *systems: SystemMetrics) -> int:
        """How many of the judged classes of a task all of these systems score."""
        facts = self.tasks[task]
        missing = {*facts.left_out}.union(*(system.missing_classes.get(task, ()) for system in systems))
        return facts.classes - len(missing)

    def to_json(self) -> str:
        """The report as JSON text; undefined figures are null."""
        return json.dumps(plain({"format": JSON_FORMAT, **asdict(self)}), ensure_ascii=False, indent=1) + "\n"


def judge(evaluation: Evaluation, *, resamples: int = 1000, seed: int = 0) -> Report:
    """All figures of an evaluation. resamples, seed: of the bootstrap.

    Raises:
        InputError: When two systems share a name, a system lacks a record, or no record has a label.
    """
    records, systems = evaluation.records, evaluation.systems
    _check_names(systems)
    views = {task: task_view(records.statements, task) for task in LABEL_TASKS}
    if not views["all"].has_label.any():
        raise InputError(
            f"{records.dataset}: no record has any of the {len(STATEMENTS)} statements, so there is nothing to judge; "
            "choose other records"
        )
    sampling = Sampling(resamples, seed)
    samples = {
        system.name: bootstrap_tasks(system.task_scores(records.record_ids), views, sampling)
        for system in systems
        if system.has_scores
    }
    differences = tuple(d for d in (_difference(pair, samples) for pair in evaluation.comparisons) if d.macro_auc)
    metrics = tuple(
        system_metrics(
            system, records, views, samples.get(system.name), evaluation.calibrations.get(system.name), sampling
        )
        for system in systems
    )
    controls = tuple(
        _control(control, systems[0], records, views, samples, sampling) for control in evaluation.controls
    )
    return Report(
        title=evaluation.title,
        headline=headline(metrics, differences, f"{len(records.record_ids):,} {records.noun}"),
        meaning=_meaning(metrics, differences),
        dataset=records.dataset,
        records=len(records.record_ids),
        records_sha256=_digest(records),
        positives={code: sum(code in codes for codes in records.statements) for code in STATEMENTS},
        tasks={task: _task_facts(view) for task, view in views.items()},
        systems=metrics,
        differences=differences,
        controls=controls,
        checked=evaluation.contamination,
        warnings=(*_overlap_warnings(evaluation.calibrations, records), *_control_warnings(controls)),
        published=PUBLISHED_RESULTS,
        published_caveat=PUBLISHED_CAVEAT,
        resamples=resamples,
        seed=seed,
        meta=dict(evaluation.meta),
        answer_differences=_answer_differences(systems, records, sampling),
    )


def headline(systems: Sequence[SystemMetrics], differences: Sequence[Difference], noun: str) -> str:
    """The result in one sentence; a difference whose 95 % interval contains zero is not reported as one."""
    if differences:
        pair = differences[0]
        name, d = _main_figure(pair.macro_auc)
        digits = 2 if abs(d.value) >= 0.05 else 3  # "0.01 better" may stand for 0.005 or for 0.015
        if d.low95 <= 0 <= d.high95 or math.isnan(d.low95):
            return (
                f"No difference between {pair.first} and {pair.second} can be shown on {noun}: "
                f"{d.value:+.{digits}f} {name}, 95 % interval {d.low95:+.{digits}f} to {d.high95:+.{digits}f}."
            )
        low, high = sorted((abs(d.low95), abs(d.high95)))
        verb = "beats" if d.value > 0 else "falls behind"
        return (
            f"{pair.first} {verb} {pair.second} by {abs(d.value):.{digits}f} {name} "
            f"(95 % interval {low:.{digits}f} to {high:.{digits}f}) on {noun}."
        )
    with_scores = [s for s in systems if s.macro_auc]
    if not with_scores:
        return _headline_of_words(systems, noun)
    best = max(with_scores, key=lambda s: _main_figure(s.macro_auc or {})[1].value)
    name, auc = _main_figure(best.macro_auc or {})
    return (
        f"{best.name} reaches a {name} of {auc.value:.2f} "
        f"(95 % interval {auc.low95:.2f} to {auc.high95:.2f}) on {noun}."
    )


def _main_figure(macro_auc: Mapping[str, Interval]) -> tuple[str, Interval]:
    """The macro AUC over all statements or, where a system does not score these, of its first task; and its name."""
    task, figure = next(iter(macro_auc.items()))
    return "macro-AUC" if task == "all" else f"macro-AUC ({TASK_LABELS[task]})", figure


def _headline_of_words(systems: Sequence[SystemMetrics], noun: str) -> str:
    """The best F1 of answers in words; `systems` have no scores."""
    figures = {s.name: s.hard.decisions.f1["all"] for s in systems if s.hard and "all" in s.hard.decisions.f1}
    figures = {name: f1 for name, f1 in figures.items() if not math.isnan(f1.value)}
    if not figures:
        return f"{len(systems)} systems answered in words on {noun}; none gave probabilities, so there is no AUC."
    name = max(figures, key=lambda key: figures[key].value)
    f1 = figures[name]
    return (
        f"{name}, which answers in words, reaches a macro-F1 of {f1.value:.2f} "
        f"(95 % interval {f1.low95:.2f} to {f1.high95:.2f}) on {noun}."
    )


def _check_names(systems: Sequence[System]) -> None:
    names = [system.name for system in systems]
    if not names:
        raise InputError("no system to judge; name a model or a file of scores")
    if len(set(names)) != len(names):
        raise InputError(f"systems {', '.join(names)}: two systems have the same name; rename one")


def _digest(records: LabelledRecords) -> str:
    rows = sorted((record, sorted(codes)) for record, codes in zip(records.record_ids, records.statements, strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _control(
    control: Control,
    system: System,
    records: LabelledRecords,
    views: Mapping[str, TaskView],
    samples: TaskSamples,
    sampling: Sampling,
) -> ControlMetrics:
    if system.name not in samples:
        raise InputError(f"control {control.name!r}: system {system.name!r} has no scores to compare with")
    return control_metrics(control, records, views, samples[system.name], sampling)


def _overlap_warnings(calibrations: Mapping[str, Calibration], records: LabelledRecords) -> tuple[str, ...]:
    lines = (calibration.overlap(records) for calibration in calibrations.values())
    return tuple(f"{line}; its calibrated figures are too good" for line in lines if line)


def _difference(pair: tuple[str, str], samples: TaskSamples) -> Difference:
    first, second = samples[pair[0]], samples[pair[1]]
    return Difference(*pair, macro_differences(first, second))


def _answer_differences(
    systems: Sequence[System], records: LabelledRecords, sampling: Sampling
) -> tuple[AnswerDifference, ...]:
    answering = [system for system in systems if system.answers]
    pairs = ((other, f1_differences(answering[0], other, records, sampling)) for other in answering[1:])
    return tuple(AnswerDifference(answering[0].name, other.name, f1) for other, f1 in pairs if f1)


def _control_warnings(controls: Sequence[ControlMetrics]) -> tuple[str, ...]:
    return tuple(
        f"control {c.name}: macro-AUC {c.macro_auc['all'].value:.3f} without any information on the page; "
        "part of the score comes from elsewhere"
        for c in controls
        if c.suspicious
    )


def _task_facts(view: TaskView) -> TaskFacts:
    is_defined = np.asarray(view.labels.any(axis=0) & ~view.labels.all(axis=0))
    left_out = tuple(name for name, good in zip(view.classes, is_defined.tolist(), strict=True) if not good)
    return TaskFacts(int(view.has_label.sum()), len(view.classes), left_out)


def _meaning(systems: Sequence[SystemMetrics], differences: Sequence[Difference]) -> str:
    """What the macro AUC says, in the words of the system that the headline is about."""
    values = {s.name: _main_figure(s.macro_auc)[1].value for s in systems if s.macro_auc}
    if not values:
        return ""
    name = differences[0].first if differences else max(values, key=lambda key: values[key])
    return (
        f"Shown one page with a statement and one without, {name} scores the right page higher about "
        f"{100 * values[name]:.0f} times in 100, averaged over the statements. Guessing would give 50."
    )


def plain(value: object) -> object:
    """The value in the types of JSON: NaN becomes null, an object of any other type its text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
