"""Metrics of rankings, with bootstrap intervals: ROC AUC and average precision of every class.

They judge probabilities. Yes/no decisions are judged in `eval.metrics.decisions`, and the two never share a column: a
"ROC AUC" computed on 0/1 decisions is balanced accuracy under a wrong name. The same CNN has .928 by its scores and
.842 by its decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.tasks import Bools, Floats

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
    """A metric's mean over classes and per-class values, of one system or of the difference of two, with intervals."""

    macro: Interval
    per_class: dict[str, Interval]
    left_out: tuple[str, ...]
    resamples: int
    seed: int


@dataclass(frozen=True)
class BootstrapSamples:
    """Per-class values of a metric on the records as they are and on each bootstrap resample of them.

    point: (c,); resampled: (resamples, c); NaN where a class is undefined. Draws made with one seed over the same
    labels rest on the same resamples, so that their difference is a paired one.
    """

    classes: tuple[str, ...]
    point: Floats
    resampled: Floats
    seed: int

    def minus(self, other: BootstrapSamples) -> BootstrapSamples:
        """The paired difference. Raises ValueError when the two were not drawn over the same resamples."""
        if (self.classes, self.seed, self.resampled.shape) != (other.classes, other.seed, other.resampled.shape):
            raise ValueError("a paired difference needs the same classes, seed and number of resamples")
        return BootstrapSamples(self.classes, self.point - other.point, self.resampled - other.resampled, self.seed)

    def part(self, start: int, stop: int, classes: Sequence[str] | None = None) -> BootstrapSamples:
        """Columns start..stop-1 alone, under other names if given."""
        names = self.classes[start:stop] if classes is None else tuple(classes)
        return BootstrapSamples(names, self.point[start:stop], self.resampled[:, start:stop], self.seed)

    def summary(self, *, centred: bool = False) -> Bootstrap:
        """Macro and per-class intervals; a class undefined on the records themselves is left out everywhere.

        centred: move the draws so that their mean is the value itself: the bootstrap's own estimate of its bias taken
        off (Efron and Tibshirani 1993, ch. 10). Average precision needs it: copies of a positive stand side by side
        and lift each other's precision. So does F1: its mean rises when the rarest classes drop out of a resample.
        """
        defined = np.isfinite(self.point)
        per_class = {
            name: _interval(self.point[i], self.resampled[:, i], centred)
            for i, name in enumerate(self.classes)
            if defined[i]
        }
        macro = _interval(_mean(self.point[None, defined])[0], _mean(self.resampled[:, defined]), centred)
        left_out = tuple(name for name in self.classes if name not in per_class)
        return Bootstrap(macro, per_class, left_out, len(self.resampled), self.seed)


