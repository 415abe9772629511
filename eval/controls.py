"""Controls: the same records scored again on altered pages, to see whether the system looks at the page at all.

A system that reads the page falls to chance on blank and on shuffled pages, and falls little when the same tracing lies
on the page in another way. One that scores well on blank or shuffled pages knows its answers from elsewhere.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from eval.metrics.ranking import Interval, Rankings
from eval.metrics.system_metrics import Sampling, bootstrap_tasks
from eval.metrics.tasks import Floats, TaskView
from eval.types import LabelledRecords, System

MEANINGS: Mapping[str, str] = {
    "blank": "white paper of the same size; a system that looks falls to 0.5",
    "shuffled": "every record gets the page of another record; a system that looks falls to about 0.5",
    "copied": "the same page as a pale grey copy, tilted by one degree, JPEG quality 35; should fall little",
    "layout": "the same record drawn again in another layout; should fall little",
    "style": "the same record drawn again in another style; should fall little",
}
"""Control -> what is done, and what it does to a system that reads the page."""

CHANCE = ("blank", "shuffled")
"""Controls that leave nothing to be read: every system belongs at 0.5 here."""


@dataclass(frozen=True)
class Control:
    """One control: its name (of `MEANINGS`), its detail ("6x2"), and the scores on the altered pages."""

    name: str
    detail: str
    system: System


@dataclass(frozen=True)
class ControlMetrics:
    """Macro AUC on altered pages per task, and the paired difference, altered minus as they are.

    chance: for controls that leave nothing to be read, the range of 95 % of macro AUCs (task "all") of the same scores
    dealt out to the records at random.
    """

    name: str
    detail: str
    meaning: str
    macro_auc: dict[str, Interval]
    difference: dict[str, Interval]
    chance: tuple[float, float] | None = None

    @property
    def suspicious(self) -> bool:
        """Whether pages without anything to read still score better than chance."""
        return self.chance is not None and self.macro_auc["all"].value > self.chance[1]


def blank(image: Image.Image) -> Image.Image:
    """White paper of the same size."""
    return Image.new("RGB", image.size, "white")


def copied(image: Image.Image) -> Image.Image:
    """The same page as a poor copy; made from the picture alone, so it needs no records."""
    grey = image.convert("L").rotate(1.0, Image.Resampling.BICUBIC, fillcolor=255)
    pale = grey.point([round(40 + v * 200 / 255) for v in range(256)])
    out = io.BytesIO()
    pale.save(out, "JPEG", quality=35)
    return Image.open(out).convert("RGB")


def shuffled(n: int, seed: int = 0) -> NDArray[np.intp]:
    """A page for each of n records, (n,): a permutation in which nobody keeps their own, if n > 1.

    One cycle through a random order (Sattolo 1986 draws the same kind): uniform over cycles, no redrawing.
    """
    order = np.random.default_rng(seed).permutation(n)
    pages = np.empty(n, dtype=np.intp)
    pages[order] = np.roll(order, 1)
    return pages


def control_metrics(
    control: Control,
    records: LabelledRecords,
    views: Mapping[str, TaskView],
    as_they_are: Mapping[str, Rankings],
    sampling: Sampling,
) -> ControlMetrics:
    """Figures of one control beside the draws of the same system on the pages as they are."""
    scores = control.system.scores_of(records.record_ids)
    drawn = bootstrap_tasks(scores, views, sampling)
    return ControlMetrics(
        control.name,
        control.detail,
        MEANINGS[control.name],
        {task: r.auc.summary().macro for task, r in drawn.items()},
        {task: r.auc.minus(as_they_are[task].auc).summary().macro for task, r in drawn.items()},
        chance_range(views["all"], scores, sampling) if control.name in CHANCE else None,
    )


def chance_range(view: TaskView, scores: Floats, sampling: Sampling) -> tuple[float, float]:
    """2.5 and 97.5 % quantiles of the macro AUC when (n, 71) scores are dealt out to the records at random.

    A permutation test (Fisher 1935). The bootstrap interval of a shuffled control is too narrow to ask whether it holds
    0.5: it knows nothing of how the one shuffle fell, and rests on one or two positives in rare classes.
    """
    held = view.labels.any(axis=0) & ~view.labels.all(axis=0)
    labels = view.labels[:, held].astype(np.float64)
    ranks = rankdata(view.scores(scores)[:, held], axis=0)  # (m, c), ties share their mean rank
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
