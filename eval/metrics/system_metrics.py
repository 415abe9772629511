"""The figures of one system: from probabilities, from decisions at frozen thresholds, from answers in words.

Three kinds of number, three classes: nothing made from decisions shares a class, a column or a table with anything made
from probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from eval.metrics.answers import (
    AnswerMetrics,
    DecisionMetrics,
    RefusalMetrics,
    answer_metrics,
    decision_metrics,
    macro_intervals,
    refusal_metrics,
)
from eval.metrics.bootstrap import (
    Bin,
    Interval,
    Rankings,
    Sampling,
    bootstrap_brier,
    bootstrap_fmax,
    bootstrap_rankings,
    calibration_error,
    reliability,
    roc_auc,
)
from eval.metrics.calibration import Calibration, codes_above_thresholds
from eval.types import Bools, Floats, LabelledRecords, System, TaskView, label_matrix, task_view
from render.dialogues.compose import related_statements
from render.statements import STATEMENTS

_ROC_POINTS = 80
_ROC_CLASSES = 6
_MIN_RECORDS_OF_PAIR = 5


@dataclass(frozen=True)
class ProbabilityMetrics:
    """How well probabilities are calibrated: task -> Brier score and calibration error, means over classes.

    Attributes:
        reliability: the curve over all 71 statements, or over the classes of a system that scores only these.
    """

    brier: dict[str, Interval]
    calibration_error: dict[str, float]
    reliability: tuple[Bin, ...]


@dataclass(frozen=True)
class Roc:
    """The ROC curve of one class: false and true positive rates from (0, 0) to (1, 1)."""

    name: str
    positives: int
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True)
class ConfusablePair:
    """Two statements that are easily taken for each other (`render/dialogues/confusable.csv`).

    Attributes:
        first_only: number of records with one and not the other; only these count here.
        second_only: number of records with one and not the other; only these count here.
        told_apart: ROC AUC of the difference of log-odds for first against second; 0.5 is chance, below it the two
            are swapped.
        first_swapped: share of the records for which, at the frozen thresholds, the other statement was called and
            the right one was not; None without thresholds.
        second_swapped: share of the records for which, at the frozen thresholds, the other statement was called and
            the right one was not; None without thresholds.
    """

    first: str
    second: str
    first_only: int
    second_only: int
    told_apart: float
    first_swapped: float | None
    second_swapped: float | None


@dataclass(frozen=True)
class SystemMetrics:
    """One system. All but `hard`, `refusals`, `notes` and `cost` come from its probabilities; None or empty without.

    Attributes:
        training: what it was trained on, in a sentence; "" where that is not known.
        missing_classes: task -> the classes for which it gives no probability, where it gives some; means are over the
            others.
        macro_auc: per task.
        average_precision: per task.
        fmax: per task.
        statement_auc: per statement (task "all").
        statement_precision: per statement (task "all").
        probabilities: of the scores as given.
        calibrated: of the calibrated ones, thresholded: decisions at the frozen thresholds, calibration: what they
            were fitted on; None without a calibration.
        hard: of the answers in words.
        neighbours: confusable pairs.
        refusals: None without answers.
    """

    name: str
    notes: str
    cost: dict[str, object]
    macro_auc: dict[str, Interval] | None = None
    statement_auc: dict[str, Interval] | None = None
    average_precision: dict[str, Interval] | None = None
    statement_precision: dict[str, Interval] | None = None
    fmax: dict[str, Interval] | None = None
    probabilities: ProbabilityMetrics | None = None
    calibrated: ProbabilityMetrics | None = None
    thresholded: DecisionMetrics | None = None
    calibration: dict[str, object] | None = None
    rocs: tuple[Roc, ...] = ()
    neighbours: tuple[ConfusablePair, ...] = ()
    hard: AnswerMetrics | None = None
    refusals: RefusalMetrics | None = None
    missing_classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    training: str = ""


def bootstrap_tasks(
    scores: Mapping[str, Floats], views: Mapping[str, TaskView], sampling: Sampling
) -> dict[str, Rankings]:
    """Task -> samples of AUC and average precision, for every task that has scores and a record.

    scores: task -> (n, c), as of `System.task_scores`.
    """
    return {
        task: bootstrap_rankings(
            view.labels, scores[task][view.has_label], view.classes, resamples=sampling.resamples, seed=sampling.seed
        )
        for task, view in views.items()
        if task in scores and view.has_label.any()
    }


def macro_differences(first: Mapping[str, Rankings], second: Mapping[str, Rankings]) -> dict[str, Interval]:
    """Task -> paired difference of macro AUC, over the classes that both score."""
    differences = {task: of_task.auc.minus(second[task].auc) for task, of_task in first.items() if task in second}
    return {task: difference.summary().macro for task, difference in differences.items()}


def system_metrics(
    system: System,
    records: LabelledRecords,
    views: Mapping[str, TaskView],
    rankings: Mapping[str, Rankings] | None,
    calibration: Calibration | None,
    sampling: Sampling,
) -> SystemMetrics:
    """All figures of one system. rankings: of `bootstrap_tasks`, None for a system without scores."""
    answers, refusals = answer_metrics(system, records, sampling), refusal_metrics(system)
    cost = dict(system.cost)
    if rankings is None:
        return SystemMetrics(system.name, system.notes, cost, hard=answers, refusals=refusals, training=system.training)
    scores = system.task_scores(records.record_ids)
    missing_classes = {
        task: tuple(name for name, i in zip(views[task].classes, np.isnan(s[0]), strict=True) if i)
        for task, s in scores.items()
    }
    metrics = SystemMetrics(
        system.name,
        system.notes,
        cost,
        macro_auc=macro_intervals({task: r.auc for task, r in rankings.items()}),
        average_precision=macro_intervals({task: r.average_precision for task, r in rankings.items()}, recentre=True),
        fmax=_fmax(scores, views, sampling),
        probabilities=_probability_metrics(scores, views, sampling),
        rocs=rocs(records.statements, scores),
        hard=answers,
        refusals=refusals,
        training=system.training,
        missing_classes={task: names for task, names in missing_classes.items() if names},
    )
    return (
        metrics
        if system.scores is None
        else _with_statements(metrics, system, records, rankings, calibration, views, sampling)
    )


def _with_statements(
    metrics: SystemMetrics,
    system: System,
    records: LabelledRecords,
    rankings: Mapping[str, Rankings],
    calibration: Calibration | None,
    views: Mapping[str, TaskView],
    sampling: Sampling,
) -> SystemMetrics:
    """The figures with those added that need scores of single statements."""
    scores = system.scores_of(records.record_ids)
    decisions = None if calibration is None else calibration.decide(scores)
    metrics = replace(
        metrics,
        statement_auc=rankings["all"].auc.summary().per_class,
        statement_precision=rankings["all"].average_precision.summary(recentre=True).per_class,
        neighbours=confusable_pairs(records.statements, scores, decisions),
    )
    if calibration is None or decisions is None:
        return metrics
    calibrated = replace(system, scores=calibration.apply(scores), record_ids=records.record_ids)
    return replace(
        metrics,
        calibrated=_probability_metrics(calibrated.task_scores(records.record_ids), views, sampling),
        thresholded=decision_metrics(
            records.statements, codes_above_thresholds(decisions), sampling, metrics.missing_classes
        ),
        calibration=calibration.summary(),
    )


def _fmax(scores: Mapping[str, Floats], views: Mapping[str, TaskView], sampling: Sampling) -> dict[str, Interval]:
    return macro_intervals(
        {
            task: bootstrap_fmax(
                view.labels, scores[task][view.has_label], resamples=sampling.resamples, seed=sampling.seed
            )
            for task, view in views.items()
            if task in scores and view.has_label.any()
        }
    )


def _probability_metrics(
    scores: Mapping[str, Floats], views: Mapping[str, TaskView], sampling: Sampling
) -> ProbabilityMetrics:
    brier, error = {}, {}
    for task, view in views.items():
        if task not in scores or not view.has_label.any():
            continue
        of_task = scores[task][view.has_label]
        samples = bootstrap_brier(view.labels, of_task, view.classes, resamples=sampling.resamples, seed=sampling.seed)
        brier[task] = samples.summary().macro
        is_defined = np.isfinite(samples.point)
        errors = calibration_error(view.labels, of_task)[is_defined]
        error[task] = float(errors.mean()) if len(errors) else float("nan")
    every = views[next(iter(brier))]
    return ProbabilityMetrics(brier, error, reliability(every.labels, scores[every.task][every.has_label]))


# --- single classes


def rocs(statement_sets: Sequence[Sequence[str]], scores: Mapping[str, Floats]) -> tuple[Roc, ...]:
    """The curves of those of `curve_classes` that have scores. scores: task -> (n, c), as of `System.task_scores`."""
    curves = []
    for task, name in curve_classes(statement_sets):
        view = task_view(statement_sets, task)
        column = view.classes.index(name)
        if task in scores and not np.isnan(scores[task][:, column]).any():
            of_class = scores[task][view.has_label, column]
            curves.append(roc_points(view.labels[:, column], of_class, name))
    return tuple(curves)


def curve_classes(statement_sets: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Up to six (task, class) whose curves are shown: the superclasses first, then the commonest statements."""
    superclasses = [
        ("superdiagnostic", name) for name in _with_both_kinds(task_view(statement_sets, "superdiagnostic"))
    ]
    view = task_view(statement_sets, "all")
    count = dict(zip(view.classes, view.labels.sum(axis=0).tolist(), strict=True))
    # Half of the records at most: of the commonest statement of all, sinus rhythm, the absence is the finding.
    common = [code for code in _with_both_kinds(view) if count[code] <= len(view.labels) / 2 and code != "NORM"]
    common.sort(key=lambda code: (not STATEMENTS[code].rhythm, -count[code]))
    return (superclasses + [("all", code) for code in common])[:_ROC_CLASSES]


