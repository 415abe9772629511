"""Labels and scores of the six label tasks of the PTB-XL benchmark (Strodthoff et al. 2020)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.statements import task_classes, task_labels

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TaskView:
    """One task's part of an evaluation of n records.

    has_label: (n,) bool, the records with a label of the task; m of them.
    labels: (m, c) bool, of these records alone.
    """

    task: str
    classes: tuple[str, ...]
    labels: Bools
    has_label: Bools

    def scores(self, scores: Floats) -> Floats:
        """This task's (m, c) scores from (n, 71) statement scores."""
        return task_scores(scores, self.task)[self.has_label]


def label_matrix(statement_sets: Sequence[Collection[str]], task: str) -> tuple[Bools, tuple[str, ...]]:
    """Labels of n records for a task: ((n, c) bool, the c class names in column order).

    The rule is the benchmark's (Strodthoff et al. 2020): every statement counts whatever its likelihood, 0.0
    included. Rows without any label stay in; `task_view` drops them. Raises KeyError for an unknown task.
    """
    classes = task_classes(task)
    column = {name: i for i, name in enumerate(classes)}
    labels = np.zeros((len(statement_sets), len(classes)), dtype=np.bool_)
    for row, codes in enumerate(statement_sets):
        for name in task_labels(codes, task):
            labels[row, column[name]] = True
    return labels, classes


def task_view(statement_sets: Sequence[Collection[str]], task: str) -> TaskView:
    """Labels of a task without the records that have none of its classes (the benchmark drops them)."""
    labels, classes = label_matrix(statement_sets, task)
    has_label = labels.any(axis=1)
    return TaskView(task, classes, labels[has_label], np.asarray(has_label))


def task_scores(scores: NDArray[np.floating], task: str) -> Floats:
    """(n, 71) statement scores -> (n, c) class scores of `task`; all n rows stay in.

    A sub- or superclass scores as high as its highest diagnostic statement, in accordance with its definition: it is
    present as soon as one of its statements is. The other tasks are a selection of columns.
    Raises ValueError when `scores` does not have one column per statement.
    """
    codes = task_classes("all")
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(codes):
        raise ValueError(f"scores are {values.shape}, expected (records, {len(codes)})")
    members = [[i for i, code in enumerate(codes) if name in task_labels([code], task)] for name in task_classes(task)]
    return np.stack([values[:, columns].max(axis=1) for columns in members], axis=1)
