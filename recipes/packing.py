"""From pages with dialogues to batches: encode, plan, pack, collate.

One prefill, many questions: all dialogues about an image lie in one row behind that image. The row is a sequence of
independent dialogues: self-attention is causal within a dialogue and blocked between dialogues (a block-diagonal
mask), positions restart with each, and every token from the image token on attends to the one image. Where the image
is in the row itself (`recipes.families`), every dialogue also sees that trunk, and positions restart at its end: the
mask is a tree's. It is a table of who sees whom, so that attention is torch's own (`sdpa`). Flash attention's kernels
take no such table, only the lengths of separate sequences: with them every dialogue would bring its own copy of the
image. Training, scoring and asking all use `encode_dialogue` and `pack`.

Which pages go into which batch is planned before the run, from the recipe's limits and seed alone. A batch holds at
most so many images and so many text tokens, padding included, so that no batch needs more memory than another. A page
whose dialogues do not fit into one row gets several rows, whole dialogues each time. Nothing is truncated and nothing
dropped: each dialogue is in exactly one batch of an epoch.

The plan of the whole run is one list of batches, taken in order: step s takes `per_step` of them, divided among
processes and gradient accumulation alike, so that neither changes what a step learns from, and a run that resumes from
a checkpoint only has to know its step.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recipes.families import NO_TRUNK, Shape, Trunk, family_of
from render.errors import InputError

if TYPE_CHECKING:
    import datasets

IGNORE_INDEX = -100
"""Label of tokens that carry no loss (the ignore_index of torch's cross entropy)."""

_CACHE_SIZE = 50_000  # dialogues

# Rows are sorted by length within this many batches' worth of pages: padding shrinks, and the order stays random.
_SORT_WINDOW_BATCHES = 16

Message = dict[str, str]
Batch = dict[str, Tensor]


# Dialogues as tokens


@dataclass(frozen=True)
class EncodedDialogue:
    """One dialogue as tokens. labels: the token itself where the model has to produce it, `IGNORE_INDEX` elsewhere."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def render_chat(processor: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    """Messages as the model's chat text, the image at the head of the first user turn.

    A system turn is put before the text of the user's: Llama 3.2 Vision's template takes none beside an image. White
    space at the head of an answer is left out: it would become one token with the end of the prompt.

    Args:
        prompt: end where the model has to continue.

    Raises:
        InputError: When the first turn, or that behind a system turn, is not the user's, and for a chat template that
            there is not or that fails.
    """
    if not processor.chat_template:
        raise InputError("the model has no chat template; take one that was tuned to answer (its -Instruct version)")
    system, turns = "", list(messages)
    if turns and turns[0]["role"] == "system":
        system = f"{turns.pop(0)['content'].strip()}\n\n"
    if not turns or turns[0]["role"] != "user":
        raise InputError("a dialogue that does not begin with a user's turn; add the question")
    chat: list[dict[str, Any]] = [
        {"role": turn["role"], "content": [{"type": "text", "text": _text(turn)}]} for turn in turns
    ]
    chat[0]["content"] = [{"type": "image"}, {"type": "text", "text": system + _text(turns[0])}]
    try:
        with _ending(str(processor.chat_template)):
            text: str = processor.apply_chat_template(chat, add_generation_prompt=prompt, tokenize=False)
    except InputError:
        raise
    except Exception as error:  # whatever the program that came with the model leads to
        raise InputError(f"chat template: cannot be rendered ({error}); name another model") from error
    return text


def _text(turn: Message) -> str:
    return turn["content"].lstrip() if turn["role"] == "assistant" else turn["content"]


_MOST_TEMPLATE_STEPS, _LONGEST_TEMPLATE_TEXT = 100_000, 1 << 20
_ending_templates: set[str] = set()


@contextmanager
def _ending(template: str) -> Iterator[None]:
    """Raise `InputError` when the chat template of a model takes too many steps, where it is rendered first.

    It is a program that came with the model: transformers' sandbox keeps it from files, not from running for ever.
    """
    if template in _ending_templates:
        yield
        return
    steps = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        if frame.f_code.co_filename != "<template>":
            return None
        steps += 1
        values = list(frame.f_locals.values())
        for value in frame.f_locals.values():
            values += getattr(value, "_Namespace__attrs", {}).values()  # of Jinja's `namespace`
        too_long = any(isinstance(value, str) and len(value) > _LONGEST_TEMPLATE_TEXT for value in values)
        if steps > _MOST_TEMPLATE_STEPS or too_long:
            raise InputError("chat template: takes too many steps for two short messages; name another model")
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(earlier)
    _ending_templates.add(template)


def encode_dialogue(processor: Any, messages: Sequence[Message]) -> EncodedDialogue:
    """Tokens and labels of a dialogue: loss on the assistant's turns alone, their end-of-turn token included.

    The chat is rendered without and with each answer; the tokens that are added are the answer, up to the end-of-turn
    token: a line break behind it is the template's. The template writes the begin-of-text token itself, so the
    tokenizer must not add a second one.

    Raises:
        InputError: For a dialogue without an answer, and for a text that contains the image token: the head has no
            row for that token, and a second one would be a second image.
    """
    ids: list[int] = []
    labels: list[int] = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _tokens(processor, render_chat(processor, messages[:turn], prompt=True))
        with_answer = _tokens(processor, render_chat(processor, messages[: turn + 1], prompt=False))
        if with_answer[: len(prompt)] != prompt:
            raise ValueError("the chat template rewrites the prompt when an answer follows; labels would be wrong")
        answer = with_answer[len(prompt) :]
        while processor.tokenizer.eos_token_id in answer and answer[-1] != processor.tokenizer.eos_token_id:
            answer.pop()
        labels += [IGNORE_INDEX] * (len(prompt) - len(ids)) + answer
        ids = prompt + answer
    if not ids:
        raise InputError("a dialogue without an assistant's turn; add an answer or remove the dialogue")
    if ids.count(processor.image_token_id) != 1:
        raise InputError(f"a dialogue's text contains the image token {processor.image_token}; remove it")
    return EncodedDialogue(tuple(ids), tuple(labels))


def encode_prompt(processor: Any, question: str, history: Sequence[tuple[str, str]] = ()) -> EncodedDialogue:
    """Tokens of a question, up to the position where the model's answer begins.

    Args:
        history: the questions before it with their answers.
    """
    messages = [
        {"role": role, "content": text}
        for turn in history
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    ids = _tokens(processor, render_chat(processor, [*messages, {"role": "user", "content": question}], prompt=True))
    return EncodedDialogue(tuple(ids), (IGNORE_INDEX,) * len(ids))


def _tokens(processor: Any, text: str) -> list[int]:
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


class Encoder:
    """Encodes dialogues with a cache: closed questions recur on thousands of pages."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._cache: dict[tuple[str, ...], EncodedDialogue] = {}

    def __call__(self, messages: Sequence[Message]) -> EncodedDialogue:
        """`encode_dialogue`, from the cache where possible."""
        key = tuple(part for message in messages for part in (message["role"], message["content"]))
        if key not in self._cache:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = encode_dialogue(self.processor, messages)
        return self._cache[key]


# The plan of a run


@dataclass(frozen=True)
class PackedRow:
    """One row of a batch: a page with some of its dialogues. tokens: the row's length."""

    page: int
    dialogues: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class BatchLimits:
    """The largest batch. images: rows. tokens: rows x longest row; 0 for no limit.

    There is no limit of an image's size: Mllama's tower computes all tiles of its canvas, however many an image fills,
    and `families.PAGE_PIXELS` bounds the tokens of an image in the row. `tokens` are those of the dialogues.
    """

    images: int
    tokens: int = 0

    def allows(self, rows: int, longest: int) -> bool:
        """Whether `rows` rows, the longest of `longest` tokens, fit into one batch."""
        return rows <= self.images and (self.tokens == 0 or rows * longest <= self.tokens)


@dataclass(frozen=True)
class Plan:
    """The batches of a run in the order in which they are taken; each is a tuple of indices of `rows`.

    Attributes:
        per_step: batches of one optimizer step, over all processes.
    """

    rows: tuple[PackedRow, ...]
    batches: tuple[tuple[int, ...], ...]
    per_step: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return math.ceil(len(self.batches) / self.per_step)

    def images(self, step: int) -> int:
        """Images in the batches of the first `step` steps."""
        return self._totals(step)[0]

    def tokens(self, step: int) -> int:
        """Text tokens in the batches of the first `step` steps, without padding."""
        return self._totals(step)[1]

    def table(self, split: str) -> datasets.Dataset:
        """One row a batch, {"split", "rows": its indices}: the data set whose items a Trainer takes one by one."""
        import datasets

        return datasets.Dataset.from_dict(
            {"split": [split] * len(self.batches), "rows": [list(batch) for batch in self.batches]}
        )

    def _totals(self, step: int) -> tuple[int, int]:
        rows, tokens = self._sums[min(step * self.per_step, len(self.batches))]
        return int(rows), int(tokens)

    @cached_property
    def _sums(self) -> NDArray[np.int64]:
        """(batches + 1, 2): rows and tokens of the batches before each."""
        counts = [(len(batch), sum(self.rows[i].tokens for i in batch)) for batch in self.batches]
        return np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(np.array(counts, np.int64), axis=0)])


