"""Inference: prefill with the image once, then score statements and generate answers from the cache.

Every prompt begins with the same tokens, up to the image token. Their keys and values, and those of the image, are
stored in a cache: in every cross-attention layer of an Mllama, as tokens of the row in a Qwen3-VL (`recipes.families`).
All statements are then scored side by side in one row behind it, and each question is answered separately behind a copy
that shares the image's part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from recipes.families import Shape, family_of
from recipes.packing import (
    IGNORE_INDEX,
    Batch,
    EncodedDialogue,
    behind,
    encode_dialogue,
    encode_prompt,
    pack,
    preprocess,
    split_row,
)
from render.dialogues.wording import REFUSALS
from render.negatives.blank import is_blank

_BLANK = REFUSALS["en"]["not an ECG"][0]


@dataclass(frozen=True)
class Prefill:
    """Some images as the model has encoded them, one a row: the cache behind the chat head and the image."""

    cache: DynamicCache
    shapes: tuple[Shape, ...]
    """The size of each image."""
    head: tuple[int, ...]
    """The chat head up to the image token."""
    input_ids: Tensor
    """(images, tokens) int64: what is in the cache, padded at the end."""
    mask: Tensor
    """(images, tokens) bool: what of it is no padding."""
    ends: Tensor
    """(images, 1) int64: the position of the first token behind it."""
    blank: tuple[bool, ...]
    """Whether an image is blank: it is then refused without asking the model."""

    def copy_cache(self) -> DynamicCache:
        """A cache to continue from. Its tensors are shared: a cache grows by new tensors, never in place."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return cache


_LARGE = 2048


def default_batch(config: Any) -> int:
    """Images that are scored or asked about side by side: 8, and 2 of a model as wide as `_LARGE`. Each takes .6 GB of
    the 11 B's memory, and two let the recipe for 12 GB be evaluated where it is trained."""
    return 2 if config.get_text_config().hidden_size >= _LARGE else 8


_PATCHES_AT_ONCE = 6_500
"""Most patches in one pass through the vision tower: one image of the 11 B, whose tower would otherwise need more
memory than its weights in 4 bits for eight; sixteen of nano."""


@torch.no_grad()
def prefill(model: Any, processor: Any, images: Sequence[Image.Image]) -> Prefill:
    """Encode some images, one a row; as many at once as `_PATCHES_AT_ONCE` lets in."""
    prompt = encode_prompt(processor, "?").input_ids
    head = prompt[: prompt.index(processor.image_token_id) + 1]
    step = images_at_once(model.config)
    parts = [_encode(model, processor, head, images[i : i + step]) for i in range(0, len(images), step)]
    shapes = tuple(shape for _, part in parts for shape in part)
    rows = [[EncodedDialogue(head, (IGNORE_INDEX,) * len(head))]] * len(images)
    text = pack(rows, shapes, processor)
    lengths = [len(trunk.input_ids) or len(head) for trunk, _ in map(split_row, rows, shapes, repeat(processor))]
    input_ids = text["input_ids"]
    return Prefill(
        join([cache for cache, _ in parts]),
        shapes,
        head,
        input_ids,
        torch.arange(input_ids.shape[1]) < torch.tensor(lengths)[:, None],
        text["position_ids"].view(-1, *input_ids.shape).amax(dim=(0, 2))[:, None] + 1,
        tuple(is_blank(image) for image in images),
    )


