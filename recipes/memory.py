"""How much memory and computation a recipe needs, counted before anything heavy starts.

Nothing is estimated by formula: a training step of the recipe's own model runs on torch's meta device, where tensors
have shapes and types but no bytes, while what would be allocated and computed is counted. It is what a GPU would
allocate, without kernels' scratch space and the allocator's gaps.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import DynamicCache

from recipes.config import LoraPart, ModelPart, Recipe
from recipes.families import family_of
from recipes.model import apply_checkpointing, base_config, is_quantized, keep_used_states, linear_modules

TEXT_TOKENS = 768
"""Text tokens behind one image by default: eight dialogues of 96 tokens."""

_QUESTION_TOKENS = 16  # of the 71 questions about statements; of the chat's head, about as many

# NF4 with double quantization (Dettmers et al. 2023): half a byte a weight, a byte for each block of 64, a float32 for
# each 256 of these; per layer a float32 offset and the two code tables of 16 and 256 float32.
_NF4_BLOCK, _NF4_NESTED_BLOCK, _NF4_TABLES = 64, 256, 4 * (1 + 16 + 256)

# AdamW's two moments: 4 bytes each beside a 4-byte parameter, or 1 byte each and a float32 for each block of 256.
_8BIT_MOMENT = 1 + 4 / 256

_TILE = (4096, 32_768)  # tokens and words of the logits that TRL's fused head holds at a time


@dataclass(frozen=True)
class Footprint:
    """Bytes, unless stated otherwise, of one device that trains a recipe."""

    parameters: int
    """Parameters of the base and the adapter (a number)."""
    trained: int
    """Parameters that are trained (a number)."""
    weights: int
    """The base, in its type or in NF4 with its block scales and tables."""
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """What the forward pass of a batch leaves behind for the backward pass."""
    working: int
    """What is added at the worst moment of a step: a recomputed layer, logits, a dequantized weight."""
    flops_per_image: float
    """Floating-point operations to train on one image and its text (a multiplication and an addition are two)."""

    @property
    def total(self) -> int:
        """All bytes at the worst moment of a step."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.activations + self.working


@cache
def needs(recipe: Recipe, *, text_tokens: int = 0) -> Footprint:
    """Count what training by `recipe` needs. No weight is read; about four seconds for the 11 B, at the first call.

    Args:
        text_tokens: tokens of the dialogues behind one image; 0 for the most that `train.tokens_per_batch` lets in,
            or `TEXT_TOKENS` where the recipe sets no limit.

    Raises:
        InputError: When the base is not known.
    """
    train = recipe.train
    text_tokens = text_tokens or train.tokens_per_batch // train.images_per_batch or TEXT_TOKENS
    model = meta_model(recipe)
    trainable = [p for p in model.parameters() if p.requires_grad]
    base = [p for n, p in model.named_parameters() if "lora_" not in n]
    in_8bit = train.optimizer == "paged_adamw_8bit"
    moments = 2 * _8BIT_MOMENT / trainable[0].element_size() if in_8bit else 2  # Muon: one for matrices, so two at most
    activations, peak, flops = _count_step(recipe, model, text_tokens)
    return Footprint(
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in trainable),
        weights=sum(p.nbytes for p in base) - _nf4_saves(model, recipe.model),
        adapter=sum(p.nbytes for n, p in model.named_parameters() if "lora_" in n),
        gradients=sum(p.nbytes for p in trainable),
        optimizer=round(moments * sum(p.nbytes for p in trainable)),
        activations=activations,
        working=peak - activations + _largest_in_16_bits(model, recipe.model),
        flops_per_image=flops / train.images_per_batch,
    )


@cache
def needs_to_answer(recipe: Recipe, *, batch: int) -> tuple[int, int]:
    """Bytes of the model with its adapter, and what scoring `batch` images at once adds at its worst moment."""
    from recipes.inference import images_at_once, join

    model = meta_model(recipe).eval()
    config = model.config
    weights = sum(p.nbytes for p in model.parameters()) - _nf4_saves(model, recipe.model)
    parts = [min(images_at_once(config), batch - start) for start in range(0, batch, images_at_once(config))]
    family, length = family_of(config), 71 * _QUESTION_TOKENS
    questions = family.meta_batch(config, batch, length, with_images=False)
    count = _MetaCount()
    with count, torch.no_grad(), _on_gpu(half=None), _image_tokens_first(model):
        caches = []
        for images in parts:
            cache = DynamicCache(config=config.get_text_config())
            inputs = family.meta_batch(config, images, _QUESTION_TOKENS, with_images=True)
            model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            caches.append(cache)
        cache = join(caches)
        del caches
        before = torch.ones((batch, 1, length, cache.get_seq_length()), dtype=torch.bool, device="meta")
        questions["attention_mask"] = torch.cat([before, questions["attention_mask"]], dim=-1)
        ends = torch.zeros(71, dtype=torch.long, device="meta")
        model(**questions, past_key_values=cache, use_cache=True, logits_to_keep=ends)
    return weights, count.most_bytes + _largest_in_16_bits(model, recipe.model)


