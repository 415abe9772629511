"""The bases: where each is read from, what each is shaped like, and random weights of those shapes for measuring."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from render.errors import InputError

if TYPE_CHECKING:  # the auto classes know every model there is and take seconds to import: at the place of use
    from transformers import BitsAndBytesConfig, MllamaConfig

NANO = "nano"
RANDOM = "random:"
"""Prefix of a base with random weights: random:nano, random:11b, random:90b."""

# Llama 3.2 Vision as published (Hugging Face model cards; Llama 3.2 Vision collection, Meta 2024): 560-pixel tiles, and
# transformers' defaults for the rest of the 11 B. Counted on these shapes: 10.67 B and 88.6 B parameters.
_VISION = {"image_size": 560}
_TEXT: dict[str, dict[str, Any]] = {
    "11b": {},
    "90b": {
        "hidden_size": 8192,
        "intermediate_size": 28_672,
        "num_attention_heads": 64,
        "num_hidden_layers": 100,
        "cross_attention_layers": list(range(3, 100, 5)),
    },
}
_PUBLISHED = re.compile(r"(?:.*/)?llama-3\.2-(11b|90b)-vision(?:-instruct)?", re.IGNORECASE)

NOT_QUANTIZED = ["lm_head"]
"""Kept in 16 bit under NF4: the head's error would go straight into every logit, and no adapter can make up for it.

Everything else that is linear is quantized, the vision tower included. The list has to be given in full: what
transformers leaves out by itself, the head, is quantized as soon as another list is given. Names are paths from the
top ("model.vision_model"); a bare "vision_model" matches nothing, silently.
"""


def nano_path() -> Path:
    """The folder of the nano that ships with this package."""
    return Path(str(files("recipes"))) / "nano"


def base_fingerprint(base: str) -> str:
    """SHA-256 of nano's weights, so that an adapter is not put on another nano; "" for other bases."""
    weights = nano_path() / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest() if base == NANO and weights.is_file() else ""


def base_config(base: str) -> MllamaConfig:
    """The shapes of a base, without its weights; the published ones without the network.

    Raises `InputError` when the base is not there or is no Mllama.
    """
    from transformers import AutoConfig, MllamaConfig

    size = base.removeprefix(RANDOM).lower() if base.startswith(RANDOM) else _published_size(base)
    if base == NANO or size == NANO:
        return AutoConfig.from_pretrained(nano_path())
    if size in _TEXT:
        return MllamaConfig(vision_config=dict(_VISION), text_config=dict(_TEXT[size]))
    if base.startswith(RANDOM):
        known = ", ".join(RANDOM + name for name in (NANO, *_TEXT))
        raise InputError(f"model.base={base}: no such shape; there is {known}")
    config = load_from(AutoConfig.from_pretrained, base)
    if not isinstance(config, MllamaConfig):
        raise InputError(f"model.base={base}: is a {config.model_type}; a Llama 3.2 Vision (mllama) is needed")
    return config


def _published_size(base: str) -> str:
    match = None if as_folder(base) else _PUBLISHED.fullmatch(base)
    return match[1].lower() if match else ""


def load_from(loader: Any, base: str, **arguments: Any) -> Any:
    """Call a `from_pretrained` for nano, a folder or a hub id; every way it fails becomes one line: what to do."""
    folder = as_folder(base)
    if folder is None:
        arguments |= _reach_hub(base)
    elif not (folder / "config.json").is_file():
        raise InputError(f"model {base}: no config.json there; name a folder saved by transformers, or a hub id")
    try:
        return loader(folder or base, **arguments)
    except Exception as error:  # the loaders raise whatever the damage leads to: OSError, TypeError, SafetensorError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        mend = "check that its files are whole" if folder else "check the name and the room on the disk"
        raise InputError(f"model {base}: cannot be loaded ({reason}); {mend}") from error


def as_folder(base: str) -> Path | None:
    """Where a base lies on this machine; None for a hub id."""
    if base == NANO:
        return nano_path()
    if base.startswith((".", "/", "~")) or Path(base).exists():
        return Path(base).expanduser()
    return None


def on_hub(base: str) -> bool:
    """Whether a base is a hub id: not nano, no folder, no random weights."""
    return not base.startswith(RANDOM) and as_folder(base) is None