def pack_rows(pages: Any, encoder: Encoder, tokens: int) -> tuple[PackedRow, ...]:
    """Every dialogue of every page in rows of at most `tokens` tokens (0: no limit), in the order of the data set.

    Pages without dialogues give no row.

    Raises:
        InputError: For a dialogue that is longer than a row: the answers of a dialogue with several turns depend on
            its earlier turns, so that it cannot be split.
    """
    rows: list[PackedRow] = []
    names = pages["record_id"]
    for page, dialogues in enumerate(pages["dialogues"]):
        lengths = []
        for k, dialogue in enumerate(dialogues):
            try:
                lengths.append(len(encoder(dialogue["messages"]).input_ids))
            except InputError as error:
                raise InputError(f"record {names[page]} (row {page}), dialogue {k}: {error}") from error
            if tokens and lengths[-1] > tokens:
                raise InputError(
                    f"record {names[page]} (row {page}), dialogue {k}: {lengths[-1]} tokens, train.tokens_per_batch is "
                    f"{tokens}; raise it to {lengths[-1]} or more, or shorten the dialogue"
                )
        rows += [PackedRow(page, row, sum(lengths[k] for k in row)) for row in _split(lengths, tokens)]
    if not rows:
        raise InputError("no page has a dialogue; render the pages with questions")
    return tuple(rows)


