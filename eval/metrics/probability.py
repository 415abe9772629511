"""Metrics of probabilities as probabilities: Brier score, calibration error, reliability curve, Fmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.ranking import BootstrapSamples, bootstrap_statistic, checked
from eval.metrics.tasks import Bools, Floats

_ECE_BINS = 15  # as in Guo et al. 2017
_CURVE_BINS = 10
_STEPS = 101


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability curve: mean probability given, share that held, how many entries."""

    predicted: float
    observed: float
    count: int


def bootstrap_brier(
    y: Bools, s: NDArray[np.floating], classes: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> BootstrapSamples:
    """Brier score of every class, mean of (p - y)^2 (Brier 1950), on n records and resamples of them; y, s: (n, c).

    NaN for a class without a positive or without a negative record, as in every other metric of the report.
    """
    labels, values = checked(y, s)
    squares = (values - labels) ** 2
    defined = labels.any(axis=0) & ~labels.all(axis=0)

    def statistic(weights: Floats) -> Floats:
        return np.where(defined, weights.T @ squares / weights.sum(axis=0)[:, None], np.nan)

    return bootstrap_statistic(statistic, classes, len(labels), resamples=resamples, seed=seed)


def calibration_error(y: Bools, s: NDArray[np.floating]) -> Floats:
    """Expected calibration error of every class, (c,): sum over bins of (share of records) |observed - predicted|.

    15 bins of equal width (Guo et al. 2017), taken class by class (Kull et al. 2019), since bins shared by 71
    statements would let the errors of one hide behind those of another.
    """
    labels, values = checked(y, s)
    errors = np.zeros(labels.shape[1])
    for i in range(labels.shape[1]):
        bins = np.minimum((values[:, i] * _ECE_BINS).astype(int), _ECE_BINS - 1)
        gaps = np.bincount(bins, weights=labels[:, i] - values[:, i], minlength=_ECE_BINS)
        errors[i] = np.abs(gaps).sum() / max(1, len(labels))
    return errors


def reliability(y: Bools, s: NDArray[np.floating]) -> tuple[Bin, ...]:
    """Reliability curve over all entries of the n x c table, ten bins of equal width; empty bins are left out."""
    labels, values = (table.ravel() for table in checked(y, s))
    bins = np.minimum((values * _CURVE_BINS).astype(int), _CURVE_BINS - 1)
    found = []
    for k in range(_CURVE_BINS):
        inside = bins == k
        if inside.any():
            found.append(Bin(float(values[inside].mean()), float(labels[inside].mean()), int(inside.sum())))
    return tuple(found)


def bootstrap_fmax(y: Bools, s: NDArray[np.floating], *, resamples: int = 1000, seed: int = 0) -> BootstrapSamples:
    """Fmax on n records and resamples of them; y, s: (n, c), every record with at least one label.

    The benchmark's definition (Strodthoff et al. 2020): for each threshold 0, .01 ... 1, `p >= t`, precision is the
    mean over records with at least one call, recall the mean over all records; Fmax is the highest harmonic mean of the
    two. The threshold is chosen on the records that are judged, so Fmax is an upper bound and no decision metric.
    """
    labels, values = checked(y, s)
    held = np.maximum(labels.sum(axis=1), 1)
    precision, recall, spoke = (np.zeros((len(labels), _STEPS)) for _ in range(3))
    for k in range(_STEPS):
        called = values >= k / (_STEPS - 1)
        calls, hits = called.sum(axis=1), (called & labels).sum(axis=1)
        spoke[:, k] = calls > 0
        precision[:, k] = hits / np.maximum(calls, 1)
        recall[:, k] = hits / held

    def statistic(weights: Floats) -> Floats:
        p = weights.T @ precision / np.maximum(weights.T @ spoke, 1)  # (b, steps)
        r = weights.T @ recall / weights.sum(axis=0)[:, None]
        return np.asarray((2 * p * r / np.maximum(p + r, 1e-300)).max(axis=1, keepdims=True))

    return bootstrap_statistic(statistic, ("Fmax",), len(labels), resamples=resamples, seed=seed)
