"""The model: where a base is read from, its 4-bit weights, its LoRA adapter, and its preparation for training.

One way to load each. `lm_head` and `embed_tokens` are never adapted. transformers' auto classes and peft take seconds
to import and `ecg-vlm ask` does without them (`recipes.fast_start`), so they are imported where they are used.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch

from recipes.families import FAMILIES, family_of
from render.errors import InputError, is_memory_full
from render.io import read_json_object, user_path

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import BitsAndBytesConfig

    from recipes.config import Dtype, LoraPart, ModelPart

NANO = "nano"
RANDOM = "random:"
"""Prefix of a base with random weights: random:nano, random:11b, random:qwen3-vl-8b ..."""

NOT_QUANTIZED = {"all": ["lm_head"], "language": ["lm_head", *(family.tower for family in FAMILIES.values())]}
"""What stays in 16 bits under NF4, for each `model.quantize`. The head, as its error would go directly into every
logit, and no adapter can correct it.

Each list has to be complete: the head, which transformers leaves out by default, is quantized as soon as another list
is given. Names are paths from the top ("model.vision_model"); a bare "vision_model" matches nothing, silently, as does
the tower of the other family.
"""

NEVER_ADAPTED = ("lm_head", "embed_tokens")

# Which module paths each choice of `lora.targets` reaches. "language" is every linear layer behind the vision tower: an
# Mllama's projector too, as the published recipe tunes it with the language side; a Qwen3-VL's is part of its tower.
_TOWER = "|".join(re.escape(family.tower) for family in FAMILIES.values())
_TARGETS = {
    "all-linear": r".*",
    "language": rf"(?!.*({_TOWER})\b).*",
    "cross-attention": r".*\.cross_attn\..*",
    "vision": rf".*({_TOWER})\b.*",
    "attention": r".*\.(self_attn|cross_attn|attn)\..*",
    "mlp": r".*\.mlp\..*",
}


def nano_path() -> Path:
    """The folder of the nano that ships with this package."""
    return Path(str(files("recipes"))) / "nano"


def base_fingerprint(base: str) -> str:
    """SHA-256 of nano's weights, so that an adapter is not put on another nano; "" for other bases."""
    weights = nano_path() / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest() if base == NANO and weights.is_file() else ""


def base_config(base: str) -> Any:
    """The configuration of a base, without its weights; the published ones without the network.

    Raises:
        InputError: When the base does not exist or is of no family that is known.
    """
    from transformers import AutoConfig

    is_random = base.startswith(RANDOM)
    size = base.removeprefix(RANDOM).lower() if is_random else ""
    if base == NANO or size == NANO:
        return AutoConfig.from_pretrained(nano_path())
    for family in FAMILIES.values():
        if size in family.shapes:
            return family.config(size)
        if on_hub(base) and (match := family.hub_name.fullmatch(base)):
            return family.config(match[1].lower())
    if is_random:
        names = ", ".join(RANDOM + name for name in (NANO, *(n for f in FAMILIES.values() for n in f.shapes)))
        raise InputError(f"model.base={base}: no such shape; there is {names}")
    config = load_from(AutoConfig.from_pretrained, base)
    if config.model_type not in FAMILIES:
        titles = " or a ".join(family.title for family in FAMILIES.values())
        raise InputError(f"model.base={base}: is a {config.model_type}; a {titles} is needed")
    return config