def weight_bytes(part: ModelPart) -> int:
    """Bytes of a base's weights."""
    model = _meta_base(part)
    size: int = sum(p.nbytes for p in model.parameters()) - _nf4_saves(model, part)
    return size


def meta_model(recipe: Recipe) -> Any:
    """The recipe's model with its adapter, as it is trained, on the meta device."""
    model = _meta_base(recipe.model)
    if recipe.lora is None:
        return model.train()
    model.requires_grad_(False)
    for name in linear_modules(model, recipe.lora.targets):
        in_4_bits = is_quantized(name, recipe.model)
        model.set_submodule(name, _LoraLinear(model.get_submodule(name), recipe.lora, in_4_bits))
    return model.train()


def _meta_base(part: ModelPart) -> Any:
    config = base_config(part.base)
    with torch.device("meta"):
        model = getattr(transformers, family_of(config).model_class)._from_config(config, attn_implementation="sdpa")
    keep_used_states(model)
    return model.to(getattr(torch, part.dtype))


class _LoraLinear(torch.nn.Module):
    """What peft's LoRA layer computes, on the meta device: importing peft takes longer than the whole count."""

    def __init__(self, linear: Any, lora: LoraPart, in_4_bits: bool) -> None:
        super().__init__()
        self._in_4_bits = in_4_bits
        self.base_layer = linear
        self.dropout = torch.nn.Dropout(lora.dropout) if lora.dropout else torch.nn.Identity()
        with torch.device("meta"):
            self.lora_A = torch.nn.Linear(linear.in_features, lora.rank, bias=False)
            self.lora_B = torch.nn.Linear(lora.rank, linear.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (..., in_features) -> (..., out_features)
        result: Tensor = self.base_layer(x)
        dtype = result.dtype
        if not self._in_4_bits:  # there peft leaves it to autocast
            x = x.to(self.lora_A.weight.dtype)
        result = result + self.lora_B(self.lora_A(self.dropout(x))) * 1.0  # as peft, no name for what is temporary
        return result.to(dtype)


def _quantized_weights(model: torch.nn.Module, part: ModelPart) -> list[Tensor]:
    """The weights that are stored in 4 bits; the adapter's are not."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and is_quantized(name, part)
    ]


def _largest_in_16_bits(model: torch.nn.Module, part: ModelPart) -> int:
    """Bytes of the largest weight that is turned back from 4 bits where it is used."""
    return max((weight.nbytes for weight in _quantized_weights(model, part)), default=0)


def _nf4_saves(model: torch.nn.Module, part: ModelPart) -> int:
    """Bytes that NF4 saves; 0 without it."""
    total = 0
    for weight in _quantized_weights(model, part):
        blocks = -(-weight.numel() // _NF4_BLOCK)
        nested = -(-blocks // _NF4_NESTED_BLOCK)
        total += weight.nbytes - (-(-weight.numel() // 2) + blocks + 4 * nested + _NF4_TABLES)
    return total


# One training step on the meta device


def _count_step(recipe: Recipe, model: Any, text_tokens: int) -> tuple[int, int, float]:
    """Bytes left for the backward pass, bytes at the worst moment (gradients of parameters apart), operations."""
    inputs = family_of(model.config).meta_batch(
        model.config, recipe.train.images_per_batch, text_tokens, with_images=True
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    apply_checkpointing(model, checkpointing=recipe.train.gradient_checkpointing)  # as the training run does
    count = _MetaCount()
    with count, _on_gpu(half=_half(recipe)), _image_tokens_first(model):
        hidden = model.model(**inputs, use_cache=False).last_hidden_state
        loss = _Head.apply(hidden.flatten(0, 1), model.lm_head.weight).sum()  # type: ignore[no-untyped-call]
        after_forward = count.bytes
        loss.backward()
    batch = sum(tensor.untyped_storage().nbytes() for tensor in inputs.values())
    return batch + after_forward, batch + count.most_bytes, float(count.operations)


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of living tensors made while the mode is on, now and at most, and floating-point operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.most_bytes = self.operations = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, tensors, operations = self._call(func, args, kwargs or {})
        self.operations += operations
        for tensor in tensors:
            self._add(tensor.untyped_storage())
        return out

    def _call(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Sequence[Tensor], int]:
        """The result of an operation, the tensors in it with memory of their own, and its floating-point operations."""
        out = func(*args, **kwargs)
        flops = flop_registry.get(func._overloadpacket)
        operations = 0 if flops is None else flops(*args, **kwargs, out_val=out)
        if _returns_arguments(func):
            return out, (), operations
        inputs = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor) and id(t.untyped_storage()) not in inputs]
        return out, tensors, operations

    def _add(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._storages:
            return

        def remove(_: Any) -> None:
            self.bytes -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, remove)
        self.bytes += size
        self.most_bytes = max(self.most_bytes, self.bytes)


@cache
def _returns_arguments(func: Any) -> bool:
    """Whether all that an operation returns lies in the memory of its arguments: views, in-place operations, `out=`."""
    returns = func._schema.returns
    return bool(returns) and all(result.alias_info is not None for result in returns)


class _MetaCount(Count):  # type: ignore[no-untyped-call]
    """`Count` for meta tensors: an operation that recurs with the same shapes takes its result from a cache.

    Exact, as nothing but shapes, strides and types decides what an operation on the meta device returns; and twice as
    fast, as the 80 layers of an 11 B are a few kinds of layers, repeated.
    """

    def __init__(self) -> None:
        super().__init__()
        self._results: dict[Any, tuple[list[tuple[Any, Any, torch.dtype]], bool, int]] = {}

    def _call(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Sequence[Tensor], int]:
        if _returns_arguments(func) or func._schema.is_mutable:
            return super()._call(func, args, kwargs)
        key = (func, _signature(args), _signature(tuple(kwargs.items())))
        try:
            result = self._results.get(key)
        except TypeError:  # an argument that cannot be hashed
            return super()._call(func, args, kwargs)
        if result is None:
            out, tensors, operations = super()._call(func, args, kwargs)
            if len(tensors) == (len(out) if isinstance(out, tuple) else 1) and all(t.is_meta for t in tensors):
                shapes = [(t.shape, t.stride(), t.dtype) for t in tensors]
                self._results[key] = shapes, isinstance(out, tuple), operations
            return out, tensors, operations
        shapes, is_tuple, operations = result
        tensors = tuple(
            torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in shapes
        )
        return tensors if is_tuple else tensors[0], tensors, operations


def _signature(argument: Any) -> Any:
    """An argument with every tensor in it replaced by its shape, strides and type."""
    if isinstance(argument, Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.is_meta
    if isinstance(argument, (tuple, list)):
        return tuple(_signature(item) for item in argument)
    return argument


class _Head(torch.autograd.Function):
    """TRL's fused head and loss in size: logits in tiles, computed again in the backward pass. It returns no values."""

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


def _half(recipe: Recipe) -> torch.dtype | None:
    """The 16-bit type of a recipe's model; None for float32."""
    dtype: torch.dtype = getattr(torch, recipe.model.dtype)
    return None if dtype == torch.float32 else dtype


@contextmanager
def _on_gpu(*, half: torch.dtype | None) -> Iterator[None]:
    """What a GPU does differently from the meta device: memory-efficient attention, and autocast to `half`.

    Functions are replaced by name: torch's modes do not apply to the layers that checkpointing recomputes.
    """
    linear, layer_norm = F.linear, F.layer_norm

    def in_half(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(x.to(half), weight.to(half), None if bias is None else bias.to(half))

    def in_fp32(x: Tensor, shape: list[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return layer_norm(x.float(), shape, weight.float(), bias.float(), eps)

    functions: dict[str, Any] = {"scaled_dot_product_attention": _efficient_attention}
    if half:
        functions |= {"linear": in_half, "layer_norm": in_fp32}
    with patch.multiple(F, **functions):
        yield


@contextmanager
def _image_tokens_first(model: Any) -> Iterator[None]:
    """Let a Qwen3-VL put its image tokens at the head of each row, where `Family.meta_batch` has them.

    It looks for them in the values of the ids, which meta tensors have not. What is allocated is the same.
    """
    inner = model.model
    if not hasattr(inner, "get_placeholder_mask"):
        yield
        return

    def mask(input_ids: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        masks = torch.empty((*input_ids.shape, 1), dtype=torch.bool, device="meta")
        return masks, masks

    def scatter(rows: Tensor, mask: Tensor, image: Tensor) -> Tensor:  # (images, T, width), (images x tokens, width)
        image = image.view(len(rows), -1, rows.shape[-1])
        return torch.cat([image, rows[:, image.shape[1] :]], dim=1)

    def add(hidden: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        hidden, image = hidden.clone(), image.to(hidden.dtype).view(len(hidden), -1, hidden.shape[-1])
        hidden[:, : image.shape[1]] = hidden[:, : image.shape[1]].clone() + image
        return hidden

    with (
        patch.object(inner, "get_placeholder_mask", mask),
        patch.object(inner.language_model, "_deepstack_process", add),
        patch.object(Tensor, "masked_scatter", scatter),
    ):
        yield


def _efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None, **_: Any
) -> Tensor:
    """torch's memory-efficient kernel, the one for masks: they have to be numbers, with rows of whole 16 bytes."""
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
