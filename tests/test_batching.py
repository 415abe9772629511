"""Batches within limits: no dialogue is dropped or truncated, and the same seed gives the same batches."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import datasets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recipes import packing
from recipes.model import load_processor
from recipes.packing import (
    IGNORE_INDEX,
    BatchLimits,
    Collator,
    EncodedDialogue,
    Encoder,
    PackedRow,
    in_order,
    pack_rows,
    plan_batches,
)
from render.errors import InputError


@pytest.fixture(scope="module")
def encoder():
    return Encoder(load_processor("nano"))


def dialogue(answer: str) -> dict:
    return {
        "messages": [{"role": "user", "content": "Report this ECG."}, {"role": "assistant", "content": answer}],
        "statements": [],
    }


def pages_of(answers: list[list[str]]):
    pages = [
        {
            "record_id": f"r{i}",
            "image": Image.new("RGB", (336, 336), (i, i, i)),
            "dialogues": [dialogue(a) for a in page],
        }
        for i, page in enumerate(answers)
    ]
    return datasets.Dataset.from_list(pages)


ANSWERS = [
    ["Sinus rhythm.", "No.", "Left ventricular hypertrophy."],
    ["Atrial fibrillation. " * k for k in range(1, 7)],
    ["No."],
    ["Sinus bradycardia with a first degree AV block and left axis deviation."] * 3,
]


@pytest.mark.parametrize("tokens", [0, 60, 200])
def test_every_answer_token_has_a_label_once_an_epoch(tokens, encoder):
    pages = pages_of(ANSWERS)
    rows = pack_rows(pages, encoder, tokens)
    plan = plan_batches(rows, BatchLimits(2, tokens), seed=3, per_step=1, epochs=2)
    collate = Collator({"train": (pages, rows)}, encoder)
    labels: Counter[int] = Counter()
    for batch in plan.table("train"):
        tensors = collate([batch])
        labels.update(tensors["labels"][tensors["labels"] != IGNORE_INDEX].tolist())
        count, length = tensors["input_ids"].shape
        assert count <= 2 and (tokens == 0 or count * length <= tokens)
        assert tensors["pixel_values"].shape[:2] == (count, 1)
    answer_labels = Counter(
        label
        for page in ANSWERS
        for a in page
        for label in encoder(dialogue(a)["messages"]).labels
        if label != IGNORE_INDEX
    )
    assert labels == Counter({token: 2 * number for token, number in answer_labels.items()})
    assert (len(rows) > len(ANSWERS)) == (tokens == 60)


def test_a_dialogue_over_the_limit_is_refused_with_its_row(encoder):
    with pytest.raises(InputError, match=r"record r1 \(row 1\), dialogue 4: \d+ tokens, train.tokens_per_batch is 20"):
        pack_rows(pages_of(ANSWERS[:2]), encoder, 20)


def test_several_turns_are_not_split(encoder):
    turns = [m for k in range(4) for m in dialogue(f"Atrial fibrillation {k}.")["messages"]]
    whole = len(encoder(turns).input_ids)
    pages = datasets.Dataset.from_list([{"record_id": "a", "image": None, "dialogues": [{"messages": turns}]}])
    assert pack_rows(pages, encoder, whole) == (PackedRow(0, (0,), whole),)
    with pytest.raises(InputError, match=f"raise it to {whole} or more"):
        pack_rows(pages, encoder, whole - 1)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (
            {"dialogues": [{"messages": [{"role": "user", "content": "?"}]}]},
            r"record a \(row 0\), dialogue 0: a dialogue",
        ),
        ({"dialogues": []}, "no page has a dialogue"),
    ],
)
def test_pages_without_a_dialogue_or_answer_are_refused(page, message, encoder):
    with pytest.raises(InputError, match=message):
        pack_rows({"record_id": ["a"], "dialogues": [page["dialogues"]]}, encoder, 0)


def test_a_page_without_image_is_refused(encoder):
    pages = datasets.Dataset.from_list([{"record_id": "a", "image": None, "dialogues": [dialogue("No.")]}])
    collate = Collator({"train": (pages, pack_rows(pages, encoder, 0))}, encoder)
    with pytest.raises(InputError, match=r"record a \(row 0\): has no image"):
        collate([{"split": "train", "rows": [0]}])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60),
    images=st.integers(1, 9),
    tokens=st.sampled_from([0, 300, 1000]),
    per_step=st.integers(1, 4),
    epochs=st.sampled_from([0.5, 1.0, 2.25]),
    seed=st.integers(0, 5),
)
def test_plans(lengths, images, tokens, per_step, epochs, seed):
    rows = tuple(PackedRow(i, (0,), n) for i, n in enumerate(lengths))
    limits = BatchLimits(images, tokens)
    plan = plan_batches(rows, limits, seed=seed, per_step=per_step, epochs=epochs)
    assert plan == plan_batches(rows, limits, seed=seed, per_step=per_step, epochs=epochs)
    for batch in plan.batches:
        assert limits.allows(len(batch), max(lengths[i] for i in batch))
    uses = Counter(i for batch in plan.batches for i in batch)
    whole, part = divmod(epochs, 1)
    assert all(whole <= uses[i] <= whole + (part > 0) for i in range(len(lengths)))
    assert len(plan.batches) % per_step == 0 or all(len(batch) == 1 for batch in plan.batches)
    assert plan.images(plan.steps) == sum(uses.values())
    assert plan.tokens(plan.steps) == sum(lengths[i] * n for i, n in uses.items())
    assert plan.images(0) == plan.tokens(0) == 0
    shorter = plan_batches(rows, limits, seed=seed, per_step=per_step, steps=2)
    assert shorter.steps == 2 and len(shorter.batches) == 2 * per_step
    order = [i for batch in in_order(rows, limits).batches for i in batch]
    assert order == list(range(len(lengths)))


def test_a_dialogue_is_encoded_once_while_the_cache_has_room(monkeypatch):
    calls = []

    def encode(processor, messages):
        calls.append(messages[0]["content"])
        return EncodedDialogue((len(calls),), (0,))

    monkeypatch.setattr(packing, "encode_dialogue", encode)
    monkeypatch.setattr(packing, "_CACHE_SIZE", 2)
    encoder = Encoder(None)
    for question in "abab":
        encoder([{"role": "user", "content": question}])
    assert calls == ["a", "b"]
    for question in "cb":  # "c" empties a full cache
        encoder([{"role": "user", "content": question}])
    assert calls == ["a", "b", "c", "b"]


def test_a_batch_may_be_as_large_as_its_limits():
    limits = BatchLimits(images=2, tokens=20)
    assert limits.allows(2, 10) and not limits.allows(2, 11) and not limits.allows(3, 1)
    assert BatchLimits(images=2).allows(2, 10**9) and not BatchLimits(images=2).allows(3, 1)


def test_epochs_differ_and_the_seed_decides():
    rows = tuple(PackedRow(i, (0,), 50) for i in range(64))
    two = plan_batches(rows, BatchLimits(8), seed=0, per_step=1, epochs=2)
    assert two.batches[:8] != two.batches[8:]
    assert two.batches != plan_batches(rows, BatchLimits(8), seed=1, per_step=1, epochs=2).batches


def test_the_plan_of_a_seed_stays_what_it_is():
    """A run that resumes plans anew; its checkpoint knows the step alone."""
    rows = tuple(PackedRow(i, (0,), 50 + i * 37 % 101) for i in range(300))
    plan = plan_batches(rows, BatchLimits(8, 1000), seed=5, per_step=2, epochs=1.5)
    assert sha256(repr(plan.batches).encode()).hexdigest()[:12] == "2a704e3e83ee"


def test_rows_of_similar_length_share_a_batch():
    """Padding stays under a tenth; in a plain shuffle it would be most of the batch."""
    lengths = [50 if i % 2 else 500 for i in range(400)]
    rows = tuple(PackedRow(i, (0,), n) for i, n in enumerate(lengths))
    plan = plan_batches(rows, BatchLimits(8), seed=0, per_step=1)
    padded_tokens = sum(len(b) * max(lengths[i] for i in b) for b in plan.batches)
    assert padded_tokens < 1.1 * sum(lengths)


def test_processes_and_accumulation_share_one_plan():
    """Two processes take the batches that one process with two accumulation steps takes."""
    rows = tuple(PackedRow(i, (0,), 50 + i) for i in range(21))
    plan = plan_batches(rows, BatchLimits(4), seed=0, per_step=2, epochs=1)
    assert plan.steps == 3 and len(plan.batches) == 6
    assert sorted(i for b in plan.batches for i in b) == list(range(21))


def test_part_of_an_epoch_has_its_share_of_the_steps():
    rows = tuple(PackedRow(i, (0,), 50) for i in range(16))
    for epochs, per_step, batches in ((2.25, 1, 36), (0.5, 2, 8), (0.4, 2, 8), (1.0, 2, 16)):
        plan = plan_batches(rows, BatchLimits(1), seed=0, per_step=per_step, epochs=epochs)
        assert len(plan.batches) == batches
    assert in_order(rows, BatchLimits(1)).steps == 16


def test_a_row_is_filled_up_to_its_limit(encoder):
    one = len(encoder(dialogue("No.")["messages"]).input_ids)
    rows = pack_rows(pages_of([["No."] * 3]), encoder, 2 * one)
    assert rows == (PackedRow(0, (0, 1), 2 * one), PackedRow(0, (2,), one))


def test_pages_that_are_trained_on_alone_carry_targets(encoder):
    pages = pages_of([["No."]])
    rows = pack_rows(pages, encoder, 0)
    collate = Collator(
        dict.fromkeys(("train", "held out"), (pages, rows)), encoder, lambda page: {"wave": torch.ones(3)}
    )
    for split, has_targets in (("train", True), ("held out", False)):
        assert ("wave" in collate([{"split": split, "rows": [0]}])) == has_targets
