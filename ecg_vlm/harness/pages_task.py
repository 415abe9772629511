"""The functions that `ecg_pages.yaml` names. The figures are those of `ecg-vlm evaluate` on the same answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecg_vlm.pages import load_pages
from eval.metrics.answers import decision_metrics
from eval.metrics.bootstrap import Sampling
from eval.parser.parse import parse, refusal
from render.dialogues.wording import OPEN_QUESTION

_Codes = tuple[Sequence[str], Sequence[str]]


def dataset(data: str = "pages", folds: Sequence[int] = (), **_: Any) -> dict[str, Any]:
    """The readable pages of a data set; the arguments are the harness's --metadata."""
    return {"test": load_pages(data, tuple(folds)).rows.select_columns(["image", "record_id", "statements"])}


def prompt(doc: Mapping[str, Any]) -> str:
    """The question, with the harness's mark of a picture."""
    return f"<image>\n{OPEN_QUESTION}"


def images(doc: Mapping[str, Any]) -> list[Any]:
    """The page, in RGB as models take it (it is stored with a palette)."""
    return [doc["image"].convert("RGB")]


def target(doc: Mapping[str, Any]) -> str:
    """The true statements, for the harness's log; nothing is compared with them as text."""
    return ", ".join(doc["statements"])


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """What one answer adds to each metric: true and stated codes for F1, 0 or 1 for the others."""
    answer = parse(results[0])
    codes: _Codes = (tuple(doc["statements"]), answer.present)
    return {
        "statement_f1": codes,
        "superclass_f1": codes,
        "unread_rate": float(not answer.findings),
        "refusal_rate": float(bool(refusal(results[0]))),
    }


def statement_f1(items: Sequence[_Codes]) -> float:
    """Mean F1 over the statements that some page has and some has not."""
    return _macro_f1(items, "all")


def superclass_f1(items: Sequence[_Codes]) -> float:
    """Mean F1 over the five superclasses, on the pages that have one."""
    return _macro_f1(items, "superdiagnostic")


def _macro_f1(items: Sequence[_Codes], task: str) -> float:
    truth, statements = zip(*items, strict=True)
    figures = decision_metrics(truth, statements, Sampling(resamples=1)).f1
    return figures[task].value if task in figures else float("nan")