def load_from(loader: Any, base: str, **arguments: Any) -> Any:
    """Call a `from_pretrained` for nano, a folder or a hub id. Code that comes with a model is never run.

    Raises:
        InputError: For every failure, one line that says what to do.
    """
    folder = as_folder(base)
    arguments |= {"trust_remote_code": False}  # transformers would ask on standard input, and a "y" would run it
    if folder is None:
        arguments |= _reach_hub(base)
    elif not (folder / "config.json").is_file():
        raise InputError(f"model {base}: no config.json there; name a folder saved by transformers, or a hub id")
    try:
        return loader(folder or base, **arguments)
    except Exception as error:  # the loaders raise whatever the damage leads to: OSError, TypeError, SafetensorError
        if is_memory_full(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        mend = "check that its files are complete" if folder else "check the name and the free disk space"
        raise InputError(f"model {base}: cannot be loaded ({reason}); {mend}") from error


def as_folder(base: str) -> Path | None:
    """The folder of a base on this machine; None for a hub id."""
    if base == NANO:
        return nano_path()
    if base.startswith((".", "/", "~")) or Path(base).exists():
        return user_path(base)
    return None


def on_hub(base: str) -> bool:
    """Whether a base is a hub id: not nano, no folder, no random weights."""
    return not base.startswith(RANDOM) and as_folder(base) is None


def is_downloaded(base: str) -> bool:
    """Whether a hub id was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # a name that cannot be a hub id
        files = ("config.json", ADAPTER_CONFIG)
        return any(isinstance(try_to_load_from_cache(base, name), str) for name in files)
    return False


_HUB_SECONDS = 15.0


def _within(seconds: float, call: Callable[[], object]) -> None:
    """Wait at most so long for a call: a host that accepts and stays silent would hold the hub's client for half an
    hour. Raises what the call raises, and `TimeoutError`; a call that does not end is left behind in a thread."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if errors:
        raise errors[0]


def _reach_hub(base: str) -> dict[str, Any]:
    """Arguments with which a `from_pretrained` loads a hub id: none, or "only from the cache".

    One request asks whether the model exists and is open to the user. The loaders themselves ask for every file many
    times, which takes minutes without a network, and distinguish the cases in prose only.
    """
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        _within(_HUB_SECONDS, partial(auth_check, base))
        return {}
    except Exception as error:  # each library of the client raises its own error where there is no network
        if is_downloaded(base):
            return {"local_files_only": True}
        if isinstance(error, GatedRepoError):
            mend = f"is gated; accept its licence at https://huggingface.co/{base}, then run: hf auth login"
        elif isinstance(error, (RepositoryNotFoundError, ValueError)):
            mend = "is no folder here and no model on huggingface.co; check the name (if it is private: hf auth login)"
        else:
            mend = (
                f"is no folder here, and huggingface.co cannot be reached ({error}); check the path, or connect to "
                "download a model of this name"
            )
        raise InputError(f"model {base}: {mend}") from error


# Loading


def fast_bfloat16() -> bool:
    """Whether this machine has instructions to multiply in bfloat16: a GPU from Ampere on, or a CPU with AVX512-BF16.

    Without them products in bfloat16 take many times as long as in float32.
    """
    if torch.cuda.is_available():
        return not gpu_without_bfloat16()
    return bool(torch.cpu._is_avx512_bf16_supported())


def gpu_without_bfloat16() -> str:
    """The name of this machine's GPU where it has no bfloat16 (before Ampere: T4, V100), "" otherwise."""
    if not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False):
        return ""
    return str(torch.cuda.get_device_name())


def saved_dtype(base: str) -> Dtype:
    """The type that a model's config.json names; float32 where it names none, as nano's."""
    from recipes.config import Dtype

    dtype = str(base_config(base).dtype).removeprefix("torch.")
    return cast(Dtype, dtype) if dtype in get_args(Dtype) else "float32"


def dtype_here(dtype: Dtype) -> Dtype:
    """The type to open a model in that was tuned or saved in `dtype`: float16 where this GPU has no bfloat16."""
    return "float16" if dtype == "bfloat16" and gpu_without_bfloat16() else dtype


def usable_device(name: str = "") -> torch.device:
    """A device by its name in torch ("cpu", "cuda:1", "mps"); "" for the GPU where there is one.

    Raises:
        InputError: When this machine has no such device.
    """
    if not name:
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"device {name}: torch cannot use it here ({reason}); name another one, such as cpu"
        ) from error
    return device


def load_processor(base: str) -> Any:
    """Tokenizer and image processor of a base."""
    from transformers import AutoProcessor

    config = base_config(base)
    if base.startswith(RANDOM):
        return family_of(config).random_processor(config, AutoProcessor.from_pretrained(nano_path()))
    return load_from(family_of(config).open_processor, base)


def load_model(part: ModelPart, *, seed: int = 0, device: str = "") -> Any:
    """The base model of a recipe, in eval mode.

    Args:
        seed: of the weights of a model from scratch.
        device: see `usable_device`.

    Raises:
        InputError: When it does not exist, is gated, or is of no family that is known.
    """
    from transformers import AutoModelForImageTextToText

    if part.from_scratch:
        return _from_scratch(part, seed)
    if part.base.startswith(RANDOM):
        return _random_model(part, usable_device(device))
    arguments: dict[str, Any] = {"dtype": getattr(torch, part.dtype), "attn_implementation": "sdpa"}
    if has_4bit_weights(part.base):
        _require_4_bits(part)
    elif part.quantization == "nf4":
        arguments["quantization_config"] = nf4_config(part)
    if (place := usable_device(device)).type != "cpu":
        arguments["device_map"] = {"": place}
    model = load_from(AutoModelForImageTextToText.from_pretrained, part.base, **arguments)
    disable_repacking(model)
    keep_used_states(model)
    return model.eval()


