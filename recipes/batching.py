"""Which pages go into which batch: planned before the run, from the recipe's budget and seed alone.

A batch holds at most so many images and so many text tokens, padding included, so that no batch needs more memory than
another. A page whose dialogues do not fit into one row is looked at several times, whole dialogues each time. Nothing
is cut and nothing dropped: each dialogue is in exactly one batch of an epoch.

The plan of the whole run is one list of batches. Whoever trains takes them in order: step s takes `per_step` of them,
shared out over processes and accumulation alike, so that neither changes what a step learns from, and a run that
goes on from a checkpoint only has to know its step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.packing import Batch, Encoder, look, pack
from recipes.waveform_heads import targets
from render.errors import InputError

if TYPE_CHECKING:
    import datasets

# Rows are sorted by length within this many batches' worth of pages: padding shrinks, and the order stays random.
_SORTED_BATCHES = 16


@dataclass(frozen=True)
class PackedRow:
    """One row of a batch: a page with some of its dialogues. tokens: the row's length."""

    page: int
    dialogues: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class BatchLimits:
    """What a batch may hold. images: rows. tokens: rows x longest row; 0 for no limit.

    There is no count of tiles: Mllama's tower works on all tiles of its canvas whatever an image fills of them, so
    that `images` is the tile budget too.
    """

    images: int
    tokens: int = 0

    def holds(self, rows: int, longest: int) -> bool:
        """Whether so many rows, the longest of so many tokens, fit into one batch."""
        return rows <= self.images and (self.tokens == 0 or rows * longest <= self.tokens)


@dataclass(frozen=True)
class Plan:
    """The batches of a run in the order in which they are taken; each a tuple of indices of `pieces`.

    per_step: batches that one optimizer step takes, over all processes.
    """

    pieces: tuple[PackedRow, ...]
    batches: tuple[tuple[int, ...], ...]
    per_step: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return math.ceil(len(self.batches) / self.per_step)

    def rows(self, step: int) -> int:
        """Images seen in the first `step` steps."""
        return self._up_to(step)[0]

    def tokens(self, step: int) -> int:
        """Text tokens seen in the first `step` steps, padding left out."""
        return self._up_to(step)[1]

    def table(self, of: str) -> datasets.Dataset:
        """One row a batch, {"of", "pieces": its indices}: the data set that a Trainer takes one by one."""
        import datasets

        return datasets.Dataset.from_dict(
            {"of": [of] * len(self.batches), "pieces": [list(batch) for batch in self.batches]}
        )

    def _up_to(self, step: int) -> tuple[int, int]:
        rows, tokens = self._sums[min(step * self.per_step, len(self.batches))]
        return int(rows), int(tokens)

    @cached_property
    def _sums(self) -> NDArray[np.int64]:
        """(batches + 1, 2): rows and tokens of the batches before each."""
        counts = [(len(batch), sum(self.pieces[i].tokens for i in batch)) for batch in self.batches]
        return np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(np.array(counts, np.int64), axis=0)])


def split_pages(pages: Any, encoder: Encoder, tokens: int) -> tuple[PackedRow, ...]:
    """Every dialogue of every page in rows of at most `tokens` tokens (0: no limit), in the order of the data set.

    Raises `InputError` for a dialogue that is longer by itself: the answers of one with several turns depend on its
    earlier turns, so that it cannot be parted either. Pages without dialogues give no row.
    """
    pieces: list[PackedRow] = []
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
        pieces += [PackedRow(page, row, sum(lengths[k] for k in row)) for row in _rows(lengths, tokens)]
    if not pieces:
        raise InputError("no page has a dialogue; render the pages with questions")
    return tuple(pieces)


def _rows(lengths: Sequence[int], limit: int) -> Iterator[tuple[int, ...]]:
    row: list[int] = []
    for k, length in enumerate(lengths):
        if row and limit and sum(lengths[i] for i in row) + length > limit:
            yield tuple(row)
            row = []
        row.append(k)
    if row:
        yield tuple(row)


