"""Metrics of yes/no decisions, with bootstrap intervals: F1, balanced accuracy, Hamming loss, exact match.

A decision comes from an answer in words, or from a probability at a threshold that was frozen on other records
(`eval.metrics.calibration`). None of these numbers may stand in a column with a metric of probabilities
(`eval.metrics.ranking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.metrics.ranking import BootstrapSamples, bootstrap_statistic
from eval.metrics.tasks import Bools, Floats


@dataclass(frozen=True)
class Decisions:
    """Draws of each metric of decisions; the last two have one column, the others one for each class."""

    f1: BootstrapSamples
    balanced_accuracy: BootstrapSamples
    hamming_loss: BootstrapSamples
    exact_match: BootstrapSamples


def bootstrap_decisions(
    y: Bools, decided: Bools, classes: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> Decisions:
    """Metrics of decisions on n records and on resamples of them; y, decided: (n, c) bool.

    F1 = 2 TP / (2 TP + FP + FN); balanced accuracy = (sensitivity + specificity) / 2, which ECGBench publishes under
    the name AUC; both NaN for a class without a positive or without a negative record. Hamming loss: share of wrong
    entries of the n x c table. Exact match: share of records with every class right.
    Raises ValueError when the two tables differ in shape.
    """
    labels, decisions = np.asarray(y, dtype=np.bool_), np.asarray(decided, dtype=np.bool_)
    if labels.shape != decisions.shape or labels.ndim != 2 or labels.shape[1] != len(classes):
        raise ValueError(f"labels {labels.shape} and decisions {decisions.shape} must both be (n, {len(classes)})")
    hits, called, held = ((table).astype(np.float64) for table in (labels & decisions, decisions, labels))
    wrong = labels != decisions
    rows = np.stack([wrong.mean(axis=1), ~wrong.any(axis=1)], axis=1)  # (n, 2)

    def statistic(weights: Floats) -> Floats:
        n = weights.sum(axis=0)[:, None]  # (b, 1)
        tp, positive_calls, positives = weights.T @ hits, weights.T @ called, weights.T @ held  # (b, c)
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = 2 * tp / (positive_calls + positives)
            specificity = 1 - (positive_calls - tp) / (n - positives)
            balanced = (tp / positives + specificity) / 2
        defined = (positives > 0) & (positives < n)
        per_class = [np.where(defined, f1, np.nan), np.where(defined, balanced, np.nan)]
        return np.concatenate([*per_class, weights.T @ rows / n], axis=1)

    c = len(classes)
    names = (*classes, *classes, "hamming loss", "exact match")
    drawn = bootstrap_statistic(statistic, names, len(labels), resamples=resamples, seed=seed)
    return Decisions(
        drawn.part(0, c), drawn.part(c, 2 * c), drawn.part(2 * c, 2 * c + 1), drawn.part(2 * c + 1, 2 * c + 2)
    )


def balanced_accuracy(y: Bools, decided: Bools) -> float:
    """Mean over classes of (sensitivity + specificity) / 2; (n, c) bool each, NaN when it is defined for no class."""
    classes = tuple(str(i) for i in range(np.asarray(y).shape[1]))
    return bootstrap_decisions(y, decided, classes, resamples=1).balanced_accuracy.summary().macro.value
