"""What a recipe needs, counted before anything heavy starts, and what this machine has.

Nothing is estimated by formula: a training step of the recipe's own model runs on torch's meta device, where tensors
have shapes and types but no bytes, while what would be allocated and computed is counted. It says what a GPU would be
asked for, kernels' scratch space and the allocator's gaps left out.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import MllamaForConditionalGeneration

from recipes.base_models import NOT_QUANTIZED, base_config
from recipes.config import Recipe
from recipes.model import add_lora
from recipes.vision_tower import apply_checkpointing

TEXT_TOKENS = 768
"""Text tokens behind one image unless told otherwise: eight dialogues of 96 tokens."""

# NF4 with double quantization (Dettmers et al. 2023): half a byte a weight, a byte for each block of 64, a float32 for
# each 256 of these; per layer a float32 offset and the two code tables of 16 and 256 float32.
_NF4_BLOCK, _NF4_NESTED_BLOCK, _NF4_TABLES = 64, 256, 4 * (1 + 16 + 256)

# AdamW's two moments: 4 bytes each beside a 4-byte parameter, or 1 byte each and a float32 for each block of 256.
_8BIT_MOMENT = 1 + 4 / 256

_TILE = (4096, 32_768)  # tokens and words of the logits that TRL's fused head holds at a time


@dataclass(frozen=True)
class Footprint:
    """Bytes, unless said otherwise, of one device that trains a recipe."""

    parameters: int
    """Parameters of the base and the adapter (a number)."""
    trained: int
    """Parameters that are trained (a number)."""
    weights: int
    """The base, in its type or in NF4 with all that belongs to it."""
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """What the forward pass of a batch leaves behind for the backward pass."""
    working: int
    """What comes on top at the worst moment of a step: a recomputed layer, logits, a dequantized weight."""
    flops_per_image: float
    """Floating-point operations to train on one image and its text (a multiplication and an addition are two)."""

    @property
    def total(self) -> int:
        """All bytes at the worst moment of a step."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.activations + self.working


def needs(recipe: Recipe, *, text_tokens: int = 0) -> Footprint:
    """Count what training by `recipe` takes. No weight is read; some ten seconds for the 11 B.

    text_tokens: tokens of the dialogues behind one image; 0 for the most that `train.tokens_per_batch` lets in, or
    `TEXT_TOKENS` where the recipe sets no limit. Raises `InputError` when the base is not known.
    """
    train = recipe.train
    text_tokens = text_tokens or train.tokens_per_batch // train.images_per_batch or TEXT_TOKENS
    model = meta_model(recipe)
    trained = [p for p in model.parameters() if p.requires_grad]
    base = [p for n, p in model.named_parameters() if "lora_" not in n]
    paged = train.optimizer == "paged_adamw_8bit"
    moments = 2 * _8BIT_MOMENT / trained[0].element_size() if paged else 2  # Muon: one for matrices, so two at most
    held, peak, flops = _count_step(recipe, model, text_tokens)
    nf4 = recipe.model.quantization == "nf4"
    return Footprint(
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in trained),
        weights=sum(p.nbytes for p in base) - (_nf4_saves(model) if nf4 else 0),
        adapter=sum(p.nbytes for n, p in model.named_parameters() if "lora_" in n),
        gradients=sum(p.nbytes for p in trained),
        optimizer=round(moments * sum(p.nbytes for p in trained)),
        activations=held,
        working=peak - held + (max(p.nbytes for p in _quantized_weights(model)) if nf4 else 0),
        flops_per_image=flops / train.images_per_batch,
    )


def meta_model(recipe: Recipe) -> Any:
    """The recipe's model with its adapter, as trained but without bytes."""
    with torch.device("meta"):
        config = base_config(recipe.model.base)
        model = MllamaForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    model = model.to(getattr(torch, recipe.model.dtype))
    if recipe.lora is None:
        return model.train()
    with torch.device("meta"):
        wrapped = add_lora(model, recipe.lora)
    if recipe.model.quantization == "nf4":  # the trainer keeps such an adapter in bfloat16; peft made float32
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    return wrapped.train()