def has_4bit_weights(base: str) -> bool:
    """Whether a base was saved in 4 bits."""
    return bool(getattr(base_config(base), "quantization_config", None))


def _require_4_bits(part: ModelPart) -> None:
    """Refuse to load a base that was saved in 4 bits as anything else, or without what it takes."""
    quantizer = getattr(base_config(part.base), "quantization_config")  # noqa: B009  # no attribute of every config
    if not quantizer.get("load_in_4bit"):
        kind = str(quantizer.get("quant_method"))[:40]
        raise InputError(f"model {part.base}: its weights are quantized ({kind}, not in 4 bits); take those in 16 bits")
    if part.quantization != "nf4":
        raise InputError(
            f"model {part.base}: its weights are in 4 bits; set model.quantization=nf4 (ask: --quantization nf4); to "
            f"merge an adapter, take the base in 16 bits"
        )
    _require_bitsandbytes()


def _require_bitsandbytes() -> None:
    if find_spec("bitsandbytes") is None:
        raise InputError("model.quantization=nf4: needs bitsandbytes; run: pip install 'ecg-vlm[quantized]'")


def _from_scratch(part: ModelPart, seed: int) -> Any:
    from transformers import AutoConfig, MllamaForConditionalGeneration

    from recipes.nano.initialize import initialize

    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(nano_path())
    model = MllamaForConditionalGeneration(config).to(getattr(torch, part.dtype))
    initialize(model)
    return model.eval()


def _random_model(part: ModelPart, device: torch.device) -> Any:
    """Random weights of a published shape. It reads nano's tokens, as its processor does."""
    from transformers import AutoConfig

    from recipes.random_weights import random_model

    config = base_config(part.base)
    nano = AutoConfig.from_pretrained(nano_path())
    config.image_token_id = nano.image_token_id
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(nano.text_config, name))
    quantizer = nf4_config(part) if part.quantization == "nf4" else None
    model = random_model(config, getattr(torch, part.dtype), quantizer, device)
    disable_repacking(model)
    keep_used_states(model)
    return model.eval()


def is_quantized(path: str, part: ModelPart) -> bool:
    """Whether the linear layer of that path has 4-bit weights."""
    return part.quantization == "nf4" and not f"{path}.".startswith(
        tuple(f"{name}." for name in NOT_QUANTIZED[part.quantize])
    )


def nf4_config(part: ModelPart) -> BitsAndBytesConfig:
    """4-bit NormalFloat, double-quantized, computing in the part's type (Dettmers et al. 2023, QLoRA).

    The bytes are stored as numbers of that type where FSDP shards the model: it divides only numbers with a fraction.

    Raises:
        InputError: When bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    _require_bitsandbytes()
    dtype = getattr(torch, part.dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if os.environ.get("ACCELERATE_USE_FSDP") == "true" else torch.uint8,
        llm_int8_skip_modules=NOT_QUANTIZED[part.quantize],
    )


_REPACKS = "support_avx512bf16_for_cpu"


def disable_repacking(model: torch.nn.Module) -> None:
    """Forbid bitsandbytes to repack 4-bit weights in place for CPUs with AVX512-BF16.

    It does so in any forward without gradient; a later merge then gives garbage, and a later training step raises.
    """
    for module in model.modules():
        if hasattr(module, _REPACKS):
            setattr(module, _REPACKS, False)


# The adapter


def linear_modules(model: torch.nn.Module, targets: str) -> list[str]:
    """Paths of the linear layers that a choice of `lora.targets` adapts, sorted; never the head or the embedding.

    Raises:
        InputError: When the model has none.
    """
    pattern = re.compile(_TARGETS[targets])
    layers = sorted(
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and pattern.fullmatch(name)
        and not any(part in NEVER_ADAPTED for part in name.split("."))
    )
    if not layers:
        raise InputError(f"recipe: lora.targets={targets}: the model has no such layer; take lora.targets=language")
    return layers


def add_lora(model: Any, part: LoraPart) -> PeftModel:
    """Wrap `model` with a fresh adapter. The layers are named one by one, so that nothing matches by accident."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=part.rank,
        lora_alpha=part.alpha,
        lora_dropout=part.dropout,
        bias="none",
        target_modules=linear_modules(model, part.targets),
        task_type="CAUSAL_LM",
        use_rslora=part.rslora,
        use_dora=part.dora,
    )
    return get_peft_model(model, config)


ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter without its base: an export, or what peft saves."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def local_adapter(name: str) -> Path:
    """The folder of a model on this machine, `name` itself unless it is the hub id of an adapter, whose files are
    fetched: safetensors and JSON alone.

    Raises:
        InputError: When it is neither a folder nor a model on the hub that is open to the user.
    """
    return load_from(_fetch_adapter, name) if name != NANO and on_hub(name) else Path(name)