def _split(lengths: Sequence[int], limit: int) -> Iterator[tuple[int, ...]]:
    """Indices of dialogues, in order, in rows of at most `limit` tokens (0: no limit)."""
    row: list[int] = []
    for k, length in enumerate(lengths):
        if row and limit and sum(lengths[i] for i in row) + length > limit:
            yield tuple(row)
            row = []
        row.append(k)
    if row:
        yield tuple(row)


def plan_batches(
    rows: tuple[PackedRow, ...], limits: BatchLimits, *, seed: int, per_step: int, epochs: float = 1.0, steps: int = 0
) -> Plan:
    """The batches of a run of `epochs` epochs, or of `steps` steps when that is not 0."""
    batches: list[tuple[int, ...]] = []
    size = steps * per_step
    epoch = 0
    while len(batches) < size if steps else epoch < epochs:
        of_epoch = _epoch(rows, limits, np.random.default_rng([seed, epoch]), per_step)
        share = 1.0 if steps else epochs - epoch
        batches += of_epoch[: math.ceil(round(len(of_epoch) / per_step * share, 9)) * per_step]
        epoch += 1
    return Plan(rows, tuple(batches[:size] if steps else batches), per_step)


def in_order(rows: tuple[PackedRow, ...], limits: BatchLimits) -> Plan:
    """All rows once, in the order of the data set: for losses on held-out pages."""
    return Plan(rows, tuple(_cut(range(len(rows)), rows, limits)), 1)