def plan_batches(
    pieces: tuple[PackedRow, ...], budget: BatchLimits, *, seed: int, per_step: int, epochs: float = 1.0, steps: int = 0
) -> Plan:
    """The batches of a run of so many epochs, or of so many steps when `steps` is not 0."""
    batches: list[tuple[int, ...]] = []
    wanted = steps * per_step
    epoch = 0
    while len(batches) < wanted if steps else epoch < epochs:
        shuffled = _epoch(pieces, budget, np.random.default_rng([seed, epoch]), per_step)
        share = 1.0 if steps else min(1.0, epochs - epoch)
        batches += shuffled[: math.ceil(round(len(shuffled) / per_step * share, 9)) * per_step]
        epoch += 1
    return Plan(pieces, tuple(batches[:wanted] if steps else batches), per_step)


def in_order(pieces: tuple[PackedRow, ...], budget: BatchLimits) -> Plan:
    """All pieces once, in the order of the data set: for losses on held-out pages."""
    return Plan(pieces, tuple(_cut(range(len(pieces)), pieces, budget)), 1)


def _epoch(
    pieces: Sequence[PackedRow], budget: BatchLimits, rng: np.random.Generator, per_step: int
) -> list[tuple[int, ...]]:
    """Every piece once, in batches of random order, their number a multiple of `per_step` where there are enough."""
    order = rng.permutation(len(pieces)).tolist()
    window = _SORTED_BATCHES * budget.images
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda i: pieces[i].tokens)
        batches += _cut(near, pieces, budget)
    batches = [batches[i] for i in rng.permutation(len(batches))]
    while len(batches) % per_step:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        whole = batches[largest]
        if len(whole) == 1:  # fewer rows than a step takes
            break
        batches[largest] = whole[: len(whole) // 2]
        batches.append(whole[len(whole) // 2 :])
    return batches


def _cut(order: Sequence[int], pieces: Sequence[PackedRow], budget: BatchLimits) -> Iterator[tuple[int, ...]]:
    batch: list[int] = []
    longest = 0
    for i in order:
        longest = max(longest, pieces[i].tokens)
        if batch and not budget.holds(len(batch) + 1, longest):
            yield tuple(batch)
            batch, longest = [], pieces[i].tokens
        batch.append(i)
    if batch:
        yield tuple(batch)


class Collator:
    """A batch of a plan -> tensors: each image once, its dialogues behind it.

    sets: name -> (rows of a data set, pieces of its plan), for training and for held-out pages.
    patch: side of the tower's patches where training batches carry targets for `recipes.waveform_heads`; 0 for none.
    """

    def __init__(self, sets: Mapping[str, tuple[Any, Sequence[PackedRow]]], encoder: Encoder, patch: int = 0) -> None:
        self.sets, self.encoder, self.patch = sets, encoder, patch

    def __call__(self, batches: Sequence[dict[str, Any]]) -> Batch:
        """Read, encode and pack the rows of the one batch in `batches`, a row of `Plan.table`."""
        (batch,) = batches
        pages, pieces = self.sets[batch["of"]]
        images, texts, told = [], [], []
        for piece in (pieces[i] for i in batch["pieces"]):
            row = pages[piece.page]
            if row["image"] is None:
                raise InputError(f"record {row['record_id']} (row {piece.page}): has no image; render the pages again")
            images.append(row["image"])
            texts.append([self.encoder(row["dialogues"][k]["messages"]) for k in piece.dialogues])
            if self.patch and batch["of"] == "train":
                told.append(targets(row, self.encoder.processor, self.patch))
        pixels, tiles = look(self.encoder.processor, images)
        reading = {name: torch.stack([t[name] for t in told]) for name in (told[0] if told else ())}
        return {**pack(texts, tiles, self.encoder.processor), **pixels, **reading}