def _fetch_adapter(name: str, *, trust_remote_code: bool, **arguments: Any) -> Path:
    """trust_remote_code: nothing that is fetched holds code."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(name, ADAPTER_CONFIG, **arguments)
    except EntryNotFoundError:
        return Path(name)  # a whole model
    return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja"], **arguments))


def adapter_base(folder: Path) -> tuple[str, str]:
    """The base that an adapter names, as it is written there and as it is to be loaded.

    A name that begins with a dot is a folder in the adapter's own, as in an export on nano. It is nano where it has
    nano's weights.
    """
    name = str(read_json_object(folder / ADAPTER_CONFIG, "name the folder of an adapter").get(_BASE_KEY))
    where = folder / name if name.startswith(".") and (folder / name).is_dir() else Path(name)
    weights = where / "model.safetensors"
    is_nano = weights.is_file() and hashlib.sha256(weights.read_bytes()).hexdigest() == base_fingerprint(NANO)
    return name, NANO if is_nano else str(where)


def load_adapter(model: Any, folder: Path, base: str) -> PeftModel:
    """Put a saved adapter on `model`.

    base: the name of its base, as the adapter has to give it.

    Raises:
        InputError: When it was made for another base, is no plain LoRA, or does not have every tensor of its layers.
    """
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    config_file, weights = folder / ADAPTER_CONFIG, folder / _ADAPTER_WEIGHTS
    config = read_json_object(config_file, "name the folder of a finished run")
    own_base = str(config.get(_BASE_KEY))
    if own_base != base:
        raise InputError(f"{folder}: the adapter was made for base {own_base}, not {base}; load it on {own_base}")
    if not weights.is_file():
        raise InputError(f"{folder}: {_ADAPTER_WEIGHTS} is missing; the run did not finish, run it again with --resume")
    _require_plain_lora(config, config_file)
    try:
        with safe_open(weights, framework="pt") as file:
            names_in_file = {_current_name(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        lora = LoraConfig.from_pretrained(str(folder))
        lora.target_modules = _adapted_layers(config["target_modules"], names_in_file)
        peft_model = PeftModel.from_pretrained(model, str(folder), config=lora, key_mapping=_CURRENT_NAMES).eval()
        tensor_names = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        if is_memory_full(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{folder}: the adapter does not fit {base} ({reason}); it was made for another version of the base"
        ) from error
    if names_in_file != tensor_names:
        raise InputError(
            f"{weights}: has {len(names_in_file & tensor_names)} of the {len(tensor_names)} tensors of its layers and "
            f"{len(names_in_file - tensor_names)} others; the file is not whole, copy it again or run the tuning again"
        )
    return peft_model


_BASE_KEY = "base_model_name_or_path"
_PREFIX = "base_model.model."

_CURRENT_NAMES = {
    r"^language_model\.model\.": "model.language_model.",
    r"^vision_model\.": "model.vision_model.",
    r"^multi_modal_projector\b": "model.multi_modal_projector",
}
"""Where an Mllama's modules were up to transformers 4.51 and where they are now. Left to itself, peft loads what the
two have in common and ignores the rest."""


def _current_name(name: str) -> str:
    """The name of a module, or of an adapter's tensor, under which it is found in an Mllama today."""
    prefix = _PREFIX if name.startswith(_PREFIX) else ""
    name = name.removeprefix(prefix)
    for pattern, replacement in _CURRENT_NAMES.items():
        name = re.sub(pattern, replacement, name)
    return prefix + name


