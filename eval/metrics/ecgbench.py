"""Scoring in the manner of ECGBench (the benchmark of PULSE), under its own name and beside our own, never instead.

It looks for a label's letters anywhere in the answer, case and all, so "NORM" is found in "ABNORMAL", "AF" in "LAFB",
and "MI" in "no sign of MI". It is here because figures made that way are published and readers will want to compare;
what those papers call AUC is the ROC AUC of 0/1 decisions, which is balanced accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.metrics.decisions import bootstrap_decisions
from eval.metrics.tasks import task_view

NAME = "ECGBench style"
LABELS = ("NORM", "MI", "STTC", "CD", "HYP")
"""The five superclasses: the labels that ECGBench asks PTB-XL answers for."""


@dataclass(frozen=True)
class EcgBenchMetrics:
    """Substring scoring over the five superclasses; NaN where undefined.

    balanced_accuracy: what ECGBench calls AUC. f1: macro. hamming_loss: share of wrong entries.
    """

    records: int
    balanced_accuracy: float
    f1: float
    hamming_loss: float


def substring_labels(answer: str, labels: Sequence[str] = LABELS) -> tuple[str, ...]:
    """The labels whose letters stand anywhere in `answer`: no word borders, no negation, no reading."""
    return tuple(label for label in labels if label in answer)


def ecgbench_metrics(answers: Sequence[str], statement_sets: Sequence[Sequence[str]]) -> EcgBenchMetrics:
    """Score one answer per record against its statements; records without a superclass are left out."""
    view = task_view(statement_sets, "superdiagnostic")
    found = [substring_labels(answer) for answer in answers]
    decided = np.array([[name in labels for name in view.classes] for labels in found], dtype=np.bool_)
    if not view.kept.any():
        return EcgBenchMetrics(0, *[float("nan")] * 3)
    drawn = bootstrap_decisions(view.labels, decided[view.kept], view.classes, resamples=1)
    return EcgBenchMetrics(
        int(view.kept.sum()),
        drawn.balanced_accuracy.summary().macro.value,
        drawn.f1.summary().macro.value,
        float(drawn.hamming_loss.point[0]),
    )
