"""Score metrics with intervals: macro ROC AUC for the six label tasks of the PTB-XL benchmark.

Two kinds of number live here and never share a column: *score* metrics (`macro_auc`) judge probabilities,
*hard* metrics (`balanced_accuracy`) judge yes/no decisions. A "ROC AUC" computed on 0/1 decisions is balanced
accuracy under a wrong name: the same CNN has .928 by its scores and .842 by its decisions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.statements import task_classes, task_labels

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Resamples are worked off in blocks of this many, so that 20,000 records need some 30 MB and not gigabytes.
_BLOCK = 128


@dataclass(frozen=True)
class MacroAuc:
    """Mean of the per-class ROC AUC over the classes where it is defined.

    value: the mean, NaN when no class is defined.
    per_class: class -> ROC AUC, defined classes only.
    left_out: classes without a positive or without a negative record; they do not enter the mean.
    """

    value: float
    per_class: dict[str, float]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile bootstrap intervals; `low95`/`high95` are the 2.5 and 97.5 % quantiles."""

    value: float
    low90: float
    high90: float
    low95: float
    high95: float


@dataclass(frozen=True)
class Bootstrap:
    """Macro AUC and per-class AUCs of one system (or of the difference of two) with intervals."""

    macro: Interval
    per_class: dict[str, Interval]
    left_out: tuple[str, ...]
    resamples: int
    seed: int


@dataclass(frozen=True)
class Draws:
    """Per-class AUCs on the records as they are and on each bootstrap resample of them.

    point: (c,); resampled: (resamples, c); NaN where a class is undefined. Draws made with one seed over the same
    labels rest on the same resamples, so that their difference is a paired one.
    """

    classes: tuple[str, ...]
    point: Floats
    resampled: Floats
    seed: int

    def minus(self, other: Draws) -> Draws:
        """The paired difference. Raises ValueError when the two were not drawn over the same resamples."""
        if (self.classes, self.seed, self.resampled.shape) != (other.classes, other.seed, other.resampled.shape):
            raise ValueError("a paired difference needs the same classes, seed and number of resamples")
        return Draws(self.classes, self.point - other.point, self.resampled - other.resampled, self.seed)

    def summary(self) -> Bootstrap:
        """Macro and per-class intervals; a class undefined on the records themselves is left out everywhere."""
        defined = np.isfinite(self.point)
        per_class = {
            name: _interval(self.point[i], self.resampled[:, i]) for i, name in enumerate(self.classes) if defined[i]
        }
        macro = _interval(_mean(self.point[None, defined])[0], _mean(self.resampled[:, defined]))
        left_out = tuple(name for name in self.classes if name not in per_class)
        return Bootstrap(macro, per_class, left_out, len(self.resampled), self.seed)


@dataclass(frozen=True)
class TaskView:
    """The part of an evaluation that one task sees.

    labels: (m, c) bool; kept: (n,) bool, the records that carry a label of the task; m = kept.sum().
    """

    task: str
    classes: tuple[str, ...]
    labels: Bools
    kept: Bools

    def scores(self, scores: Floats) -> Floats:
        """This task's (m, c) scores from (n, 71) statement scores."""
        return task_scores(scores, self.task)[self.kept]


def label_matrix(statement_sets: Sequence[Collection[str]], task: str) -> tuple[Bools, tuple[str, ...]]:
    """Labels of n records for a task: ((n, c) bool, the c class names in column order).

    The rule is the benchmark's (Strodthoff et al. 2020): every statement counts whatever its likelihood, 0.0
    included. Rows without any label are kept here; `task_view` drops them. Raises KeyError for an unknown task.
    """
    classes = task_classes(task)
    column = {name: i for i, name in enumerate(classes)}
    labels = np.zeros((len(statement_sets), len(classes)), dtype=np.bool_)
    for row, codes in enumerate(statement_sets):
        for name in task_labels(codes, task):
            labels[row, column[name]] = True
    return labels, classes


def task_view(statement_sets: Sequence[Collection[str]], task: str) -> TaskView:
    """Labels of a task without the records that carry none of its classes (the benchmark drops them)."""
    labels, classes = label_matrix(statement_sets, task)
    kept = labels.any(axis=1)
    return TaskView(task, classes, labels[kept], np.asarray(kept))


