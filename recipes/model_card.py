"""The model card of an export: what it is, what it was tuned on, how it did, and what it is not for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from recipes.base_models import on_hub
from recipes.config import Recipe

_WARNING = (
    "**Not a medical device, and not for diagnosis.** It is for research on reading ECG images; its answers can be "
    "wrong in any way, and no decision about a patient may rest on them."
)


def model_card(recipe: Recipe, facts: dict[str, Any], proof: dict[str, Any], figures: dict[str, Any] | None) -> str:
    """The text of README.md, with the metadata that huggingface.co reads at its head.

    facts: `run.json`, of which counts are told and never the ids of records. proof: what `recipes.export` found.
    figures: a report.json, or None.
    """
    whole = proof["merged"]
    head = {
        **({"base_model": recipe.model.base} if on_hub(recipe.model.base) else {}),
        "library_name": "transformers" if whole else "peft",
        "pipeline_tag": "image-text-to-text",
        "tags": ["ecg", "mllama", *([] if recipe.lora is None else ["lora"])],
    }
    asked = "Its logits, and those of the run that it was exported from, on a test page and four questions: "
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {recipe.name}",
        f"A model that answers questions about images of ECGs: {_what(recipe, whole)}. {_WARNING}",
        "## How to open it\n\n" + _how(recipe, whole),
        "## What it was tuned on\n\n" + _data(recipe, facts),
        "## How\n\n" + _how_tuned(facts) + f"\n\n```yaml\n{_recipe_text(recipe)}```",
        "## How it does\n\n" + _figures(figures),
        "## Export\n\n" + asked + _proof(proof),
        "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items()) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _what(recipe: Recipe, whole: bool) -> str:
    if recipe.lora is None:
        return f"all weights trained from {'scratch' if recipe.model.from_scratch else recipe.model.base}"
    return f"a LoRA adapter {'merged into' if whole else 'for'} {recipe.model.base}"


def _how(recipe: Recipe, whole: bool) -> str:
    load = "from transformers import AutoModelForImageTextToText, AutoProcessor\n"
    if whole:
        lines = 'model = AutoModelForImageTextToText.from_pretrained("FOLDER")\n'
    else:
        load += "from peft import PeftModel\n"
        base = "FOLDER/base" if recipe.model.base == "nano" else recipe.model.base
        lines = f'base = AutoModelForImageTextToText.from_pretrained("{base}", dtype="{recipe.model.dtype}")\n'
        lines += 'model = PeftModel.from_pretrained(base, "FOLDER")\n'
    lines += 'processor = AutoProcessor.from_pretrained("FOLDER")\n'
    return f"```python\n{load}\n{lines}```\n\nFOLDER is where this file lies."


def _data(recipe: Recipe, facts: dict[str, Any]) -> str:
    counts = [
        f"{facts['pages']:,} pages",
        *(f"{len(facts[name]):,} {name}" for name in ("records", "patients") if name in facts),
    ]
    folds = f"Folds {recipe.data.folds}. " if recipe.data.folds else ""
    hidden = f"Never told: {', '.join(recipe.data.leave_out)}. " if recipe.data.leave_out else ""
    return f"{', '.join(counts)}. {folds}{hidden}".strip()


def _how_tuned(facts: dict[str, Any]) -> str:
    trained, every = facts.get("trained_parameters", 0), facts.get("parameters", 0)
    text = f"{facts.get('steps', 0):,} steps in {facts.get('seconds', 0):,.0f} s; "
    text += f"{trained:,} of {every:,} parameters trained."
    for name, title in (("losses", "Training loss"), ("validation_losses", "Held-out loss")):
        if losses := facts.get(name):
            text += f" {title}: {losses[0][1]:.3f} at step {losses[0][0]}, {losses[-1][1]:.3f} at step {losses[-1][0]}."
    return text


def _recipe_text(recipe: Recipe) -> str:
    """The recipe without the folders of the machine it ran on."""
    tree = asdict(recipe)
    tree["data"] |= {"train": "", "validation": "", "leave_out": list(recipe.data.leave_out)}
    return yaml.safe_dump(tree, sort_keys=False)


def _figures(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "Not judged yet: `ecg-vlm evaluate` does that."
    lines = [
        str(figures.get("headline", "")),
        f"On {figures.get('dataset', '')}, {figures.get('records', '')} records.",
        "",
    ]
    for system in figures.get("systems", []):
        auc = ((system.get("macro_auc") or {}).get("all") or {}) if isinstance(system, dict) else {}
        if auc.get("value") is not None:
            limits = (
                f" (95 % interval {auc['low95']:.3f} to {auc['high95']:.3f})" if auc.get("low95") is not None else ""
            )
            lines.append(f"- {system.get('name')}: macro-AUC {auc['value']:.3f}{limits}")
    return "\n".join(lines).strip()


def _proof(proof: dict[str, Any]) -> str:
    def said(found: Any) -> str:
        return (
            f"they differ by at most {found.largest:.2g} standard deviations, and the same token is most likely at "
            f"{found.same_token:.1%} of {found.tokens} positions"
        )

    text = said(proof["agreement"]) + f" ({proof['dtype']})."
    if four_bit := proof.get("agreement_with_4bit"):
        text += f" With the 4-bit model that the adapter was trained on: {said(four_bit)}."
    return text
