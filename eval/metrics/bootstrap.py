"""Metrics of (n, c) tables, with bootstrap intervals over the records.

Rankings (ROC AUC, average precision) and probabilities (Brier score, calibration error, Fmax) are judged on scores;
decisions (F1, balanced accuracy, Hamming loss, exact match) on yes or no, from an answer in words or from a threshold
that was fixed on other records. The two kinds never share a column: a "ROC AUC" computed on 0/1 decisions is balanced
accuracy under a wrong name. The same CNN has .928 by its scores and .842 by its decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eval.types import Bools, Floats

_BLOCK = 128  # resamples at a time: 20,000 records then need some 30 MB instead of gigabytes
_ECE_BINS = 15  # as in Guo et al. 2017
_CURVE_BINS = 10
_THRESHOLDS = 101


@dataclass(frozen=True)
class Sampling:
    """Number and seed of the bootstrap resamples."""

    resamples: int = 1000
    seed: int = 0


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
    """A metric's mean over classes and per-class values, of one system or of the difference of two, with intervals.

    Attributes:
        left_out: classes for which the metric is undefined; they do not enter the mean.
    """

    macro: Interval
    per_class: dict[str, Interval]
    left_out: tuple[str, ...]
    resamples: int
    seed: int


@dataclass(frozen=True)
class BootstrapSamples:
    """Per-class values of a metric on the records themselves and on each bootstrap resample of them.

    Attributes:
        point: (c,).
        replicates: (resamples, c); NaN where a class is undefined. Samples made with one seed over the same labels
            rest on the same resamples, so that their difference is a paired one.
    """

    classes: tuple[str, ...]
    point: Floats
    replicates: Floats
    seed: int

    def minus(self, other: BootstrapSamples) -> BootstrapSamples:
        """The paired difference. Raises ValueError when the two do not rest on the same resamples."""
        if (self.classes, self.seed, self.replicates.shape) != (other.classes, other.seed, other.replicates.shape):
            raise ValueError("a paired difference needs the same classes, seed and number of resamples")
        return BootstrapSamples(self.classes, self.point - other.point, self.replicates - other.replicates, self.seed)

    def columns(self, start: int, stop: int) -> BootstrapSamples:
        """Columns start to stop - 1 alone."""
        return BootstrapSamples(
            self.classes[start:stop], self.point[start:stop], self.replicates[:, start:stop], self.seed
        )

    def summary(self, *, recentre: bool = False) -> Bootstrap:
        """Macro and per-class intervals; a class that is undefined on the records themselves is left out everywhere.

        Args:
            recentre: shift the replicates so that their mean is the value itself: the bootstrap's own estimate of
                its bias is removed (Efron and Tibshirani 1993, ch. 10). Average precision needs it: copies of a
                positive are next to each other in the ranking and raise each other's precision. So does F1: its
                mean rises when the rarest classes drop out of a resample. For metrics from 0 to 1 alone; limits stay
                there.
        """
        is_defined = np.isfinite(self.point)
        per_class = {
            name: _interval(self.point[i], self.replicates[:, i], recentre)
            for i, name in enumerate(self.classes)
            if is_defined[i]
        }
        macro = _interval(_mean(self.point[None, is_defined])[0], _mean(self.replicates[:, is_defined]), recentre)
        left_out = tuple(name for name in self.classes if name not in per_class)
        return Bootstrap(macro, per_class, left_out, len(self.replicates), self.seed)


Statistic = Callable[[Floats], Floats]
"""Record weights, one resample a column, (n, b) -> one row of class values for each resample, (b, c)."""


def bootstrap_statistic(
    statistic: Statistic, classes: Sequence[str], n: int, *, resamples: int, seed: int = 0
) -> BootstrapSamples:
    """Values of `statistic` on n records and on resamples of them, with replacement (Efron 1979).

    A resample is a column of weights: how often each record occurs in it. The same n and seed give the same resamples,
    whatever the statistic; this makes differences paired.
    """
    random = np.random.default_rng(seed)
    sizes = [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]
    blocks = [statistic(_resample_weights(random, n, size)) for size in sizes]
    return BootstrapSamples(tuple(classes), statistic(np.ones((n, 1)))[0], np.concatenate(blocks), seed)


# --- rankings


@dataclass(frozen=True)
class MacroAuc:
    """Mean of the per-class ROC AUC over the classes where it is defined.

    Attributes:
        value: the mean, NaN when no class is defined.
        per_class: class -> ROC AUC, defined classes only.
        left_out: classes without a positive or without a negative record; they do not enter the mean.
    """

    value: float
    per_class: dict[str, float]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Rankings:
    """Both metrics of a ranking, over the same resamples."""

    auc: BootstrapSamples
    average_precision: BootstrapSamples


def roc_auc(labels: Bools, scores: NDArray[np.floating]) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties count one half.

    Args:
        labels: (n,) bool.
        scores: (n,) finite. NaN when there is no positive or no negative record.
    """
    y, s = _tables(np.asarray(labels)[:, None], np.asarray(scores)[:, None])
    return float(_weighted_ranking(y[:, 0], s[:, 0], np.ones((len(y), 1)))[0][0])


