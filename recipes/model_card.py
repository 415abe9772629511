"""The model card of an export: what it is, what it was tuned on, how it performs, and what it is not for."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from recipes.config import Recipe
from recipes.run_folder import (
    WARNING,
    RunFacts,
    base_name,
    card_header,
    describe,
    describe_data,
    describe_training,
    describe_versions,
    licence_notice,
    recipe_text,
)


def model_card(recipe: Recipe, facts: RunFacts, proof: dict[str, Any], report: dict[str, Any] | None) -> str:
    """The text of README.md, with the metadata that huggingface.co reads at its head.

    Args:
        facts: counts of these are shown, never the ids of records.
        proof: the result of `recipes.export.export`.
        report: a report.json, or None.
    """
    is_merged = proof["merged"]
    results = {} if report is None else _model_index(recipe.name, report)
    comparison = "Its logits, and those of the run that it was exported from, on a test page and four questions: "
    parts = [
        card_header(recipe, is_merged=is_merged, results=results),
        f"# {recipe.name}",
        f"A model that answers questions about images of ECGs: {describe(recipe, is_merged=is_merged)}. {WARNING}",
        "## How to open it\n\n" + _usage(recipe, is_merged),
        "## What it was tuned on\n\n" + describe_data(recipe, facts),
        "## How it was tuned\n\n" + describe_training(facts) + f"\n\n```yaml\n{recipe_text(recipe)}```",
        "## How it performs\n\n" + _figures(report),
        "## Export\n\n" + comparison + _proof(proof),
        *licence_notice(recipe),
        "## Versions\n\n" + describe_versions(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _usage(recipe: Recipe, is_merged: bool) -> str:
    imports = "from transformers import AutoModelForImageTextToText, AutoProcessor\n"
    if is_merged:
        lines = 'model = AutoModelForImageTextToText.from_pretrained("FOLDER")\n'
    else:
        imports += "from peft import PeftModel\n"
        base = "FOLDER/base" if recipe.model.base == "nano" else base_name(recipe)
        lines = f'base = AutoModelForImageTextToText.from_pretrained("{base}", dtype="{recipe.model.dtype}")\n'
        lines += 'model = PeftModel.from_pretrained(base, "FOLDER")\n'
    lines += 'processor = AutoProcessor.from_pretrained("FOLDER")\n'
    return f"```python\n{imports}\n{lines}```\n\nFOLDER is the folder of this file."


def _figures(report: dict[str, Any] | None) -> str:
    if report is None:
        return "Not evaluated yet: `ecg-vlm evaluate` does that."
    lines = [
        str(report.get("headline", "")),
        f"On {_dataset_name(report)}, {report.get('records', '')} records.",
        "",
    ]
    for system in report.get("systems", []):
        auc = ((system.get("macro_auc") or {}).get("all") or {}) if isinstance(system, dict) else {}
        if auc.get("value") is not None:
            limits = (
                f" (95 % interval {auc['low95']:.3f} to {auc['high95']:.3f})" if auc.get("low95") is not None else ""
            )
            lines.append(f"- {system.get('name')}: macro-AUC {auc['value']:.3f}{limits}")
    return "\n".join(lines).strip()


def _dataset_name(report: dict[str, Any]) -> str:
    """What it was judged on, without folders of this machine."""
    return ", ".join(PurePath(part).name for part in str(report.get("dataset", "")).split(", "))


def _model_index(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """The first system's figures as huggingface.co reads them; {} where the report has none."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    system: dict[str, Any] = next(iter(report.get("systems", [])), {})
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type="ecg-pages",
            dataset_name=_dataset_name(report) or "ECG pages",
            dataset_args={"records": report.get("records")},
            metric_type="roc_auc",
            metric_name=f"macro-AUC, {task}",
            metric_value=figure["value"],
        )
        for task, figure in (system.get("macro_auc") or {}).items()
        if isinstance(figure, dict) and figure.get("value") is not None
    ]
    return {"model-index": eval_results_to_model_index(name, results)} if results else {}


def _proof(proof: dict[str, Any]) -> str:
    text = _agreement(proof["agreement"]) + f" ({proof['dtype']})."
    if four_bit := proof.get("agreement_with_4bit"):
        text += f" With the 4-bit model that the adapter was trained on: {_agreement(four_bit)}."
    return text


def _agreement(agreement: Any) -> str:
    """A `recipes.export.Agreement` in words."""
    return (
        f"they differ by at most {agreement.largest:.2g} standard deviations, and the same token is most likely at "
        f"{agreement.same_token:.1%} of {agreement.tokens} positions"
    )
