"""Batches by budget: nothing dropped, nothing cut, nothing over the budget, and the same again for the same seed."""

from __future__ import annotations

from collections import Counter

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recipes.batching import BatchLimits, Collator, PackedRow, in_order, plan_batches, split_pages
from recipes.model import load_processor
from recipes.packing import IGNORED, Encoder
from render.errors import InputError


@pytest.fixture(scope="module")
def encoder():
    return Encoder(load_processor("nano"))


def talk(answer: str) -> dict:
    return {
        "messages": [{"role": "user", "content": "Report this ECG."}, {"role": "assistant", "content": answer}],
        "statements": [],
    }


def pages_of(answers: list[list[str]]):
    rows = [
        {"record_id": f"r{i}", "image": Image.new("RGB", (336, 336), (i, i, i)), "dialogues": [talk(a) for a in page]}
        for i, page in enumerate(answers)
    ]
    return datasets.Dataset.from_list(rows)


ANSWERS = [
    ["Sinus rhythm.", "No.", "Left ventricular hypertrophy."],
    ["Atrial fibrillation. " * k for k in range(1, 7)],
    ["No."],
    ["Sinus bradycardia with a first degree AV block and left axis deviation."] * 3,
]


@pytest.mark.parametrize("tokens", [0, 60, 200])
def test_every_answer_token_is_learnt_once_an_epoch(tokens, encoder):
    pages = pages_of(ANSWERS)
    pieces = split_pages(pages, encoder, tokens)
    made = plan_batches(pieces, BatchLimits(2, tokens), seed=3, per_step=1, epochs=2)
    collate = Collator({"train": (pages, pieces)}, encoder)
    learnt: Counter[int] = Counter()
    for batch in made.table("train"):
        tensors = collate([batch])
        learnt.update(tensors["labels"][tensors["labels"] != IGNORED].tolist())
        rows, length = tensors["input_ids"].shape
        assert rows <= 2 and (tokens == 0 or rows * length <= tokens)
        assert tensors["pixel_values"].shape[:2] == (rows, 1)
    wanted = Counter(
        label for page in ANSWERS for a in page for label in encoder(talk(a)["messages"]).labels if label != IGNORED
    )
    assert learnt == Counter({token: 2 * count for token, count in wanted.items()})
    assert (len(pieces) > len(ANSWERS)) == (tokens == 60)


def test_a_dialogue_over_the_budget_is_refused_with_its_row(encoder):
    with pytest.raises(InputError, match=r"record r1 \(row 1\), dialogue 4: \d+ tokens, train.tokens_per_batch is 20"):
        split_pages(pages_of(ANSWERS[:2]), encoder, 20)


def test_several_turns_are_not_parted(encoder):
    turns = [m for k in range(4) for m in talk(f"Atrial fibrillation {k}.")["messages"]]
    whole = len(encoder(turns).input_ids)
    pages = datasets.Dataset.from_list([{"record_id": "a", "image": None, "dialogues": [{"messages": turns}]}])
    assert split_pages(pages, encoder, whole) == (PackedRow(0, (0,), whole),)
    with pytest.raises(InputError, match=f"raise it to {whole} or more"):
        split_pages(pages, encoder, whole - 1)


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
def test_pages_that_teach_nothing_are_said(page, message, encoder):
    with pytest.raises(InputError, match=message):
        split_pages({"record_id": ["a"], "dialogues": [page["dialogues"]]}, encoder, 0)


def test_a_page_without_image_is_refused(encoder):
    pages = datasets.Dataset.from_list([{"record_id": "a", "image": None, "dialogues": [talk("No.")]}])
    collate = Collator({"train": (pages, split_pages(pages, encoder, 0))}, encoder)
    with pytest.raises(InputError, match=r"record a \(row 0\): has no image"):
        collate([{"of": "train", "pieces": [0]}])


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
    pieces = tuple(PackedRow(i, (0,), n) for i, n in enumerate(lengths))
    budget = BatchLimits(images, tokens)
    made = plan_batches(pieces, budget, seed=seed, per_step=per_step, epochs=epochs)
    assert made == plan_batches(pieces, budget, seed=seed, per_step=per_step, epochs=epochs)
    for batch in made.batches:
        assert budget.holds(len(batch), max(lengths[i] for i in batch))
    seen = Counter(i for batch in made.batches for i in batch)
    whole, part = divmod(epochs, 1)
    assert all(whole <= seen[i] <= whole + (part > 0) for i in range(len(lengths)))
    assert len(made.batches) % per_step == 0 or all(len(batch) == 1 for batch in made.batches)
    assert made.rows(made.steps) == sum(seen.values())
    assert made.tokens(made.steps) == sum(lengths[i] * n for i, n in seen.items())
    assert made.rows(0) == made.tokens(0) == 0
    shorter = plan_batches(pieces, budget, seed=seed, per_step=per_step, steps=2)
    assert shorter.steps == 2 and len(shorter.batches) == 2 * per_step
    ordered = [i for batch in in_order(pieces, budget).batches for i in batch]
    assert ordered == list(range(len(lengths)))


def test_epochs_differ_and_the_seed_decides():
    pieces = tuple(PackedRow(i, (0,), 50) for i in range(64))
    two = plan_batches(pieces, BatchLimits(8), seed=0, per_step=1, epochs=2)
    assert two.batches[:8] != two.batches[8:]
    assert two.batches != plan_batches(pieces, BatchLimits(8), seed=1, per_step=1, epochs=2).batches


def test_rows_of_like_length_stand_together():
    """Padding stays under a tenth; in a plain shuffle it would be most of the batch."""
    lengths = [50 if i % 2 else 500 for i in range(400)]
    pieces = tuple(PackedRow(i, (0,), n) for i, n in enumerate(lengths))
    made = plan_batches(pieces, BatchLimits(8), seed=0, per_step=1)
    padded = sum(len(b) * max(lengths[i] for i in b) for b in made.batches)
    assert padded < 1.1 * sum(lengths)


def test_processes_and_accumulation_share_one_plan():
    """Two processes take what one takes that sums up two batches."""
    pieces = tuple(PackedRow(i, (0,), 50 + i) for i in range(21))
    made = plan_batches(pieces, BatchLimits(4), seed=0, per_step=2, epochs=1)
    assert made.steps == 3 and len(made.batches) == 6
    assert sorted(i for b in made.batches for i in b) == list(range(21))