def macro_auc(labels: Bools, scores: NDArray[np.floating], classes: Sequence[str] | None = None) -> MacroAuc:
    """Macro ROC AUC of (n, c) labels and scores; `classes` names the columns (numbers when absent)."""
    y, s = _tables(labels, scores)
    names = _class_names(y, classes)
    aucs = [roc_auc(y[:, i], s[:, i]) for i in range(len(names))]
    per_class = {name: float(auc) for name, auc in zip(names, aucs, strict=True) if np.isfinite(auc)}
    value = float(np.mean(list(per_class.values()))) if per_class else float("nan")
    return MacroAuc(value, per_class, tuple(name for name in names if name not in per_class))


def bootstrap_rankings(
    labels: Bools,
    scores: NDArray[np.floating],
    classes: Sequence[str] | None = None,
    *,
    resamples: int,
    seed: int = 0,
) -> Rankings:
    """ROC AUC and average precision of every class on n records and on resamples of them; labels, scores: (n, c).

    A class that loses its last positive (or negative) in a resample is left out of that resample's mean; the
    benchmark draws the resample again instead, which does not end in reasonable time when a dozen classes have one
    positive each. The same seed gives the same figures.
    """
    y, s = _tables(labels, scores)
    names = _class_names(y, classes)

    def statistic(weights: Floats) -> Floats:
        pairs = [_weighted_ranking(y[:, i], s[:, i], weights) for i in range(len(names))]
        return np.stack([auc for auc, _ in pairs] + [precision for _, precision in pairs], axis=1)

    both = bootstrap_statistic(statistic, (*names, *names), len(y), resamples=resamples, seed=seed)
    return Rankings(both.columns(0, len(names)), both.columns(len(names), 2 * len(names)))


