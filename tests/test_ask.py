"""`ecg-vlm ask` beyond one answer: streams, conversations, batches, what is stored and reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ecg_vlm.cli import main
from ecg_vlm.images import open_page
from ecg_vlm.page_answers import answer_page
from ecg_vlm.reader import Reader, open_image
from recipes.inference import TextStreamer


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.png"
    assert main(["render", "simulated", str(path), "--seed", "3"]) == 0
    return path


@pytest.fixture(scope="module")
def nano() -> Reader:
    return Reader.load("nano")


def test_an_answer_is_streamed_in_pieces_and_the_result_replaces_them(page, nano):
    streamed, readings = {}, []
    questions = ["What does this ECG show?", "Is it atrial fibrillation?", "Why?"]

    def on_text(place: int, piece: str) -> None:
        streamed.setdefault(place, []).append(piece)

    result = answer_page(nano, open_page(page), questions, on_reading=readings.append, on_text=on_text)
    assert [*streamed] == [0, 1, 2] and len(streamed[0]) > 3 and readings == [result.reading]
    for place, answer in enumerate(result.answers):
        assert "".join(streamed[place]) == (answer.original or answer.text)


def test_no_piece_of_a_stream_ends_inside_a_character(nano):
    tokenizer, pieces = nano.processor.tokenizer, []
    text = "Σ ECG: Vorhofflimmern – größer, 心電圖 🫀 done"
    streamer = TextStreamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([[1, 2, 3]]))  # the prompt
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    for token in [*tokens, tokenizer.eos_token_id]:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == text and len(pieces) > 8 and not any("\ufffd" in piece for piece in pieces)


def test_what_a_stream_raises_ends_the_generation(page, nano):
    pieces = []

    def leave(piece: str) -> None:
        pieces.append(piece)
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        nano.ask(open_image(page), ["What does this ECG show?"], on_text=leave)
    assert len(pieces) == 1