def roc_auc(y: Bools, s: NDArray[np.floating]) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties count one half.

    y: (n,) bool; s: (n,) finite scores. NaN when there is no positive or no negative record.
    """
    labels, values = checked(np.asarray(y)[:, None], np.asarray(s)[:, None])
    return float(_weighted_ranking(labels[:, 0], values[:, 0], np.ones((len(labels), 1)))[0][0])


def macro_auc(y: Bools, s: NDArray[np.floating], classes: Sequence[str] | None = None) -> MacroAuc:
    """Macro ROC AUC of (n, c) labels and scores; `classes` names the columns (numbers when absent)."""
    labels, values = checked(y, s)
    names = _names(labels, classes)
    each = [roc_auc(labels[:, i], values[:, i]) for i in range(len(names))]
    defined = {name: float(auc) for name, auc in zip(names, each, strict=True) if np.isfinite(auc)}
    value = float(np.mean(list(defined.values()))) if defined else float("nan")
    return MacroAuc(value, defined, tuple(name for name in names if name not in defined))


Statistic = Callable[[Floats], Floats]
"""Record weights, one resample a column, (n, b) -> one row of class values for each, (b, c)."""


def bootstrap_statistic(
    statistic: Statistic, classes: Sequence[str], n: int, *, resamples: int = 1000, seed: int = 0
) -> BootstrapSamples:
    """Values of `statistic` on n records and on resamples of them, drawn with replacement (Efron 1979).

    A resample is a column of weights: how often each record stands in it. The same n and seed give the same
    resamples, whatever the statistic, which is what makes differences paired.
    """
    random = np.random.default_rng(seed)
    blocks = [statistic(_resampled(random, n, min(_BLOCK, resamples - start))) for start in range(0, resamples, _BLOCK)]
    return BootstrapSamples(tuple(classes), statistic(np.ones((n, 1)))[0], np.concatenate(blocks), seed)


@dataclass(frozen=True)
class Rankings:
    """Both metrics of a ranking, over the same resamples."""

    auc: BootstrapSamples
    average_precision: BootstrapSamples


def bootstrap_rankings(
    y: Bools, s: NDArray[np.floating], classes: Sequence[str] | None = None, *, resamples: int = 1000, seed: int = 0
) -> Rankings:
    """ROC AUC and average precision of every class on n records and on resamples of them; y, s: (n, c).

    A class that loses its last positive (or negative) in a resample is left out of that resample's mean; the
    benchmark redraws instead, which does not end in reasonable time when a dozen classes have one positive each.
    The same seed gives the same figures.
    """
    labels, values = checked(y, s)
    names = _names(labels, classes)

    def statistic(weights: Floats) -> Floats:
        pairs = [_weighted_ranking(labels[:, i], values[:, i], weights) for i in range(len(names))]
        return np.stack([auc for auc, _ in pairs] + [precision for _, precision in pairs], axis=1)

    both = bootstrap_statistic(statistic, (*names, *names), len(labels), resamples=resamples, seed=seed)
    return Rankings(both.part(0, len(names)), both.part(len(names), 2 * len(names)))


def bootstrap_auc(
    y: Bools, s: NDArray[np.floating], classes: Sequence[str] | None = None, *, resamples: int = 1000, seed: int = 0
) -> BootstrapSamples:
    """The ROC AUC alone; see `bootstrap_rankings`."""
    return bootstrap_rankings(y, s, classes, resamples=resamples, seed=seed).auc


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
    AUC(s) - AUC(minus). See `bootstrap_auc` for the resampling rule.
    """
    drawn = bootstrap_auc(y, s, classes, resamples=resamples, seed=seed)
    if minus is not None:
        drawn = drawn.minus(bootstrap_auc(y, minus, classes, resamples=resamples, seed=seed))
    return drawn.summary()


def checked(y: NDArray[np.bool_], s: NDArray[np.floating]) -> tuple[Bools, Floats]:
    """Labels and scores as (n, c) arrays. Raises ValueError when they do not fit, or a score is not finite."""
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


def _weighted_ranking(y: Bools, s: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """ROC AUC and average precision of one class for every column of `weights` (n, b) at once: (b,) each.

    Average precision: the sum of precision times the step of recall over the distinct scores, ties taken together
    (no interpolation; as in scikit-learn). Records with an integer weight w count as w copies, so one sort serves all
    resamples. Between two tie groups that hold a positive the negatives are only summed, never touched one by one:
    the cost is one pass over (n, b) a class. NaN where there is no positive or no negative.
    """
    positive = np.flatnonzero(y)
    if len(positive) in (0, len(y)):
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
    found = np.cumsum(pos[::-1], axis=0)[::-1]  # positives at or above each level
    called = found + total_neg - lower
    np.maximum(called, 1, out=called)  # called is 0 only where found is: no step of recall there
    steps = np.einsum("gb,gb->b", pos, found / called)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc, precision = wins / (total_pos * total_neg), steps / total_pos
    return np.asarray(auc), np.asarray(np.where(total_neg > 0, precision, np.nan))


def _sums_up_to(weights: Floats, order: NDArray[np.intp], edges: NDArray[np.intp]) -> Floats:
    """Row k: the sum of weights[order[:edges[k]]]. `edges` is sorted, unique, and starts with 0."""
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


def _interval(value: float, drawn: Floats, centred: bool = False) -> Interval:
    finite = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(finite):
        return Interval(float(value), *[float("nan")] * 4)
    if centred:
        finite = finite - finite.mean() + value
    low95, low90, high90, high95 = (float(q) for q in np.quantile(finite, [0.025, 0.05, 0.95, 0.975]))
    return Interval(float(value), low90, high90, low95, high95)