def _epoch(
    rows: Sequence[PackedRow], limits: BatchLimits, rng: np.random.Generator, per_step: int
) -> list[tuple[int, ...]]:
    """Every row once, in batches of random order, their number a multiple of `per_step` where there are enough."""
    order = rng.permutation(len(rows)).tolist()
    window = _SORT_WINDOW_BATCHES * limits.images
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda i: rows[i].tokens)
        batches += _cut(near, rows, limits)
    batches = [batches[i] for i in rng.permutation(len(batches))]
    while len(batches) % per_step:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        batch = batches[largest]
        if len(batch) == 1:  # fewer rows than a step takes
            break
        batches[largest] = batch[: len(batch) // 2]
        batches.append(batch[len(batch) // 2 :])
    return batches


def _cut(order: Sequence[int], rows: Sequence[PackedRow], limits: BatchLimits) -> Iterator[tuple[int, ...]]:
    """`order` in batches within the limits."""
    batch: list[int] = []
    longest = 0
    for i in order:
        longest = max(longest, rows[i].tokens)
        if batch and not limits.allows(len(batch) + 1, longest):
            yield tuple(batch)
            batch, longest = [], rows[i].tokens
        batch.append(i)
    if batch:
        yield tuple(batch)


# Batches as tensors


def preprocess(processor: Any, images: Sequence[Image.Image]) -> tuple[Batch, list[Shape]]:
    """Pixel tensors of one image per row, and the size of each; see the family's own."""
    return family_of(processor).preprocess(processor, images)


def pack(rows: Sequence[Sequence[EncodedDialogue]], shapes: Sequence[Shape | None], processor: Any) -> Batch:
    """The text side of a batch: row r holds the dialogues `rows[r]` one after the other, padded at the end.

    Where the image is in the row, it comes first, with the head of the chat that all dialogues have, and every dialogue
    is what it has behind that.

    input_ids, labels: (rows, T). position_ids: (rows, T), or (axes, rows, T) where a position has several numbers.
    attention_mask: (rows, 1, T, T) bool, True where a token may attend. Padding tokens attend to themselves alone: a
    row of the mask without any True would be NaN. Besides, what `Family.image_masks` gives.

    Args:
        shapes: of each row's image; None for dialogues that continue a row with an image, in a cache.
    """
    family = family_of(processor)
    parts = [split_row(row, shape, processor) for row, shape in zip(rows, shapes, strict=True)]
    length = max(len(trunk.input_ids) + sum(len(d.input_ids) for d in row) for trunk, row in parts)
    shape = (len(rows), length)
    input_ids = torch.full(shape, processor.tokenizer.pad_token_id, dtype=torch.long)
    labels = torch.full(shape, IGNORE_INDEX, dtype=torch.long)
    position_ids = torch.zeros((family.axes, *shape), dtype=torch.long)
    number = torch.full(shape, -1, dtype=torch.long)  # of the dialogue within its row; 0: the trunk; -1: padding
    sees_image = torch.zeros(shape, dtype=torch.long)
    for r, (trunk, row) in enumerate(parts):
        start = len(trunk.input_ids)
        input_ids[r, :start] = torch.tensor(trunk.input_ids)
        position_ids[:, r, :start] = trunk.positions
        number[r, :start] = 0
        for k, dialogue in enumerate(row, 1):
            stop = start + len(dialogue.input_ids)
            input_ids[r, start:stop] = torch.tensor(dialogue.input_ids)
            labels[r, start:stop] = torch.tensor(dialogue.labels)
            position_ids[:, r, start:stop] = trunk.end + torch.arange(stop - start)
            number[r, start:stop] = k
            sees_image[r, start:stop] = (input_ids[r, start:stop] == processor.image_token_id).cumsum(0).clamp(max=1)
            start = stop
    sees = (number[:, :, None] == number[:, None, :]) | number.eq(0)[:, None, :]  # (rows, T, T)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    padding = number.eq(-1)
    attention = sees & causal & ~padding[:, :, None] | torch.eye(length, dtype=torch.bool)
    return {
        "input_ids": input_ids,
        "labels": labels,
        "position_ids": position_ids if family.axes > 1 else position_ids[0],
        "attention_mask": attention[:, None],
        **family.image_masks(sees_image, shapes, processor),
    }


def split_row(
    row: Sequence[EncodedDialogue], shape: Shape | None, processor: Any
) -> tuple[Trunk, Sequence[EncodedDialogue]]:
    """What the dialogues of a row share in it, and what each has behind that.

    Raises:
        ValueError: When they differ before the image token.
    """
    if shape is None:
        return NO_TRUNK, row
    ids = row[0].input_ids
    head = ids[: ids.index(processor.image_token_id) + 1]
    trunk = family_of(processor).trunk(head, shape)
    return trunk, behind(head, row) if trunk.input_ids else row


def behind(head: tuple[int, ...], dialogues: Sequence[EncodedDialogue]) -> list[EncodedDialogue]:
    """Dialogues without the head with which all of them begin. Raises ValueError where one does not."""
    if any(d.input_ids[: len(head)] != head for d in dialogues):
        raise ValueError("dialogues differ before their image token")
    return [EncodedDialogue(d.input_ids[len(head) :], d.labels[len(head) :]) for d in dialogues]


class Collator:
    """A batch of a plan -> tensors: each image once, its dialogues behind it.

    Args:
        splits: name -> (pages of a data set, rows of its plan), for training and for held-out pages.
        targets: page -> what training batches carry besides, tensors by name; None for nothing.
    """

    def __init__(
        self,
        splits: Mapping[str, tuple[Any, Sequence[PackedRow]]],
        encoder: Encoder,
        targets: Callable[[Mapping[str, Any]], Batch] | None = None,
    ) -> None:
        self.splits, self.encoder, self.targets = splits, encoder, targets

    def __call__(self, batches: Sequence[dict[str, Any]]) -> Batch:
        """Read, encode and pack the rows of the one batch in `batches`, a row of `Plan.table`."""
        (batch,) = batches
        pages, rows = self.splits[batch["split"]]
        images, texts, targets = [], [], []
        for row in (rows[i] for i in batch["rows"]):
            page = pages[row.page]
            if page["image"] is None:
                raise InputError(f"record {page['record_id']} (row {row.page}): has no image; render the pages again")
            images.append(page["image"])
            texts.append([self.encoder(page["dialogues"][k]["messages"]) for k in row.dialogues])
            if self.targets is not None and batch["split"] == "train":
                targets.append(self.targets(page))
        pixels, shapes = preprocess(self.encoder.processor, images)
        heads = {name: torch.stack([target[name] for target in targets]) for name in (targets[0] if targets else ())}
        return {**pack(texts, shapes, self.encoder.processor), **pixels, **heads}
