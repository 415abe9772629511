"""One look, many questions: all dialogues about an image in one row behind that image.

The row is a sequence of independent dialogues. Self-attention is causal within a dialogue and closed to the others
(a block-diagonal mask), positions restart with each, and every token from the image token on attends to the one image.
Training, scoring and asking all go through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from render.errors import InputError

IGNORED = -100
"""Label of tokens that carry no loss (the ignore_index of torch's cross entropy)."""

_CACHED_DIALOGUES = 50_000

Message = dict[str, str]
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Encoded:
    """One dialogue as tokens. labels: the token itself where the model has to produce it, `IGNORED` elsewhere."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def render_chat(processor: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    """Messages as the model's chat text, the image at the head of the first user turn.

    prompt: end where the model is to go on.
    """
    content: list[dict[str, Any]] = [{"type": "image"}, {"type": "text", "text": messages[0]["content"]}]
    chat: list[dict[str, Any]] = [{"role": messages[0]["role"], "content": content}]
    chat += [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages[1:]]
    text: str = processor.apply_chat_template(chat, add_generation_prompt=prompt, tokenize=False)
    return text


def encode(processor: Any, messages: Sequence[Message]) -> Encoded:
    """Tokens and labels of a dialogue: loss on the assistant's turns alone, their end-of-turn token included.

    The chat is rendered up to and with each answer; what the answer added is the answer. The template writes the
    begin-of-text token itself, so the tokenizer must not add a second one.
    Raises `InputError` for a dialogue without an answer, and for a text that holds the image token: that token is
    no row of the head, and a second one would be a second image.
    """
    ids: list[int] = []
    labels: list[int] = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = _tokens(processor, render_chat(processor, messages[:turn], prompt=True))
        answered = _tokens(processor, render_chat(processor, messages[: turn + 1], prompt=False))
        if answered[: len(asked)] != asked:
            raise ValueError("the chat template rewrites the prompt when an answer follows; labels would be wrong")
        labels += [IGNORED] * (len(asked) - len(ids)) + answered[len(asked) :]
        ids = answered
    if not ids:
        raise InputError("a dialogue without an assistant's turn; there is nothing in it to learn")
    if ids.count(processor.image_token_id) != 1:
        raise InputError(f"a dialogue's text holds the image token {processor.image_token}; take it out")
    return Encoded(tuple(ids), tuple(labels))


def encode_prompt(processor: Any, question: str) -> Encoded:
    """Tokens of a question up to where the model answers."""
    ids = _tokens(processor, render_chat(processor, [{"role": "user", "content": question}], prompt=True))
    return Encoded(tuple(ids), (IGNORED,) * len(ids))


def _tokens(processor: Any, text: str) -> list[int]:
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def look(processor: Any, images: Sequence[Image.Image]) -> tuple[Batch, list[int]]:
    """Pixel tensors of one image per row, and how many tiles each fills.

    pixel_values: (rows, 1, tiles, 3, side, side).
    """
    features = processor.image_processor([[image.convert("RGB")] for image in images], return_tensors="pt")
    tiles = [int(row[0]) for row in features.pop("num_tiles")]
    return {name: features[name] for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}, tiles


def pack(rows: Sequence[Sequence[Encoded]], tiles: Sequence[int], processor: Any) -> Batch:
    """The text side of a batch: row r holds the dialogues `rows[r]` one after the other, padded at the end.

    input_ids, labels, position_ids: (rows, T). attention_mask: (rows, 1, T, T) bool, True where a token may look.
    cross_attention_mask: (rows, T, 1, max_tiles): from each dialogue's image token on, the image's tiles. Padding
    tokens look at themselves alone: a row of the mask without any True would be NaN.
    """
    length = max(sum(len(d.input_ids) for d in row) for row in rows)
    shape = (len(rows), length)
    input_ids = torch.full(shape, processor.tokenizer.pad_token_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    position_ids = torch.zeros(shape, dtype=torch.long)
    dialogue = torch.full(shape, -1, dtype=torch.long)
    sees_image = torch.zeros(shape, dtype=torch.long)
    for r, row in enumerate(rows):
        start = 0
        for k, encoded in enumerate(row):
            stop = start + len(encoded.input_ids)
            input_ids[r, start:stop] = torch.tensor(encoded.input_ids)
            labels[r, start:stop] = torch.tensor(encoded.labels)
            position_ids[r, start:stop] = torch.arange(stop - start)
            dialogue[r, start:stop] = k
            sees_image[r, start:stop] = (input_ids[r, start:stop] == processor.image_token_id).cumsum(0).clamp(max=1)
            start = stop
    same = dialogue[:, :, None] == dialogue[:, None, :]  # (rows, T, T)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    padding = dialogue.eq(-1)
    attention = same & causal & ~padding[:, :, None] | torch.eye(length, dtype=torch.bool)
    allowed = torch.zeros(len(rows), processor.image_processor.max_image_tiles, dtype=torch.long)
    for r, count in enumerate(tiles):
        allowed[r, :count] = 1
    return {
        "input_ids": input_ids,
        "labels": labels,
        "position_ids": position_ids,
        "attention_mask": attention[:, None],
        "cross_attention_mask": (sees_image[:, :, None] * allowed[:, None, :])[:, :, None],
    }


class Encoder:
    """Encodes dialogues, and remembers: closed questions recur on thousands of pages."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._known: dict[tuple[str, ...], Encoded] = {}

    def __call__(self, messages: Sequence[Message]) -> Encoded:
        """`encode`, from memory where possible."""
        key = tuple(part for message in messages for part in (message["role"], message["content"]))
        if key not in self._known:
            if len(self._known) >= _CACHED_DIALOGUES:
                self._known.clear()
            self._known[key] = encode(self.processor, messages)
        return self._known[key]
