"""What is drawn of single classes: ROC curves, and how well neighbouring statements are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.ranking import roc_auc
from eval.metrics.tasks import Bools, Floats, TaskView, label_matrix, task_view
from render.dialogues.compose import related_statements
from render.statements import STATEMENTS

_POINTS = 80
_PANELS = 6
_LEAST = 5


@dataclass(frozen=True)
class Roc:
    """The ROC curve of one class: false and true positive rates from (0, 0) to (1, 1)."""

    name: str
    positives: int
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True)
class ConfusablePairs:
    """Two statements that are easily taken for each other (`render/dialogues/confusable.csv`).

    first_only, second_only: records with one and not the other; these are looked at.
    told_apart: ROC AUC of the difference of log-odds for first against second; 0.5 is a coin, below it they are
    swapped.
    first_swapped, second_swapped: share of the records for which, at the frozen thresholds, the other one was called
    and the right one was not; None without thresholds.
    """

    first: str
    second: str
    first_only: int
    second_only: int
    told_apart: float
    first_swapped: float | None
    second_swapped: float | None


def roc_points(y: Bools, s: NDArray[np.floating], name: str = "") -> Roc:
    """The ROC curve of labels (n,) and scores (n,), ties as one slanted step, thinned to some 80 points for drawing."""
    order = np.argsort(-s, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    hits = np.cumsum(y[order])[ends]
    rates = np.stack([(ends + 1 - hits) / max(1, (~y).sum()), hits / max(1, y.sum())])
    rates = np.concatenate([np.zeros((2, 1)), rates], axis=1)
    chosen = np.unique(np.linspace(0, rates.shape[1] - 1, _POINTS).round().astype(int))
    false, true = (tuple(round(float(v), 5) for v in row[chosen]) for row in rates)
    return Roc(name, int(y.sum()), false, true)


def curve_classes(statement_sets: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Up to six (task, class) whose curves are shown: the superclasses first, then the commonest statements."""
    chosen = [("superdiagnostic", name) for name in _defined(task_view(statement_sets, "superdiagnostic"))]
    view = task_view(statement_sets, "all")
    count = dict(zip(view.classes, view.labels.sum(axis=0).tolist(), strict=True))
    # Half of the records at most: of the commonest statement of all, sinus rhythm, the absence is the finding.
    common = [code for code in _defined(view) if count[code] <= len(view.labels) / 2 and code != "NORM"]
    common.sort(key=lambda code: (not STATEMENTS[code].rhythm, -count[code]))
    return (chosen + [("all", code) for code in common])[:_PANELS]


def rocs(statement_sets: Sequence[Sequence[str]], scores: Floats) -> tuple[Roc, ...]:
    """The curves of `curve_classes` for (n, 71) scores."""
    found = []
    for task, name in curve_classes(statement_sets):
        view = task_view(statement_sets, task)
        column = view.classes.index(name)
        found.append(roc_points(view.labels[:, column], view.scores(scores)[:, column], name))
    return tuple(found)


def confusable_pairs(
    statement_sets: Sequence[Sequence[str]], scores: Floats, decided: Bools | None = None
) -> tuple[ConfusablePairs, ...]:
    """How well (n, 71) scores tell near statements apart, worst pair first; pairs with five records on either side.

    decided: (n, 71) decisions at the frozen thresholds, where there are any.
    """
    labels, codes = label_matrix(statement_sets, "all")
    column = {code: i for i, code in enumerate(codes)}
    odds = np.log(np.clip(scores, 1e-7, 1 - 1e-7)) - np.log1p(-np.clip(scores, 1e-7, 1 - 1e-7))
    near = related_statements("near")
    pairs = sorted({tuple(sorted((code, other))) for code, others in near.items() for other in others})
    found = []
    for first, second in pairs:
        i, j = column[first], column[second]
        one, other = labels[:, i] & ~labels[:, j], labels[:, j] & ~labels[:, i]
        if min(one.sum(), other.sum()) < _LEAST:
            continue
        either = one | other
        auc = roc_auc(one[either], (odds[:, i] - odds[:, j])[either])
        swapped = [None, None] if decided is None else [_swapped(one, i, j, decided), _swapped(other, j, i, decided)]
        found.append(ConfusablePairs(first, second, int(one.sum()), int(other.sum()), auc, *swapped))
    return tuple(sorted(found, key=lambda pair: (pair.told_apart, pair.first, pair.second)))


def _swapped(rows: Bools, right: int, wrong: int, decided: Bools) -> float:
    return float((decided[rows, wrong] & ~decided[rows, right]).mean())


def _defined(view: TaskView) -> list[str]:
    count = view.labels.sum(axis=0)
    return [name for name, held in zip(view.classes, count, strict=True) if 0 < held < len(view.labels)]