def _quantized_weights(model: torch.nn.Module) -> list[Tensor]:
    """The weights that NF4 stores in 4 bits: every linear layer's but the head's and the adapter's."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and name.rpartition(".")[2] not in NOT_QUANTIZED
    ]


def _nf4_saves(model: torch.nn.Module) -> int:
    saved = 0
    for weight in _quantized_weights(model):
        blocks = -(-weight.numel() // _NF4_BLOCK)
        nested = -(-blocks // _NF4_NESTED_BLOCK)
        saved += weight.nbytes - (-(-weight.numel() // 2) + blocks + 4 * nested + _NF4_TABLES)
    return saved


# One training step on the meta device


def _count_step(recipe: Recipe, model: Any, text_tokens: int) -> tuple[int, int, float]:
    """Bytes left for the backward pass, bytes at the worst moment (gradients of parameters apart), operations."""
    inputs = _inputs(model.config, recipe.train.images_per_batch, text_tokens)
    base = model.get_base_model() if recipe.lora is not None else model
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    apply_checkpointing(model, checkpointing=recipe.train.gradient_checkpointing)  # as the training run does
    count = Count()
    with count, _on_gpu(bf16=recipe.model.dtype == "bfloat16"):
        hidden = base.model(**inputs, use_cache=False).last_hidden_state
        loss = _Head.apply(hidden.flatten(0, 1), base.lm_head.weight).sum()  # type: ignore[no-untyped-call]
        held = count.bytes
        loss.backward()
    batch = sum(tensor.untyped_storage().nbytes() for tensor in inputs.values())
    return batch + held, batch + count.most_bytes, float(count.operations)


def _inputs(config: Any, images: int, text_tokens: int) -> dict[str, Tensor]:
    """A batch of the shapes that packing makes, (images, text_tokens), on the meta device."""
    vision, size = config.vision_config, config.vision_config.image_size
    ids = torch.zeros((images, text_tokens), dtype=torch.long, device="meta")
    tiles = torch.ones((images, 1, vision.max_num_tiles), dtype=torch.long, device="meta")
    return {
        "input_ids": ids,
        "position_ids": ids,
        "attention_mask": torch.ones((images, 1, text_tokens, text_tokens), dtype=torch.bool, device="meta"),
        "cross_attention_mask": tiles[:, None].expand(-1, text_tokens, -1, -1),
        "aspect_ratio_mask": tiles,
        "aspect_ratio_ids": torch.ones((images, 1), dtype=torch.long, device="meta"),
        "pixel_values": torch.empty((images, 1, vision.max_num_tiles, 3, size, size), device="meta"),
    }


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of living tensors made while the mode is on, now and at most, and floating-point operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.most_bytes = self.operations = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **kwargs)
        if (operations := flop_registry.get(func._overloadpacket)) is not None:
            self.operations += operations(*args, **kwargs, out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in given:
                self._born(tensor.untyped_storage())
        return out

    def _born(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def dies(_: Any) -> None:
            self.bytes -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, dies)
        self.bytes += size
        self.most_bytes = max(self.most_bytes, self.bytes)


class _Head(torch.autograd.Function):
    """The size of TRL's fused head and loss: logits in tiles, made again in the backward pass. No numbers in it."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:  # (n, width), (vocabulary, width) -> (n,)
        ctx.save_for_backward(hidden, weight)
        _logits_in_tiles(hidden, weight)
        return hidden.new_empty(len(hidden), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        hidden, weight = ctx.saved_tensors
        to_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for tile, rows, columns in _logits_in_tiles(hidden, weight):
            to_hidden[rows] += tile @ weight[columns]
            if to_weight is not None:
                to_weight[columns] += tile.T @ hidden[rows]
        return to_hidden.to(hidden.dtype), None if to_weight is None else to_weight.to(weight.dtype)


def _logits_in_tiles(hidden: Tensor, weight: Tensor) -> list[tuple[Tensor, slice, slice]]:
    rows, columns = _TILE
    buffer = hidden.new_empty(min(len(hidden), rows), columns)
    tiles = []
    for r in range(0, len(hidden), rows):
        for c in range(0, len(weight), columns):
            part = hidden[r : r + rows], weight[c : c + columns]
            tile = buffer[: len(part[0]), : len(part[1])]
            tiles.append((torch.mm(part[0], part[1].T, out=tile), slice(r, r + rows), slice(c, c + columns)))
    return tiles


@contextmanager
def _on_gpu(*, bf16: bool) -> Iterator[None]:
    """What a GPU does otherwise than the meta device: memory-efficient attention, and autocast where bf16.

    Functions are replaced by name: torch's modes do not reach the layers that checkpointing runs again.
    """
    linear, layer_norm = F.linear, F.layer_norm

    def in_bf16(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16())

    def in_fp32(x: Tensor, shape: list[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return layer_norm(x.float(), shape, weight.float(), bias.float(), eps)

    replaced: dict[str, Any] = {"scaled_dot_product_attention": _efficient_attention}
    if bf16:
        replaced |= {"linear": in_bf16, "layer_norm": in_fp32}
    with patch.multiple(F, **replaced):
        yield


def _efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None, **_: Any
) -> Tensor:
    """torch's memory-efficient kernel, which is the one for masks; these it wants as numbers, rows in 16 bytes."""
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, float("-inf")).to(query.dtype)
        keys = attn_mask.shape[-1]
        if keys % 8:
            attn_mask = F.pad(attn_mask, (0, -keys % 8))[..., :keys]
        attn_mask = attn_mask.expand(query.shape[0], query.shape[1], query.shape[2], keys)
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    out: Tensor = efficient(query, key, value, attn_mask, True, scale=scale)[0]
    return out
