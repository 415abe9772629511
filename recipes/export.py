"""Export of a finished run: the adapter or the merged model, proven to answer like the run, with a model card.

What is written can be loaded with transformers and peft alone. It is loaded so here, and gets the same page and
questions as the run's own model; when their logits differ by more than rounding explains, nothing is written.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import AutoModelForImageTextToText

from recipes.config import ModelPart, Recipe, load_recipe
from recipes.doctor import Machine, machine
from recipes.families import family_of
from recipes.memory import weight_bytes
from recipes.model import (
    NANO,
    RANDOM,
    as_folder,
    base_fingerprint,
    dtype_here,
    load_adapter,
    load_model,
    load_processor,
    nano_path,
    nf4_config,
    usable_device,
)
from recipes.model_card import model_card
from recipes.packing import render_chat
from recipes.run_folder import RunFacts, read_run
from render.errors import InputError, WorkFailed
from render.io import atomic_folder, read_json_object, require_empty

QUESTIONS = (
    "Is there atrial fibrillation in this ECG?",
    "Is this a normal ECG?",
    "What is the heart rhythm?",
    "Report this ECG.",
)


@dataclass(frozen=True)
class Agreement:
    """How much two models' logits differ on the same tokens.

    Attributes:
        largest: the largest difference, as a share of the logits' standard deviation.
        same_token: share of positions at which both give the same token the highest logit, or the second one that the
            first has within `_NEAR_TIE` of its highest.
        tokens: number of positions.
    """

    largest: float
    same_token: float
    tokens: int


# What rounding explains: the exported model adds the same numbers in another order (adapter), or rounds the sum of
# weight and update to the weight's type once more (merged). 16-bit weights have 8 bits, so near-ties may change: of a
# model of random weights at 15 to 19 % of positions where the processor multiplies bfloat16 in tiles (AMX).
_NEAR_TIE = 0.1  # standard deviations of the logits; the steps of bfloat16 at 4 to 8 of them are 0.016 and 0.03
_LIMITS = {
    "float32": Agreement(1e-3, 0.99, 0),
    "float16": Agreement(0.05, 0.95, 0),
    "bfloat16": Agreement(0.3, 0.9, 0),
}


def export(
    run: Path,
    out: Path,
    *,
    merge: bool,
    report: Path | None = None,
    dtype: str = "",
    quantization: str = "",
    device: str = "",
    status: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write the adapter of `run` (stock peft layout), or with `merge` the whole model, into the new folder `out`.

    A run from scratch has no adapter: its whole model is written. With nano as the base, the adapter's base is copied
    to `out/base`, and the adapter's config names it as ./base. An adapter trained on 4-bit weights is merged into the
    base in 16 bits: what `merge_and_unload` of 4-bit weights gives is rounded to 4 bits again.

    Returns the agreement with the run's own model: {"merged", "dtype", "agreement"} and, for an adapter trained on
    4-bit weights and merged, "agreement_with_4bit", which no limit is set for.

    Args:
        report: a report.json of `ecg-vlm evaluate`, whose figures go into the model card.
        dtype: of the merged model, and of the base that an adapter is tried on; "" for the recipe's.
        quantization: of the run's own model that the export is compared with; "" for the recipe's.
        device: where the models are loaded; "" for the GPU where there is one and a model fits into its memory.
        status: called with what is being done before each long silent wait.

    Raises:
        InputError: For a run that is unfinished or does not fit.
        WorkFailed: When the logits differ by more than `_LIMITS`; `out` is not made then.
    """
    require_empty(out)
    recipe, facts = _read_run(run)
    figures = read_json_object(report, "name the report.json of a report") if report else None
    whole = merge or recipe.lora is None
    choice: dict[str, Any] = {name: v for name, v in (("dtype", dtype), ("quantization", quantization)) if v}
    part = replace(recipe.model, **{"dtype": dtype_here(recipe.model.dtype), **choice})
    four_bit = None
    status(f"loading {run}")
    image, texts, processor = _test_inputs(part.base if recipe.lora else str(run))
    if merge and part.quantization == "nf4":
        four_bit = _logits(_load_run(run, recipe, part, device), processor, image, texts)
        part = replace(part, quantization="none")
        _free_memory()
        status("loading the base in 16 bits")
    device = device or place(part, machine())
    with atomic_folder(out) as folder:
        model = _load_run(run, recipe, part, device)
        own = _logits(model, processor, image, texts)
        status("writing the files")
        _write(model, processor, folder, part.base, whole)
        del model
        _free_memory()
        status("loading them with transformers and peft, and comparing the answers")
        stock = _logits(
            _load_stock(folder, part, whole, device),
            family_of(processor).open_processor(folder, trust_remote_code=False),
            image,
            texts,
        )
        agreement = _compare(own, stock)
        _require_agreement(agreement, part.dtype, run)
        result = {"merged": whole, "dtype": part.dtype, "agreement": agreement}
        if four_bit is not None:
            result["agreement_with_4bit"] = _compare(four_bit, stock)
        (folder / "README.md").write_text(model_card(recipe, facts, result, figures), encoding="utf-8")
    return {k: vars(v) if isinstance(v, Agreement) else v for k, v in result.items()}


_BESIDE_WEIGHTS = 1.25
"""Memory to load, merge and try a model, as a multiple of its weights: a merged layer is there twice, and a page with a
question takes 1 GB of the 11 B's 21."""