def images_at_once(config: Any) -> int:
    """Images in one pass through the vision tower of a model."""
    return max(1, _PATCHES_AT_ONCE // family_of(config).most_patches(config))


def _encode(
    model: Any, processor: Any, head: tuple[int, ...], images: Sequence[Image.Image]
) -> tuple[DynamicCache, list[Shape]]:
    """The cache of some images in one pass, and the size of each."""
    pixels, shapes = preprocess(processor, images)
    batch = {**pack([[EncodedDialogue(head, (IGNORE_INDEX,) * len(head))]] * len(images), shapes, processor), **pixels}
    del batch["labels"]
    cache = DynamicCache(config=model.config.get_text_config())
    model(**_to(batch, model), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, shapes


def join(caches: Sequence[DynamicCache]) -> DynamicCache:
    """One cache with the rows of all, padded at the end to one length. The others lose theirs layer by layer: no more
    than one is there twice."""
    first = caches[0]
    if len(caches) > 1:
        for layers in zip(*(cache.layers for cache in caches), strict=True):
            length = max(layer.keys.shape[2] for layer in layers)
            for name in ("keys", "values"):
                tensors = [getattr(layer, name) for layer in layers]
                joint = torch.cat(
                    [t if t.shape[2] == length else pad(t, (0, 0, 0, length - t.shape[2])) for t in tensors]
                )
                for layer in layers:
                    setattr(layer, name, joint)
    return first


@torch.no_grad()
def yes_probabilities(model: Any, processor: Any, prefill: Prefill, questions: Sequence[str]) -> Tensor:
    """P(yes) of every question about every image, (images, questions), float32, from one prefill of each image.

    P(yes) = softmax over the first tokens of "Yes." and "No." alone where the answer begins. The questions lie side by
    side behind the head; each attends to the head and itself, its positions continue from the head's.
    """
    yes, no = answer_tokens(processor)
    prompts = behind(prefill.head, _prompts(processor, tuple(questions)))
    ends = torch.tensor([len(p.input_ids) for p in prompts]).cumsum(0) - 1
    row = pack([prompts], [None], processor)
    images, length = len(prefill.shapes), row["input_ids"].shape[1]
    before = prefill.mask[:1] if bool(prefill.mask.all()) else prefill.mask  # one for all where no row is padded
    sees_prefill = before[:, None, None].expand(-1, -1, length, -1)
    mask = torch.cat([sees_prefill, row["attention_mask"].expand(len(before), -1, -1, -1)], dim=-1)
    batch = {
        "input_ids": row["input_ids"].expand(images, -1),
        "position_ids": row["position_ids"] + prefill.ends,
        "attention_mask": mask.expand(images, -1, -1, -1),
        **_image_masks(prefill, length, processor),
    }
    logits = model(
        **_to(batch, model), past_key_values=prefill.copy_cache(), use_cache=True, logits_to_keep=ends.to(model.device)
    ).logits
    scores: Tensor = (logits[..., yes].float() - logits[..., no].float()).sigmoid().cpu()
    return scores


@torch.no_grad()
def generate_answers(
    model: Any,
    processor: Any,
    prefill: Prefill,
    question: str,
    *,
    max_new_tokens: int,
    history: Sequence[tuple[str, str]] = (),
    on_text: Callable[[str], None] | None = None,
) -> list[str]:
    """Greedy answers to one question, one for each image; a blank image is refused.

    Args:
        history: the questions before it with their answers.
        on_text: called with each new piece of the answer about the only image, while it is generated. Joined, the
            pieces are the answer. What it raises ends the generation.
    """
    if on_text and all(prefill.blank):
        on_text(_BLANK)
        return [_BLANK] * len(prefill.blank)
    (turn,) = behind(prefill.head, [encode_prompt(processor, question, history)])
    tokens = torch.tensor(turn.input_ids).expand(len(prefill.shapes), -1)
    prompt = torch.cat([prefill.input_ids, tokens], dim=1)
    positions = prefill.ends + torch.arange(tokens.shape[1])
    axes = family_of(processor).axes
    inputs = {
        "input_ids": prompt,
        "attention_mask": torch.cat([prefill.mask, torch.ones_like(tokens, dtype=torch.bool)], dim=1).long(),
        "position_ids": positions.expand(axes, -1, -1) if axes > 1 else positions,
        **_image_masks(prefill, prompt.shape[1], processor),
    }
    out = model.generate(
        **_to(inputs, model),
        past_key_values=prefill.copy_cache(),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        streamer=TextStreamer(processor.tokenizer, on_text) if on_text else None,
    )
    texts: list[str] = processor.tokenizer.batch_decode(out[:, prompt.shape[1] :], skip_special_tokens=True)
    return [_BLANK if blank else text.strip() for text, blank in zip(texts, prefill.blank, strict=True)]


class TextStreamer:
    """A streamer of `generate` that calls `on_text` with each new piece of the text of one sequence.

    A token may end inside a character of several bytes: it decodes to U+FFFD until the next one completes it, and is
    held back so long. White space is held back until something follows it. (transformers' own streamer waits for the
    end of a word.)
    """

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._tokens: list[int] | None = None
        self._length = 0

    def put(self, value: Tensor) -> None:
        """Take the prompt, (1, tokens), at the first call; then the next token, (1,)."""
        if self._tokens is None:
            self._tokens = []
            return
        self._tokens += value.flatten().tolist()
        self._emit(self._text().rstrip("\ufffd"))

    def end(self) -> None:
        """Take the end of the sequence."""
        self._emit(self._text())

    def _text(self) -> str:
        text = self._tokenizer.decode(self._tokens or [], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    def _emit(self, text: str) -> None:
        text = text.rstrip()
        if len(text) > self._length:
            piece, self._length = text[self._length :], len(text)
            self._on_text(piece)


@lru_cache(maxsize=4)
def answer_tokens(processor: Any) -> tuple[int, int]:
    """The ids of the first token in which the answers "Yes." and "No." differ in the model's own chat."""
    ids = []
    for answer in ("Yes.", "No."):
        dialogue = encode_dialogue(
            processor, [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        )
        ids.append([label for label in dialogue.labels if label != IGNORE_INDEX])
    for yes, no in zip(*ids, strict=False):
        if yes != no:
            return yes, no
    raise ValueError("the tokenizer gives 'Yes.' and 'No.' the same tokens")


@lru_cache(maxsize=16)
def _prompts(processor: Any, questions: tuple[str, ...]) -> tuple[EncodedDialogue, ...]:
    """Encoded once: the 71 questions are the same for every page."""
    return tuple(encode_prompt(processor, question) for question in questions)


def _image_masks(prefill: Prefill, length: int, processor: Any) -> Batch:
    """`Family.image_masks` for `length` tokens: every one sees its image, as none is before the image token.

    Tokens before the image token are in the cache already; `generate` ignores their rows of the mask.
    """
    sees_image = torch.ones(len(prefill.shapes), length, dtype=torch.long)
    return family_of(processor).image_masks(sees_image, prefill.shapes, processor)


def _to(batch: Batch, model: Any) -> Batch:
    return {name: value.to(model.device) for name, value in batch.items()}