def _adapted_layers(targets: str | list[str], tensor_names: Collection[str]) -> list[str]:
    """The layers that an adapter's configuration names: paths or their ends; those of its tensors for a pattern, which
    is never run: it may take for ever."""
    if isinstance(targets, str):
        return sorted({name.removeprefix(_PREFIX).partition(".lora_")[0] for name in tensor_names})
    return [_current_name(name) for name in targets]


# What adapters differ in; everything else in their configuration has to be as in a plain LoRA.
_LORA_KEYS = {
    *("base_model_name_or_path", "inference_mode", "lora_alpha", "lora_dropout", "peft_version", "r", "revision"),
    *("target_modules", "task_type", "auto_mapping", "use_rslora", "use_dora"),
}
_LARGEST_RANK = 4096


def _require_plain_lora(config: dict[str, Any], where: Path) -> None:
    """Refuse an adapter of another kind, which peft would load without a word.

    Another initialisation (PiSSA, OLoRA) changes the base when it is loaded.
    """
    from peft import LoraConfig

    mend = "adapters of ecg-vlm finetune are plain LoRA; name one of these"
    usual = LoraConfig().to_dict()
    usual["peft_type"] = "LORA"
    for key, value in config.items():
        if key not in _LORA_KEYS and (value or usual.get(key)) and value != usual.get(key):
            raise InputError(f"{where}: {key}={str(value)[:40]!r} is not supported; {mend}")
    rank, names = config.get("r"), config.get("target_modules")
    if type(rank) is not int or not 1 <= rank <= _LARGEST_RANK:
        raise InputError(f"{where}: r={str(rank)[:40]!r} is not a rank from 1 to {_LARGEST_RANK}; {mend}")
    if not (names and (isinstance(names, str) or (isinstance(names, list) and all(isinstance(n, str) for n in names)))):
        raise InputError(f"{where}: target_modules={str(names)[:40]!r} is not a list of layers; {mend}")


# Prepared for training


def apply_checkpointing(model: Any, *, checkpointing: bool) -> None:
    """Prepare a model, with or without an adapter, for training in little memory.

    A frozen vision tower runs without gradient, a trained one is checkpointed layer by layer: it takes 19 of the 22
    TFLOP of an 11 B forward pass, and most of the activations. transformers does neither: its checkpointing omits an
    Mllama's vision layers, and makes the patch embedding's output require gradients even when nothing in the tower is
    trained, so that all of it is traced and back-propagated. Gradients are the stock ones to the bit.

    Args:
        checkpointing: recompute the activations of text layers, and of vision layers where those are trained.
    """
    vision = vision_model(model)
    is_trained = any(parameter.requires_grad for parameter in vision.parameters())
    if not is_trained:
        vision.forward = torch.no_grad()(vision.forward)
    if not checkpointing:
        return
    _checkpoint_text(model)
    if is_trained:
        for encoder, _ in family_of(model.config).encoders(vision):
            for layer in encoder.layers:
                _checkpoint_layer(layer)


def keep_used_states(model: Any) -> None:
    """Let the tower's encoders keep only those outputs of their layers that the tower reads: five of the 11 B's 32,
    which saves half a gigabyte an image. What it returns is the same to the bit."""
    for encoder, indices in family_of(model.config).encoders(vision_model(model)):
        _keep_states(encoder, indices)


def _keep_states(encoder: Any, indices: set[int]) -> None:
    from transformers.modeling_outputs import BaseModelOutput

    def forward(hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Any:
        states: list[torch.Tensor | None] = []
        for k, layer in enumerate(encoder.layers):
            hidden_states = layer(hidden_states=hidden_states, attention_mask=attention_mask)
            states.append(hidden_states if k in indices or k - len(encoder.layers) in indices else None)
        return BaseModelOutput(last_hidden_state=hidden_states, hidden_states=tuple(states))

    encoder.forward = forward


def vision_model(model: Any) -> Any:
    """The vision tower of a model, with or without an adapter."""
    tower = family_of(model.config).tower
    return next(module for name, module in model.named_modules() if f".{name}".endswith(f".{tower}"))


def _checkpoint_text(model: Any) -> None:
    """The stock call, non-reentrant; its name changed in transformers 5.

    It also makes inputs require gradients, which only reentrant checkpointing needs: undone here.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.disable_input_require_grads()


def _checkpoint_layer(layer: Any) -> None:
    from torch.utils.checkpoint import checkpoint

    forward = layer.forward

    def recompute(*args: Any, **kwargs: Any) -> Any:
        if layer.training and torch.is_grad_enabled():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)

    layer.forward = recompute
