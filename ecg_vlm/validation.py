"""Figures of held-out pages while a model is tuned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from render.dataset.parquet import is_dataset

_PAGES = 200


def validation(names: str) -> Callable[[Any, Any], dict[str, float]] | None:
    """For `recipes.train.finetune`: model, processor -> macro-AUC of the 71 statements on the first 200 pages.

    Statements that are present on none or on all of these pages do not count; the number of the others is the second
    figure. None where no page has labels: rows in other forms than those of `ecg-vlm render` have answers alone.

    names: `recipes.config.DataPart.validation`.
    """
    folders = [name for name in map(str.strip, names.split(",")) if is_dataset(name)]
    if not folders:
        return None
    from ecg_vlm.evaluation import score_images
    from ecg_vlm.pages import load_pages
    from ecg_vlm.reader import Reader
    from eval.metrics.bootstrap import macro_auc
    from eval.types import label_matrix

    rows = load_pages(folders, limit=_PAGES).rows
    labels, classes = label_matrix(rows["statements"], "all")

    def validate(model: Any, processor: Any) -> dict[str, float]:
        scores = score_images(Reader(model, processor), lambda row: rows[row]["image"], len(rows))
        auc = macro_auc(labels, scores, classes)
        return {"macro_auc": auc.value, "statements": float(len(auc.per_class))}

    return validate
