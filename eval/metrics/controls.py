"""Controls: the same records scored again on altered pages, to test whether a system reads the page at all.

A system that reads the page falls to chance on blank and on shuffled pages, and falls little when the page shows the
same tracing in another way. A system that scores well on blank or shuffled pages has its answers from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from eval.metrics.bootstrap import Interval, Rankings, Sampling
from eval.metrics.system_metrics import bootstrap_tasks
from eval.types import Floats, LabelledRecords, System, TaskView

CONTROL_MEANINGS: Mapping[str, str] = {
    "blank": "white paper of the same size; a system that looks falls to 0.5",
    "shuffled": "every record gets the page of another record; a system that looks falls to about 0.5",
    "copied": "the same page as a pale grey copy, tilted by one degree, JPEG quality 35; should fall little",
    "layout": "the same record drawn again in another layout; should fall little",
    "style": "the same record drawn again in another style; should fall little",
}
"""Control -> how the page is altered, and the effect on a system that reads the page."""

CHANCE_CONTROLS = ("blank", "shuffled")
"""Controls whose pages carry no information about the record: every system should be at 0.5."""


@dataclass(frozen=True)
class Control:
    """One control: its name (of `CONTROL_MEANINGS`), its detail ("6x2"), and the scores on the altered pages."""

    name: str
    detail: str
    system: System


@dataclass(frozen=True)
class ControlMetrics:
    """Macro AUC on altered pages per task, and the paired difference, altered minus unaltered.

    Attributes:
        chance: for controls without information on the page, the range of 95 % of macro AUCs (task "all") when the
            same scores are assigned to the records at random.
    """

    name: str
    detail: str
    meaning: str
    macro_auc: dict[str, Interval]
    difference: dict[str, Interval]
    chance: tuple[float, float] | None = None

    @property
    def suspicious(self) -> bool:
        """Whether pages without any information still score better than chance."""
        return self.chance is not None and self.macro_auc["all"].value > self.chance[1]


def control_metrics(
    control: Control,
    records: LabelledRecords,
    views: Mapping[str, TaskView],
    original: Mapping[str, Rankings],
    sampling: Sampling,
) -> ControlMetrics:
    """Figures of one control. original: task -> samples of the same system on the unaltered pages."""
    scores = control.system.scores_of(records.record_ids)
    samples = bootstrap_tasks(control.system.task_scores(records.record_ids), views, sampling)
    return ControlMetrics(
        control.name,
        control.detail,
        CONTROL_MEANINGS[control.name],
        {task: r.auc.summary().macro for task, r in samples.items()},
        {task: r.auc.minus(original[task].auc).summary().macro for task, r in samples.items()},
        chance_range(views["all"], scores, sampling) if control.name in CHANCE_CONTROLS else None,
    )


def chance_range(view: TaskView, scores: Floats, sampling: Sampling) -> tuple[float, float]:
    """2.5 and 97.5 % quantiles of the macro AUC when (n, 71) scores are assigned to the records at random.

    A permutation test (Fisher 1935). The bootstrap interval of a shuffled control is too narrow to test whether it
    contains 0.5: it does not include the variation between shuffles, and rests on one or two positives in rare classes.
    """
    both_kinds = view.labels.any(axis=0) & ~view.labels.all(axis=0)
    labels = view.labels[:, both_kinds].astype(np.float64)
    ranks = rankdata(view.scores(scores)[:, both_kinds], axis=0)  # (m, c), ties share their mean rank
    positives = labels.sum(axis=0)
    pairs = positives * (len(labels) - positives)
    random = np.random.default_rng(sampling.seed)
    macros = [
        (
            ((ranks * labels[random.permutation(len(labels))]).sum(axis=0) - positives * (positives + 1) / 2) / pairs
        ).mean()
        for _ in range(sampling.resamples)
    ]
    low, high = np.quantile(macros, [0.025, 0.975])
    return float(low), float(high)
