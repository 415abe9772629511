"""Figures of held-out pages while a model is tuned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_SAMPLE, _BATCH = 200, 8


def validation(folder: str) -> Callable[[Any, Any], dict[str, float]]:
    """For `recipes.train.finetune`: model, processor -> macro-AUC of the 71 statements on the first 200 pages.

    Statements that stand on none or on all of these pages do not count; how many do is the second figure.
    Raises `InputError` when `folder` holds no data set.
    """
    from ecg_vlm.evaluation import load_pages
    from ecg_vlm.reader import Reader
    from eval.metrics.ranking import macro_auc
    from eval.metrics.tasks import label_matrix

    pages = load_pages(folder, limit=_SAMPLE).rows
    labels, classes = label_matrix(pages["statements"], "all")

    def judge(model: Any, processor: Any) -> dict[str, float]:
        reader = Reader(model, processor)
        starts = range(0, len(pages), _BATCH)
        scores = np.concatenate([reader.score_many(pages[i : i + _BATCH]["image"]) for i in starts])
        auc = macro_auc(labels, scores, classes)
        return {"macro_auc": auc.value, "statements": float(len(auc.per_class))}

    return judge
