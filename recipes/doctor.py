"""What this machine has, whether a recipe fits, and what to change where it does not fit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from recipes.config import LoraPart, ModelPart, Recipe, TrainPart
from recipes.inference import default_batch
from recipes.memory import Footprint, needs, needs_to_answer
from recipes.model import base_config, is_downloaded, on_hub

GB = 1e9
"""All sizes here are in gigabytes of 10^9 bytes, as in the sizes of GPU memory and of files."""

_ALLOWANCE = 0.8 * GB
"""Not counted, but used: CUDA's own context and kernels, scratch space, gaps between allocations. A rule of thumb."""

_SUSTAINED_FLOPS = {"a consumer card at 30 TFLOP/s": 30e12, "a data-centre card at 200 TFLOP/s": 200e12}


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, total bytes of memory, free ones, and whether it multiplies in bfloat16."""

    name: str
    total: int
    free: int
    bfloat16: bool = True


@dataclass(frozen=True)
class Machine:
    """CPU cores, free bytes of main memory, free bytes of disk, GPUs that torch can use."""

    cores: int
    memory: int
    disk: int
    gpus: tuple[Gpu, ...]

    @property
    def room(self) -> float:
        """Bytes that a training run can use: of the GPU with most free memory, or of main memory without a GPU."""
        return max(gpu.free for gpu in self.gpus) - _ALLOWANCE if self.gpus else float(self.memory)


_AMPERE = 8  # the first major compute capability with bfloat16; T4 has 7.5, V100 7.0


def _is_rocm() -> bool:
    return torch.version.hip is not None


def machine(folder: Path = Path()) -> Machine:
    """This machine; the disk is that of `folder`."""
    gpus = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(i)
        major, _ = torch.cuda.get_device_capability(i)
        gpus.append(Gpu(torch.cuda.get_device_name(i), total, free, bfloat16=major >= _AMPERE or _is_rocm()))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cores, psutil.virtual_memory().available, shutil.disk_usage(folder).free, tuple(gpus))


def doctor(
    recipe: Recipe | None = None,
    here: Machine | None = None,
    *,
    status: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Lines to print: what this machine can do and, given a recipe, what it needs, whether it fits, and what to change.

    Args:
        here: the machine to check; this one by default.
        status: called with what is being done before each long silent wait.

    Raises:
        InputError: When the recipe's base is not known.
    """
    here = here or machine()
    lines = [f"machine: {here.cores} CPU cores, {_gb(here.memory)} of main memory and {_gb(here.disk)} of disk free"]
    lines += [
        f"GPU {i}: {gpu.name}, {_gb(gpu.free)} of {_gb(gpu.total)} free" + ("" if gpu.bfloat16 else ", no bfloat16")
        for i, gpu in enumerate(here.gpus)
    ]
    if not here.gpus:
        lines.append(
            "no GPU that torch can use: nano works here; larger models take minutes a page, if memory suffices"
        )
    if find_spec("bitsandbytes") is None:
        lines.append("bitsandbytes is not installed: no 4-bit weights, no 8-bit optimizer (ecg-vlm[quantized])")
    if recipe is not None:
        lines += _describe(recipe, here, status)
    return lines


def _describe(recipe: Recipe, here: Machine, status: Callable[[str], None]) -> list[str]:
    status(f"counting a training step of {recipe.name}")
    need = needs(recipe)
    parts = ("weights", "adapter", "gradients", "optimizer", "activations", "working")
    lines = [
        f"{recipe.name}: {need.parameters:,} parameters, {need.trained:,} of them trained",
        f"counted, not measured: {', '.join(f'{name} {_gb(getattr(need, name))}' for name in parts)}",
        f"{need.flops_per_image / 1e12:.3g} TFLOP an image: "
        + ", ".join(f"{need.flops_per_image / rate:.2g} s on {card}" for card, rate in _SUSTAINED_FLOPS.items()),
        _verdict(need, here),
        _answering(recipe),
    ]
    if recipe.lora is not None and recipe.lora.dora:
        lines.append("not counted: what lora.dora adds, a weight of each layer in its 16 or 32 bits")
    if recipe.model.dtype == "bfloat16" and not all(gpu.bfloat16 for gpu in here.gpus):
        lines.append("change: model.dtype=float16, as the GPU has no bfloat16")
    if need.total > here.room:
        status("it does not fit: counting smaller recipes")
        lines.append(advice(recipe, here.room))
    base = recipe.model.base
    if on_hub(base) and not is_downloaded(base):
        size = 2 * (need.parameters - (need.trained if recipe.lora else 0))  # published in bfloat16
        lines.append(f"{_gb(size)} to download" + ("" if size < here.disk else f": the disk has {_gb(here.disk)} only"))
    return lines


def _answering(recipe: Recipe) -> str:
    """What `ecg-vlm ask` and `evaluate` need with the tuned model, and training in its evaluations."""
    batch = default_batch(base_config(recipe.model.base))
    weights, rest = needs_to_answer(recipe, batch=batch)
    return f"ask and evaluate need {_gb(weights + rest)} with --batch {batch}, the default"


def _verdict(need: Footprint, here: Machine) -> str:
    kind = "GPU memory" if here.gpus else "main memory"
    aside = f", {_gb(_ALLOWANCE)} set aside for CUDA" if here.gpus else ""
    spare = here.room - need.total
    if spare >= 0:
        return f"needs {_gb(need.total)} of {kind}, which leaves {_gb(spare)} to spare{aside}"
    return f"needs {_gb(need.total)} of {kind}, {_gb(-spare)} more than there is{aside}"


def advice(recipe: Recipe, room: float) -> str:
    """The overrides, added one by one, with which a recipe fits into `room` bytes, and what it then needs."""
    need, keys = needs(recipe).total, []
    for key, smaller in _savings(recipe):
        if need <= room:
            break
        need = needs(smaller).total
        keys.append(key)
    if not keys:
        return "it fits as it is" if need <= room else "no override makes it smaller; take a larger GPU"
    return f"change: {' '.join(keys)}; then it needs {_gb(need)}" + ("" if need <= room else "; take a larger GPU")


def _savings(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """Overrides that save memory, those that cost least quality first; each with all before it applied."""
    model, lora, train = recipe.model, recipe.lora, recipe.train
    steps: list[tuple[str, Recipe]] = []

    def then(key: str, **parts: ModelPart | LoraPart | TrainPart) -> None:
        steps.append((key, replace(steps[-1][1] if steps else recipe, **parts)))  # type: ignore[arg-type]

    if model.dtype == "float32":
        then("model.dtype=bfloat16", model=(model := replace(model, dtype="bfloat16")))
    if not train.gradient_checkpointing:
        then("train.gradient_checkpointing=true", train=(train := replace(train, gradient_checkpointing=True)))
    if train.images_per_batch > 1:
        batches = train.gradient_accumulation_steps * train.images_per_batch
        tokens = train.tokens_per_batch // train.images_per_batch
        key = f"train.images_per_batch=1 train.gradient_accumulation_steps={batches}"
        key += f" train.tokens_per_batch={tokens}" if tokens else ""
        train = replace(train, images_per_batch=1, gradient_accumulation_steps=batches, tokens_per_batch=tokens)
        then(key, train=train)
    if lora is not None and model.quantization == "none":
        then("model.quantization=nf4", model=replace(model, quantization="nf4"))
    if lora is not None and lora.targets == "all-linear":
        then("lora.targets=language", lora=replace(lora, targets="language"))
    return steps


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= 0.05 * GB else f"{size / 1e6:.1f} MB"
