"""The figures of an evaluation: every system on every task, with intervals and paired differences.

Everything is recomputed from kept scores, answers and labels; no model is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics import Bootstrap, Draws, Interval, TaskView, balanced_accuracy, draw, label_matrix, task_view
from eval.protocol import System
from eval.published import CAVEAT, PUBLISHED, Published
from render.files import InputError
from render.statements import STATEMENTS, TASKS

JSON_FORMAT = 1
"""Version of the layout of `report.json`."""


@dataclass(frozen=True)
class Evaluated:
    """The records that were judged, with their labels.

    statements: per record the codes that hold. dataset: where they come from, one line.
    noun: what one record is called in a sentence, in the plural.
    """

    record_ids: tuple[str, ...]
    statements: tuple[tuple[str, ...], ...]
    dataset: str
    noun: str = "held-out pages"

    def __post_init__(self) -> None:
        if not self.record_ids or len(self.record_ids) != len(self.statements):
            raise InputError(
                f"{self.dataset}: {len(self.record_ids)} records with {len(self.statements)} label sets; "
                "an evaluation needs at least one record and one label set for each"
            )


@dataclass(frozen=True)
class HardFigures:
    """Figures of yes/no decisions read from answers in words. Not comparable with any score metric.

    records: records with at least one answer; unparsed: share of answers in which no statement was found.
    balanced_accuracy: task -> mean of (sensitivity + specificity) / 2, NaN where undefined.
    """

    records: int
    answers: int
    unparsed: float
    balanced_accuracy: dict[str, float]


@dataclass(frozen=True)
class SystemFigures:
    """One system: task -> macro AUC, statement -> AUC (task "all"); None without scores."""

    name: str
    notes: str
    macro_auc: dict[str, Interval] | None
    statement_auc: dict[str, Interval] | None
    hard: HardFigures | None


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
    """All figures of an evaluation; what `report.json` holds."""

    title: str
    headline: str
    meaning: str
    dataset: str
    records: int
    positives: dict[str, int]
    tasks: dict[str, TaskFacts]
    systems: tuple[SystemFigures, ...]
    differences: tuple[Difference, ...]
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
    records: Evaluated,
    systems: Sequence[System],
    meta: Mapping[str, object],
    compare: Sequence[tuple[str, str]] = (),
    published: Sequence[Published] = PUBLISHED,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """The figures alone, nothing written. See `eval.report.write_report` for the arguments."""
    names = [system.name for system in systems]
    if len(set(names)) != len(names):
        raise InputError(f"systems {', '.join(names)}: two have one name; rename one")
    views = {task: task_view(records.statements, task) for task in TASKS}
    if not views["all"].kept.any():
        raise InputError(
            f"{records.dataset}: no record carries any of the {len(STATEMENTS)} statements; nothing to judge"
        )
    drawn = {
        system.name: _draws(system, records, views, resamples, seed) for system in systems if system.scores is not None
    }
    differences = tuple(_difference(pair, drawn) for pair in compare)
    figures = tuple(_system_figures(system, drawn.get(system.name), records) for system in systems)
    noun = f"{len(records.record_ids):,} {records.noun}"
    return Report(
        title=title,
        headline=headline(figures, differences, noun),
        meaning=_meaning(figures, differences),
        dataset=records.dataset,
        records=len(records.record_ids),
        positives={code: sum(code in codes for codes in records.statements) for code in STATEMENTS},
        tasks={task: _task_facts(view) for task, view in views.items()},
        systems=figures,
        differences=differences,
        published=tuple(published),
        published_caveat=CAVEAT,
        resamples=resamples,
        seed=seed,
        meta=dict(meta),
    )


def headline(systems: Sequence[SystemFigures], differences: Sequence[Difference], noun: str) -> str:
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


def _draws(
    system: System, records: Evaluated, views: Mapping[str, TaskView], resamples: int, seed: int
) -> dict[str, Draws]:
    assert system.scores is not None
    row = {record_id: i for i, record_id in enumerate(system.record_ids)}
    missing = [record_id for record_id in records.record_ids if record_id not in row]
    if missing:
        raise InputError(
            f"system {system.name!r}: no scores for {len(missing)} of {len(records.record_ids)} records, "
            f"{missing[0]!r} among them; score every record that is judged"
        )
    scores = system.scores[[row[record_id] for record_id in records.record_ids]]
    return {
        task: draw(view.labels, view.scores(scores), view.classes, resamples=resamples, seed=seed)
        for task, view in views.items()
        if view.kept.any()
    }


def _difference(pair: tuple[str, str], drawn: Mapping[str, Mapping[str, Draws]]) -> Difference:
    for name in pair:
        if name not in drawn:
            raise InputError(f"comparison {pair[0]!r} minus {pair[1]!r}: no system {name!r} with scores")
    first, second = drawn[pair[0]], drawn[pair[1]]
    return Difference(*pair, {task: first[task].minus(second[task]).summary().macro for task in first})


def _system_figures(system: System, drawn: Mapping[str, Draws] | None, records: Evaluated) -> SystemFigures:
    hard = _hard_figures(system, records) if system.answers else None
    if drawn is None:
        return SystemFigures(system.name, system.notes, None, None, hard)
    summaries: dict[str, Bootstrap] = {task: draws.summary() for task, draws in drawn.items()}
    macro = {task: summary.macro for task, summary in summaries.items()}
    return SystemFigures(system.name, system.notes, macro, summaries["all"].per_class, hard)


def _hard_figures(system: System, records: Evaluated) -> HardFigures:
    """Decisions per record: a statement is decided present when any answer of the record states it without doubt."""
    stated: dict[str, set[str]] = {}
    for answer in system.answers:
        stated.setdefault(answer.record_id, set()).update(answer.present)
    rows = [i for i, record_id in enumerate(records.record_ids) if record_id in stated]
    truth = [records.statements[i] for i in rows]
    decided = [stated[records.record_ids[i]] for i in rows]
    unparsed = sum(not (a.present or a.absent or a.uncertain) for a in system.answers) / len(system.answers)
    return HardFigures(
        records=len(rows),
        answers=len(system.answers),
        unparsed=unparsed,
        balanced_accuracy={task: _task_balanced_accuracy(truth, decided, task) for task in TASKS},
    )


def _task_balanced_accuracy(truth: Sequence[tuple[str, ...]], decided: Sequence[set[str]], task: str) -> float:
    view = task_view(truth, task)
    decisions: NDArray[np.bool_] = label_matrix(decided, task)[0][view.kept]
    return balanced_accuracy(view.labels, decisions)


def _task_facts(view: TaskView) -> TaskFacts:
    defined = np.asarray(view.labels.any(axis=0) & ~view.labels.all(axis=0))
    left_out = tuple(name for name, good in zip(view.classes, defined.tolist(), strict=True) if not good)
    return TaskFacts(int(view.kept.sum()), len(view.classes), left_out)


def _meaning(systems: Sequence[SystemFigures], differences: Sequence[Difference]) -> str:
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
