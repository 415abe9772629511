"""The model: base, 4-bit weights, LoRA. One way to load each, and `lm_head` and `embed_tokens` are never adapted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    MllamaForConditionalGeneration,
)

from recipes.base_models import NANO as NANO
from recipes.base_models import RANDOM, disable_repacking, load_from, nf4_config, random_model, random_processor
from recipes.base_models import nano_path as nano_path
from recipes.config import LoraPart, ModelPart
from recipes.nano.initialize import start
from render.errors import InputError

NEVER_ADAPTED = ("lm_head", "embed_tokens")

# Which module paths each choice of `lora.targets` reaches. "language" is every linear layer behind the vision tower,
# the projector included, as the published recipe tunes it with the language side.
_TARGETS = {
    "all-linear": r".*",
    "language": r"(?!.*vision_model).*",
    "cross-attention": r".*\.cross_attn\..*",
    "vision": r".*vision_model.*",
}


def fast_bfloat16() -> bool:
    """Whether this machine has instructions to multiply in bfloat16: a GPU, or a CPU with AVX512-BF16.

    Without them products in bfloat16 take many times as long as in float32.
    """
    return torch.cuda.is_available() or bool(torch.cpu._is_avx512_bf16_supported())


def load_processor(base: str) -> Any:
    """Tokenizer and image processor of a base."""
    return random_processor(base) if base.startswith(RANDOM) else load_from(AutoProcessor.from_pretrained, base)


def load_model(part: ModelPart, *, seed: int = 0) -> Any:
    """The base model of a recipe, in eval mode.

    Raises `InputError` when it is not there, is gated, or is no Mllama.
    """
    if part.from_scratch:
        return _from_scratch(part, seed)
    if part.base.startswith(RANDOM):
        return random_model(part.base, part.dtype, part.quantization)
    arguments: dict[str, Any] = {"dtype": getattr(torch, part.dtype), "attn_implementation": "sdpa"}
    if part.quantization == "nf4":
        arguments["quantization_config"] = nf4_config(part.dtype)
    if torch.cuda.is_available():
        arguments["device_map"] = {"": torch.cuda.current_device()}
    model = load_from(AutoModelForImageTextToText.from_pretrained, part.base, **arguments)
    if not isinstance(model, MllamaForConditionalGeneration):
        raise InputError(f"model.base={part.base}: is a {type(model).__name__}; a Llama 3.2 Vision (Mllama) is needed")
    disable_repacking(model)
    return model.eval()


def _from_scratch(part: ModelPart, seed: int) -> Any:
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(nano_path())
    model = MllamaForConditionalGeneration(config).to(getattr(torch, part.dtype))
    start(model)
    return model.eval()


def linear_modules(model: torch.nn.Module, targets: str) -> list[str]:
    """Paths of the linear layers that a choice of `lora.targets` adapts, sorted; never the head or the embedding."""
    pattern = re.compile(_TARGETS[targets])
    return sorted(
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and pattern.fullmatch(name)
        and not any(part in NEVER_ADAPTED for part in name.split("."))
    )


def add_lora(model: Any, part: LoraPart) -> PeftModel:
    """Wrap `model` with a fresh adapter. The adapted layers are named one by one, so nothing is matched by accident."""
    config = LoraConfig(
        r=part.rank,
        lora_alpha=part.alpha,
        lora_dropout=part.dropout,
        bias="none",
        target_modules=linear_modules(model, part.targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def load_adapter(model: Any, folder: Path, base: str) -> PeftModel:
    """Put a saved adapter on `model`. Raises `InputError` when it was made for another base or does not fit."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{folder}: no readable adapter_config.json ({error}); name the folder of a finished run"
        ) from error
    made_for = str(config.get("base_model_name_or_path"))
    if made_for != base:
        raise InputError(f"{folder}: the adapter was made for base {made_for}, not {base}; load it on {made_for}")
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(
            f"{folder}: adapter_model.safetensors is missing; the run did not finish, run it again with --resume"
        )
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{folder}: the adapter does not fit {base} ({reason}); it was made for another version of the base"
        ) from error