# --- probabilities


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability curve: mean predicted probability, share that is present, number of entries."""

    predicted: float
    observed: float
    count: int


def bootstrap_brier(
    labels: Bools, scores: NDArray[np.floating], classes: Sequence[str], *, resamples: int, seed: int = 0
) -> BootstrapSamples:
    """Brier score of every class, mean of (p - y)^2 (Brier 1950), on n records and resamples; labels, scores: (n, c).

    NaN for a class without a positive or without a negative record, as in every other metric of the report.
    """
    y, s = _tables(labels, scores)
    squares = (s - y) ** 2
    is_defined = y.any(axis=0) & ~y.all(axis=0)

    def statistic(weights: Floats) -> Floats:
        return np.where(is_defined, weights.T @ squares / weights.sum(axis=0)[:, None], np.nan)

    return bootstrap_statistic(statistic, classes, len(y), resamples=resamples, seed=seed)


def calibration_error(labels: Bools, scores: NDArray[np.floating]) -> Floats:
    """Expected calibration error of every class, (c,): sum over bins of (share of records) |observed - predicted|.

    15 bins of equal width (Guo et al. 2017), class by class (Kull et al. 2019), since bins shared by 71 statements
    would hide the errors of one behind those of another.
    """
    y, s = _tables(labels, scores)
    errors = np.full(y.shape[1], np.nan)
    for i in np.flatnonzero(~_without_scores(s)):
        bins = np.minimum((s[:, i] * _ECE_BINS).astype(int), _ECE_BINS - 1)
        gaps = np.bincount(bins, weights=y[:, i] - s[:, i], minlength=_ECE_BINS)
        errors[i] = np.abs(gaps).sum() / max(1, len(y))
    return errors


def reliability(labels: Bools, scores: NDArray[np.floating]) -> tuple[Bin, ...]:
    """Reliability curve over all entries of the n x c table, ten bins of equal width; empty bins are left out."""
    y, s = _tables(labels, scores)
    with_scores = ~_without_scores(s)
    y, s = y[:, with_scores].ravel(), s[:, with_scores].ravel()
    bins = np.minimum((s * _CURVE_BINS).astype(int), _CURVE_BINS - 1)
    members = [bins == k for k in range(_CURVE_BINS)]
    return tuple(Bin(float(s[m].mean()), float(y[m].mean()), int(m.sum())) for m in members if m.any())


def bootstrap_fmax(labels: Bools, scores: NDArray[np.floating], *, resamples: int, seed: int = 0) -> BootstrapSamples:
    """Fmax on n records and resamples of them; labels, scores: (n, c), every record with at least one label.

    The benchmark's definition (Strodthoff et al. 2020): for each threshold 0, .01 ... 1, `p >= t`, precision is the
    mean over records with at least one call, recall the mean over all records; Fmax is the highest harmonic mean of the
    two. The threshold is chosen on the records that are judged, so Fmax is an upper bound and no decision metric.
    Classes without scores do not count.
    """
    y, s = _tables(labels, scores)
    with_scores = ~_without_scores(s)
    y, s = y[:, with_scores], s[:, with_scores]
    positives = np.maximum(y.sum(axis=1), 1)
    precision, recall, has_call = (np.zeros((len(y), _THRESHOLDS)) for _ in range(3))
    for k in range(_THRESHOLDS):
        decisions = s >= k / (_THRESHOLDS - 1)
        calls, hits = decisions.sum(axis=1), (decisions & y).sum(axis=1)
        has_call[:, k] = calls > 0
        precision[:, k] = hits / np.maximum(calls, 1)
        recall[:, k] = hits / positives

    def statistic(weights: Floats) -> Floats:
        p = weights.T @ precision / np.maximum(weights.T @ has_call, 1)  # (b, thresholds)
        r = weights.T @ recall / weights.sum(axis=0)[:, None]
        return np.asarray((2 * p * r / np.maximum(p + r, 1e-300)).max(axis=1, keepdims=True))

    return bootstrap_statistic(statistic, ("Fmax",), len(y), resamples=resamples, seed=seed)


# --- decisions


@dataclass(frozen=True)
class Decisions:
    """Samples of each metric of decisions; the last two have one column, the others one for each class."""

    f1: BootstrapSamples
    precision: BootstrapSamples
    recall: BootstrapSamples
    balanced_accuracy: BootstrapSamples
    hamming_loss: BootstrapSamples
    exact_match: BootstrapSamples


def bootstrap_decisions(
    labels: Bools, decisions: Bools, classes: Sequence[str], *, resamples: int, seed: int = 0
) -> Decisions:
    """Metrics of decisions on n records and on resamples of them; labels, decisions: (n, c) bool.

    F1 = 2 TP / (2 TP + FP + FN); precision = TP / (TP + FP), 0 for a class that is never called (as F1 is there);
    recall = TP / (TP + FN); balanced accuracy = (recall + specificity) / 2, which ECGBench publishes under the name
    AUC. All four are NaN for a class without a positive or without a negative record. Hamming loss: share of wrong
    entries of the n x c table. Exact match: share of records with every class right.

    Raises:
        ValueError: When the two tables differ in shape.
    """
    y, d = np.asarray(labels, dtype=np.bool_), np.asarray(decisions, dtype=np.bool_)
    if y.shape != d.shape or y.ndim != 2 or y.shape[1] != len(classes):
        raise ValueError(f"labels {y.shape} and decisions {d.shape} must both be (n, {len(classes)})")
    hits, calls, truth = (table.astype(np.float64) for table in (y & d, d, y))
    wrong = y != d
    rows = np.stack([wrong.mean(axis=1), ~wrong.any(axis=1)], axis=1)  # (n, 2)

    def statistic(weights: Floats) -> Floats:
        n = weights.sum(axis=0)[:, None]  # (b, 1)
        tp, positive_calls, positives = weights.T @ hits, weights.T @ calls, weights.T @ truth  # (b, c)
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = 2 * tp / (positive_calls + positives)
            recall = tp / positives
            specificity = 1 - (positive_calls - tp) / (n - positives)
        precision = tp / np.maximum(positive_calls, 1)
        is_defined = (positives > 0) & (positives < n)
        per_class = [np.where(is_defined, v, np.nan) for v in (f1, precision, recall, (recall + specificity) / 2)]
        return np.concatenate([*per_class, weights.T @ rows / n], axis=1)

    c = len(classes)
    names = (*classes, *classes, *classes, *classes, "hamming loss", "exact match")
    every = bootstrap_statistic(statistic, names, len(y), resamples=resamples, seed=seed)
    edges = (0, c, 2 * c, 3 * c, 4 * c, 4 * c + 1, 4 * c + 2)
    return Decisions(*(every.columns(start, stop) for start, stop in pairwise(edges)))


# --- the arithmetic below


def _tables(labels: NDArray[np.bool_], scores: NDArray[np.floating]) -> tuple[Bools, Floats]:
    """Labels and scores as (n, c) arrays. Raises ValueError when they do not fit, or a score is not finite."""
    y, s = np.asarray(labels, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 2:
        raise ValueError(f"labels {y.shape} and scores {s.shape} must have one shape")
    if not np.isfinite(s[:, ~_without_scores(s)]).all():
        raise ValueError("a score is NaN or infinite; a ranking needs finite scores")
    return y, s


def _without_scores(scores: Floats) -> Bools:
    """(c,): the columns of NaN, of classes that a system does not score; their metrics are NaN."""
    return np.asarray(np.isnan(scores).all(axis=0)) & (len(scores) > 0)


def _class_names(labels: Bools, classes: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(classes) if classes is not None else tuple(str(i) for i in range(labels.shape[1]))
    if len(names) != labels.shape[1]:
        raise ValueError(f"{len(names)} class names for {labels.shape[1]} columns")
    return names


def _resample_weights(random: np.random.Generator, n: int, count: int) -> Floats:
    """(n, count): how often each record occurs in each resample of n records with replacement."""
    rows = random.integers(0, n, size=(count, n))
    flat = rows + n * np.arange(count)[:, None]
    counts = np.bincount(flat.ravel(), minlength=n * count).reshape(count, n)
    return np.ascontiguousarray(counts.T, dtype=np.float64)


def _weighted_ranking(y: Bools, s: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """ROC AUC and average precision of one class for every column of `weights` (n, b) at once: (b,) each.

    Average precision: the sum of precision times the step of recall over the distinct scores, ties taken together
    (no interpolation; as in scikit-learn). Records with an integer weight w count as w copies, so one sort serves all
    resamples. Between two tie groups that contain a positive the negatives are only summed, never handled one by one:
    the cost is one pass over (n, b) a class. NaN where there is no positive or no negative.
    """
    positive = np.flatnonzero(y)
    if len(positive) in (0, len(y)) or _without_scores(s[:, None])[0]:
        return np.full(weights.shape[1], np.nan), np.full(weights.shape[1], np.nan)
    total_pos = weights[positive].sum(axis=0)  # (b,)
    total_neg = weights.sum(axis=0) - total_pos
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
    hits = np.cumsum(pos[::-1], axis=0)[::-1]  # positives at or above each level
    calls = hits + total_neg - lower
    np.maximum(calls, 1, out=calls)  # there are no calls only where there are no hits: no step of recall there
    steps = np.einsum("gb,gb->b", pos, hits / calls)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc, precision = wins / (total_pos * total_neg), steps / total_pos
    return np.asarray(auc), np.asarray(np.where(total_neg > 0, precision, np.nan))


def _sums_up_to(weights: Floats, order: NDArray[np.intp], edges: NDArray[np.intp]) -> Floats:
    """Row k: the sum of weights[order[:edges[k]]]. `edges` is ascending, unique, and starts with 0."""
    pieces = np.zeros((len(edges), weights.shape[1]))
    last = int(edges[-1])
    if last:
        starts = edges[:-1]  # every start is < last, so reduceat meets no empty piece
        pieces[1:] = np.add.reduceat(weights[order[:last]], starts, axis=0)
    return np.cumsum(pieces, axis=0)


def _mean(values: Floats) -> Floats:
    """Row means over the defined classes, NaN for a row without any."""
    counts = np.isfinite(values).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=1) / counts, dtype=np.float64)


def _interval(value: float, replicates: Floats, recentre: bool = False) -> Interval:
    finite = replicates[np.isfinite(replicates)]
    if not np.isfinite(value) or not len(finite):
        return Interval(float(value), *[float("nan")] * 4)
    if recentre:
        finite = np.clip(finite - finite.mean() + value, 0, 1)
    low95, low90, high90, high95 = (float(q) for q in np.quantile(finite, [0.025, 0.05, 0.95, 0.975]))
    return Interval(float(value), low90, high90, low95, high95)