def is_downloaded(base: str) -> bool:
    """Whether a hub id was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # a name that cannot be a hub id
        return isinstance(try_to_load_from_cache(base, "config.json"), str)
    return False


def _reach_hub(base: str) -> dict[str, Any]:
    """Arguments with which a `from_pretrained` finds a hub id: none, or "what was downloaded before".

    One request asks whether the model is there and open to the user. Left to themselves the loaders ask for every
    file many times over, which takes minutes without a network, and tell the cases apart in prose only.
    """
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        auth_check(base)
        return {}
    except Exception as error:  # no network has as many names as the client has libraries
        if is_downloaded(base):
            return {"local_files_only": True}
        if isinstance(error, GatedRepoError):
            mend = f"is gated; accept its licence at https://huggingface.co/{base}, then run: hf auth login"
        elif isinstance(error, (RepositoryNotFoundError, ValueError)):
            mend = "is no folder here and no model on huggingface.co; check the name (if it is private: hf auth login)"
        else:
            mend = f"huggingface.co cannot be reached ({error}); connect, or name a folder that holds the model"
        raise InputError(f"model {base}: {mend}") from error


def nf4_config(dtype: str) -> BitsAndBytesConfig:
    """4-bit NormalFloat, double-quantized, computing in `dtype` (Dettmers et al. 2023, QLoRA).

    Raises `InputError` when bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise InputError("model.quantization=nf4: needs bitsandbytes; run: pip install 'ecg-vlm[quantized]'")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=NOT_QUANTIZED,
    )


_REPACKS = "support_avx512bf16_for_cpu"


def disable_repacking(model: torch.nn.Module) -> None:
    """Forbid bitsandbytes to repack 4-bit weights in place for CPUs with AVX512-BF16.

    It does so in any forward without gradient; a later merge then yields garbage, and a later training step raises.
    """
    for module in model.modules():
        if hasattr(module, _REPACKS):
            setattr(module, _REPACKS, False)


def random_processor(base: str) -> Any:
    """Nano's tokenizer, and an image processor with the tiles of the shape that `base` names."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(nano_path())
    vision = base_config(base).vision_config
    images = processor.image_processor
    images.size = type(images.size)(height=vision.image_size, width=vision.image_size)
    images.max_image_tiles = vision.max_num_tiles
    return processor


@torch.no_grad()
def random_model(base: str, dtype: str, quantization: str) -> Any:
    """A model of published shape with random weights, for measuring speed and memory where no weights are at hand.

    Made layer by layer on the GPU if there is one, in its final type: nothing is ever held in a larger one. It speaks
    nano's tokens (the first of its vocabulary), so `random_processor` serves it. The weights are the same every time
    on the same kind of device; all gates are open, so the image counts.
    """
    from transformers import AutoConfig, MllamaForConditionalGeneration

    config = base_config(base)
    nano = AutoConfig.from_pretrained(nano_path())
    config.image_token_index = nano.image_token_index
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(nano.text_config, name))
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    with torch.device("meta"):
        model = MllamaForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    rng = torch.Generator(device).manual_seed(0)
    quantizer = nf4_config(dtype) if quantization == "nf4" else None
    for path, module in list(model.named_modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            value = torch.empty(parameter.shape, dtype=getattr(torch, dtype), device=device)
            _fill(value, f"{path}.{name}", type(module).__name__, rng)
            module.register_parameter(name, torch.nn.Parameter(value))
        if quantizer is not None and type(module) is torch.nn.Linear and path not in NOT_QUANTIZED:
            model.set_submodule(path, _quantized(module, quantizer))
    rotary = type(model.model.language_model.rotary_emb)
    model.model.language_model.rotary_emb = rotary(config.text_config).to(device)
    model.is_loaded_in_4bit = quantizer is not None  # peft and TRL ask for it
    disable_repacking(model)
    return model.eval()


def _fill(value: torch.Tensor, path: str, kind: str, rng: torch.Generator) -> None:
    if "gate" in path.rpartition(".")[2]:
        value.fill_(0.5)
    elif kind.endswith("Norm") and path.endswith("weight"):
        value.fill_(1.0)
    elif path.endswith("bias"):
        value.zero_()
    else:
        value.normal_(std=0.02, generator=rng)


def _quantized(linear: torch.nn.Linear, quantizer: BitsAndBytesConfig) -> torch.nn.Module:
    """`linear` as a 4-bit layer; moving the weight to its device quantizes it."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    layer = Linear4bit(  # type: ignore[no-untyped-call]
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=quantizer.bnb_4bit_compute_dtype,
        compress_statistics=quantizer.bnb_4bit_use_double_quant,
        quant_type=quantizer.bnb_4bit_quant_type,
        device="meta",
    )
    weight: Any = Params4bit(
        linear.weight.data,
        requires_grad=False,
        compress_statistics=quantizer.bnb_4bit_use_double_quant,
        quant_type=quantizer.bnb_4bit_quant_type,
        module=layer,
    )
    layer.weight = weight.to(linear.weight.device)
    layer.bias = linear.bias
    return layer.requires_grad_(False)
