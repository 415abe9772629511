"""Inference: prefill with the image once, then score statements and generate answers from the cache.

Every prompt begins with the same tokens, up to the image token. Their keys and values, and those of the image in every
cross-attention layer, are stored in a cache. All statements are then scored side by side in one row behind it, and each
question is answered separately behind a copy that shares the image's part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from recipes.packing import (
    IGNORE_INDEX,
    Batch,
    EncodedDialogue,
    encode_dialogue,
    encode_prompt,
    pack,
    preprocess,
    tile_mask,
)
from render.dialogues.wording import REFUSALS
from render.negatives.blank import is_blank

_BLANK = REFUSALS["en"]["not an ECG"][0]


@dataclass(frozen=True)
class Prefill:
    """Some images as the model has encoded them: the cache behind the chat head, and how many tiles each fills."""

    cache: DynamicCache
    tiles: tuple[int, ...]
    head: tuple[int, ...]
    """Tokens in the cache: the chat head up to the image token."""
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
    tiles = tuple(count for _, counts in parts for count in counts)
    return Prefill(join([cache for cache, _ in parts]), tiles, head, tuple(is_blank(image) for image in images))


def images_at_once(config: Any) -> int:
    """Images in one pass through the vision tower of a model."""
    vision = config.vision_config
    patches: int = vision.max_num_tiles * ((vision.image_size // vision.patch_size) ** 2 + 1)
    return max(1, _PATCHES_AT_ONCE // patches)


def _encode(
    model: Any, processor: Any, head: tuple[int, ...], images: Sequence[Image.Image]
) -> tuple[DynamicCache, list[int]]:
    """The cache of some images in one pass, and how many tiles each fills."""
    pixels, tiles = preprocess(processor, images)
    batch = {**pack([[EncodedDialogue(head, (IGNORE_INDEX,) * len(head))]] * len(images), tiles, processor), **pixels}
    del batch["labels"]
    cache = DynamicCache(config=model.config.get_text_config())
    model(**_to(batch, model), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, tiles


def join(caches: Sequence[DynamicCache]) -> DynamicCache:
    """One cache with the rows of all. The others lose theirs layer by layer: no more than one is there twice."""
    first = caches[0]
    if len(caches) > 1:
        for layers in zip(*(cache.layers for cache in caches), strict=True):
            keys, values = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("keys", "values"))
            for layer in layers:
                layer.keys, layer.values = keys, values
    return first


@torch.no_grad()
def yes_probabilities(model: Any, processor: Any, prefill: Prefill, questions: Sequence[str]) -> Tensor:
    """P(yes) of every question about every image, (images, questions), float32, from one prefill of each image.

    P(yes) = softmax over the first tokens of "Yes." and "No." alone where the answer begins. The questions lie side by
    side behind the head; each attends to the head and itself, its positions continue from the head's.
    """
    yes, no = answer_tokens(processor)
    prompts = _behind(prefill.head, _prompts(processor, tuple(questions)))
    ends = torch.tensor([len(p.input_ids) for p in prompts]).cumsum(0) - 1
    batch = pack([prompts], [0], processor)
    del batch["labels"]
    head, length = len(prefill.head), batch["input_ids"].shape[1]
    sees_head = torch.ones(1, 1, length, head, dtype=torch.bool)
    batch["attention_mask"] = torch.cat([sees_head, batch["attention_mask"]], dim=-1)
    batch["position_ids"] += head
    batch = {name: value.expand(len(prefill.tiles), *value.shape[1:]) for name, value in batch.items()}
    batch["cross_attention_mask"] = _sees_image(prefill, length, processor)
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
    prompt = torch.tensor([encode_prompt(processor, question, history).input_ids] * len(prefill.tiles))
    inputs = {
        "input_ids": prompt,
        "attention_mask": torch.ones_like(prompt),
        "cross_attention_mask": _sees_image(prefill, prompt.shape[1], processor),
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


def _behind(head: tuple[int, ...], prompts: Sequence[EncodedDialogue]) -> list[EncodedDialogue]:
    """The prompts without the head with which all of them begin."""
    if any(p.input_ids[: len(head)] != head for p in prompts):
        raise ValueError("prompts differ before their image token")
    return [EncodedDialogue(p.input_ids[len(head) :], p.labels[len(head) :]) for p in prompts]


def _sees_image(prefill: Prefill, length: int, processor: Any) -> Tensor:
    """(images, length, 1, max_tiles): every token attends to its image's tiles, as none is before the image token.

    Tokens before the image token are in the cache already; `generate` ignores their rows of the mask.
    """
    return tile_mask(prefill.tiles, processor)[:, None, None].expand(-1, length, -1, -1)


def _to(batch: Batch, model: Any) -> Batch:
    return {name: value.to(model.device) for name, value in batch.items()}