def place(part: ModelPart, here: Machine) -> str:
    """The device to load a model on: "" for the GPU, "cpu" where it would not fit there."""
    if not here.gpus:
        return ""
    return "" if _BESIDE_WEIGHTS * weight_bytes(part) <= here.room else "cpu"


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _require_agreement(agreement: Agreement, dtype: str, run: Path) -> None:
    limit = _LIMITS[dtype]
    if not (agreement.largest <= limit.largest and agreement.same_token >= limit.same_token):  # or NaN
        raise WorkFailed(
            f"{run}: the exported model does not answer like the run: logits differ by {agreement.largest:.2g} "
            f"standard deviations (at most {limit.largest:g} in {dtype}), the same token is most likely at "
            f"{agreement.same_token:.1%} of positions (at least {limit.same_token:.0%}); nothing was written; update "
            f"transformers and peft, then export again"
        )


def _read_run(run: Path) -> tuple[Recipe, RunFacts]:
    """Recipe and facts of a finished run that can be exported. Raises `InputError`."""
    facts, recipe = read_run(run), load_recipe(run / "recipe.yaml")
    if recipe.model.base.startswith(RANDOM):
        raise InputError(
            f"{run}: its base {recipe.model.base} has random weights, for measuring; export a run on another base"
        )
    if recipe.lora is not None and facts.base_sha256 != base_fingerprint(recipe.model.base):
        raise InputError(f"{run}: the adapter was made for another {recipe.model.base} than the one installed here")
    return recipe, facts


def _load_run(run: Path, recipe: Recipe, part: ModelPart, device: str) -> Any:
    """The run's own model, as `ecg-vlm ask` loads it."""
    if recipe.lora is None:
        return load_model(ModelPart(base=str(run), dtype=part.dtype), device=device)
    return load_adapter(load_model(part, device=device), run, part.base)


def _write(model: Any, processor: Any, folder: Path, base: str, whole: bool) -> None:
    """The files of the export. A merge changes `model`."""
    if whole:
        (model.merge_and_unload(safe_merge=True) if isinstance(model, PeftModel) else model).save_pretrained(folder)
    else:
        if base == NANO:
            shutil.copytree(nano_path(), folder / "base", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        for config in model.peft_config.values():
            config.base_model_name_or_path = "./base" if base == NANO else base
        model.save_pretrained(folder, save_embedding_layers=False)
    processor.save_pretrained(folder)


def _load_stock(folder: Path, part: ModelPart, whole: bool, device: str) -> Any:
    """The export, loaded as anybody would: with transformers and peft."""
    arguments: dict[str, Any] = {"dtype": getattr(torch, part.dtype), "attn_implementation": "sdpa"}
    arguments["trust_remote_code"] = False
    if (where := usable_device(device)).type != "cpu":
        arguments["device_map"] = {"": where}
    if whole:
        return AutoModelForImageTextToText.from_pretrained(folder, **arguments).eval()
    if part.quantization == "nf4":
        arguments["quantization_config"] = nf4_config(part)
    source = folder / "base" if part.base == NANO else as_folder(part.base) or part.base
    base = AutoModelForImageTextToText.from_pretrained(source, **arguments)
    return PeftModel.from_pretrained(base, folder).eval()


# The comparison


def _test_inputs(base: str) -> tuple[Image.Image, list[str], Any]:
    """A page, `QUESTIONS` as the base's chat, and its processor."""
    processor = load_processor(base)
    texts = [render_chat(processor, [{"role": "user", "content": q}], prompt=True) for q in QUESTIONS]
    return _test_page(), texts, processor


def _test_page() -> Image.Image:
    """Four traces on millimetre paper, 1120 x 560 pixels, always the same."""
    page = Image.new("RGB", (1120, 560), (255, 240, 238))
    pen = ImageDraw.Draw(page)
    for k in range(0, 1120, 20):
        pen.line([(k, 0), (k, 560)], fill=(240, 180, 175))
        pen.line([(0, k), (1120, k)], fill=(240, 180, 175))
    x = np.arange(1120)
    for row, height in enumerate((60, 90, -40, 120)):
        beat = np.exp(-((((x + 30 * row) % 150) - 60.0) ** 2) / 18) + 0.2 * np.exp(-(((x % 150) - 110.0) ** 2) / 200)
        pen.line(
            list(zip(x.tolist(), (100 + 125 * row - height * beat).tolist(), strict=True)), fill=(20, 20, 30), width=2
        )
    return page


@torch.no_grad()
def _logits(model: Any, processor: Any, image: Image.Image, texts: list[str]) -> list[Tensor]:
    """Logits at every position of every question, (tokens, vocabulary) each, float32, on the CPU."""
    logits = []
    for text in texts:
        inputs = processor(images=image, text=text, add_special_tokens=False, return_tensors="pt").to(model.device)
        logits.append(model(**inputs).logits[0].float().cpu())
    return logits


def _compare(first: list[Tensor], second: list[Tensor]) -> Agreement:
    a, b = torch.cat(first), torch.cat(second)
    deviation = a.std()
    lost = a.max(dim=-1).values - a.gather(-1, b.argmax(dim=-1, keepdim=True))[:, 0]
    return Agreement(
        largest=float((a - b).abs().max() / deviation),
        same_token=float((lost / deviation <= _NEAR_TIE).float().mean()),
        tokens=len(a),
    )