def task_scores(scores: NDArray[np.floating], task: str) -> Floats:
    """(n, 71) statement scores -> (n, c) class scores of `task`, all n rows kept.

    A sub- or superclass scores as high as its highest diagnostic statement, which is how the class itself is
    defined: it holds as soon as one of its statements holds. The other tasks are a choice of columns.
    Raises ValueError when `scores` does not have one column per statement.
    """
    codes = task_classes("all")
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(codes):
        raise ValueError(f"scores are {values.shape}, expected (records, {len(codes)})")
    members = [[i for i, code in enumerate(codes) if name in task_labels([code], task)] for name in task_classes(task)]
    return np.stack([values[:, columns].max(axis=1) for columns in members], axis=1)


def roc_auc(y: Bools, s: NDArray[np.floating]) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties count one half.

    y: (n,) bool; s: (n,) finite scores. NaN when there is no positive or no negative record.
    """
    labels, values = _checked(np.asarray(y)[:, None], np.asarray(s)[:, None])
    return float(_weighted_auc(labels[:, 0], values[:, 0], np.ones((len(labels), 1)))[0])


def macro_auc(y: Bools, s: NDArray[np.floating], classes: Sequence[str] | None = None) -> MacroAuc:
    """Macro ROC AUC of (n, c) labels and scores; `classes` names the columns (numbers when absent)."""
    labels, values = _checked(y, s)
    names = _names(labels, classes)
    each = _class_aucs(labels, values, np.ones((len(labels), 1)))[0]
    defined = {name: float(auc) for name, auc in zip(names, each, strict=True) if np.isfinite(auc)}
    value = float(np.mean(list(defined.values()))) if defined else float("nan")
    return MacroAuc(value, defined, tuple(name for name in names if name not in defined))


def draw(
    y: Bools, s: NDArray[np.floating], classes: Sequence[str] | None = None, *, resamples: int = 1000, seed: int = 0
) -> Draws:
    """Resample n records with replacement and take every class's AUC each time; y, s: (n, c).

    A class that loses its last positive (or negative) in a resample is left out of that resample's mean; the
    benchmark redraws instead, which does not end in reasonable time when a dozen classes have one positive each.
    The same seed gives the same figures.
    """
    labels, values = _checked(y, s)
    names = _names(labels, classes)
    n = len(labels)
    random = np.random.default_rng(seed)
    blocks = [
        _class_aucs(labels, values, _resampled(random, n, min(_BLOCK, resamples - start)))
        for start in range(0, resamples, _BLOCK)
    ]
    return Draws(names, _class_aucs(labels, values, np.ones((n, 1)))[0], np.concatenate(blocks), seed)


def bootstrap(
    y: Bools,
    s: NDArray[np.floating],
    classes: Sequence[str] | None = None,
    *,
    minus: NDArray[np.floating] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """90 and 95 % percentile intervals over records of macro and per-class AUC; y, s: (n, c).

    With `minus` (n, c), another system's scores of the same records, the figures are the paired difference
    AUC(s) - AUC(minus). See `draw` for the resampling rule.
    """
    drawn = draw(y, s, classes, resamples=resamples, seed=seed)
    if minus is not None:
        drawn = drawn.minus(draw(y, minus, classes, resamples=resamples, seed=seed))
    return drawn.summary()


def balanced_accuracy(y: Bools, decided: Bools) -> float:
    """Mean over classes of (sensitivity + specificity) / 2 of hard decisions; (n, c) bool each.

    ECGBench publishes this number under the name AUC. Never set it beside a score metric. NaN when no class has
    both a positive and a negative record.
    """
    labels, decisions = np.asarray(y, dtype=np.bool_), np.asarray(decided, dtype=np.bool_)
    if labels.shape != decisions.shape or labels.ndim != 2:
        raise ValueError(f"labels {labels.shape} and decisions {decisions.shape} must both be (records, classes)")
    positives, negatives = labels.sum(axis=0), (~labels).sum(axis=0)
    defined = (positives > 0) & (negatives > 0)
    sensitivity = (labels & decisions).sum(axis=0)[defined] / positives[defined]
    specificity = (~labels & ~decisions).sum(axis=0)[defined] / negatives[defined]
    return float(np.mean((sensitivity + specificity) / 2)) if defined.any() else float("nan")


def _checked(y: NDArray[np.bool_], s: NDArray[np.floating]) -> tuple[Bools, Floats]:
    labels, values = np.asarray(y, dtype=np.bool_), np.asarray(s, dtype=np.float64)
    if labels.shape != values.shape or labels.ndim != 2:
        raise ValueError(f"labels {labels.shape} and scores {values.shape} must have one shape")
    if not np.isfinite(values).all():
        raise ValueError("a score is NaN or infinite; a ranking needs finite scores")
    return labels, values


def _names(labels: Bools, classes: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(classes) if classes is not None else tuple(str(i) for i in range(labels.shape[1]))
    if len(names) != labels.shape[1]:
        raise ValueError(f"{len(names)} class names for {labels.shape[1]} columns")
    return names


def _resampled(random: np.random.Generator, n: int, count: int) -> Floats:
    """(n, count): how often each record stands in each resample of n records drawn with replacement."""
    drawn = random.integers(0, n, size=(count, n))
    flat = drawn + n * np.arange(count)[:, None]
    counts = np.bincount(flat.ravel(), minlength=n * count).reshape(count, n)
    return np.ascontiguousarray(counts.T, dtype=np.float64)


def _class_aucs(labels: Bools, values: Floats, weights: Floats) -> Floats:
    """AUC of each class under each column of record weights: (columns of weights, c), NaN where undefined."""
    columns = range(labels.shape[1])
    return np.stack([_weighted_auc(labels[:, i], values[:, i], weights) for i in columns], axis=1)


def _weighted_auc(y: Bools, s: Floats, weights: Floats) -> Floats:
    """AUC of one class for every column of `weights` (n, b) at once: (b,).

    Records with an integer weight w count as w copies, so one sort serves all resamples. Between two tie groups
    that hold a positive the negatives are only summed, never touched one by one: the cost is one pass over
    (n, b) a class.
    """
    positive = np.flatnonzero(y)
    total_pos = weights[positive].sum(axis=0)  # (b,)
    total_neg = weights.sum(axis=0) - total_pos
    if len(positive) in (0, len(y)):
        return np.full(weights.shape[1], np.nan)
    positive = positive[np.argsort(s[positive], kind="stable")]
    levels, first = np.unique(s[positive], return_index=True)  # (g,) distinct scores of positives
    pos = np.add.reduceat(weights[positive], first, axis=0)  # (g, b)
    negative = np.flatnonzero(~y)
    order = negative[np.argsort(s[negative], kind="stable")]
    below = np.searchsorted(s[order], levels, side="left")  # negatives strictly under each level
    upto = np.searchsorted(s[order], levels, side="right")
    edges = np.unique(np.concatenate([[0], below, upto]))
    cumulative = _sums_up_to(weights, order, edges)  # (len(edges), b)
    lower = cumulative[np.searchsorted(edges, below)]
    upper = cumulative[np.searchsorted(edges, upto)]
    wins = np.einsum("gb,gb->b", pos, (lower + upper) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(wins / (total_pos * total_neg), dtype=np.float64)


def _sums_up_to(weights: Floats, order: NDArray[np.intp], edges: NDArray[np.intp]) -> Floats:
    """Row k: the sum of weights[order[:edges[k]]]. `edges` is sorted, unique, and starts with 0."""
    pieces = np.zeros((len(edges), weights.shape[1]))
    last = int(edges[-1])
    if last:
        starts = edges[:-1]  # every start is < last, so reduceat meets no empty piece
        pieces[1:] = np.add.reduceat(weights[order[:last]], starts, axis=0)
    return np.cumsum(pieces, axis=0)


def _mean(aucs: Floats) -> Floats:
    """Row means over the defined classes, NaN for a row without any."""
    counts = np.isfinite(aucs).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(aucs, axis=1) / counts, dtype=np.float64)


def _interval(value: float, drawn: Floats) -> Interval:
    finite = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(finite):
        return Interval(float(value), *[float("nan")] * 4)
    low95, low90, high90, high95 = (float(q) for q in np.quantile(finite, [0.025, 0.05, 0.95, 0.975]))
    return Interval(float(value), low90, high90, low95, high95)