def roc_points(labels: Bools, scores: NDArray[np.floating], name: str = "") -> Roc:
    """The ROC curve of labels (n,) and scores (n,), ties as one slanted step, reduced to some 80 points for plots."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(labels[order])[ends]
    rates = np.stack([(ends + 1 - hits) / max(1, (~labels).sum()), hits / max(1, labels.sum())])
    rates = np.concatenate([np.zeros((2, 1)), rates], axis=1)
    points = np.unique(np.linspace(0, rates.shape[1] - 1, _ROC_POINTS).round().astype(int))
    false, true = (tuple(round(float(v), 5) for v in row[points]) for row in rates)
    return Roc(name, int(labels.sum()), false, true)


def confusable_pairs(
    statement_sets: Sequence[Sequence[str]], scores: Floats, decisions: Bools | None = None
) -> tuple[ConfusablePair, ...]:
    """How well (n, 71) scores tell similar statements apart, worst pair first; five records on either side at least.

    Args:
        decisions: (n, 71) at the frozen thresholds, where there are any.
    """
    labels, codes = label_matrix(statement_sets, "all")
    column = {code: i for i, code in enumerate(codes)}
    inside = np.clip(scores, 1e-7, 1 - 1e-7)
    odds = np.log(inside) - np.log1p(-inside)
    neighbours = sorted(
        {tuple(sorted((code, other))) for code, others in related_statements("near").items() for other in others}
    )
    pairs = []
    for first, second in neighbours:
        i, j = column[first], column[second]
        one, other = labels[:, i] & ~labels[:, j], labels[:, j] & ~labels[:, i]
        if np.isnan(odds[:, [i, j]]).any() or min(one.sum(), other.sum()) < _MIN_RECORDS_OF_PAIR:
            continue
        either = one | other
        auc = roc_auc(one[either], (odds[:, i] - odds[:, j])[either])
        swaps = [_swap_share(decisions, one, i, j), _swap_share(decisions, other, j, i)]
        pairs.append(ConfusablePair(first, second, int(one.sum()), int(other.sum()), auc, *swaps))
    return tuple(sorted(pairs, key=lambda pair: (pair.told_apart, pair.first, pair.second)))


def _swap_share(decisions: Bools | None, rows: Bools, right: int, wrong: int) -> float | None:
    """Share of the rows for which column `wrong` was called and `right` was not."""
    return None if decisions is None else float((decisions[rows, wrong] & ~decisions[rows, right]).mean())


def _with_both_kinds(view: TaskView) -> list[str]:
    """Classes with a positive and a negative record."""
    count = view.labels.sum(axis=0)
    return [name for name, positives in zip(view.classes, count, strict=True) if 0 < positives < len(view.labels)]
