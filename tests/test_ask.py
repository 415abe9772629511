"""`ecg-vlm ask` beyond one answer: streams, conversations, batches, what is stored and reported."""

from __future__ import annotations

import os
import subprocess
import sys
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


_PLAIN_PROGRAM = """
import logging, warnings, sys
import huggingface_hub.utils as hub
from transformers.utils import logging as transformers_logging
from ecg_vlm import Reader, open_image
from ecg_vlm.images import open_page
from ecg_vlm.page_answers import answer_page

reader = Reader.load("nano")
image = open_image(sys.argv[1])
assert reader.ask(image, ["What is the rhythm?"]) and len(reader.score(image)) == 71
assert answer_page(reader, open_page(sys.argv[1]), ["Is it AF?"]).answers[0].text
assert transformers_logging.is_progress_bar_enabled() and not hub.are_progress_bars_disabled()  # as it was
assert logging.getLogger("transformers").level == logging.WARNING and warnings.filters
"""


def test_no_message_of_a_library_reaches_the_screen_of_a_program(page):
    command = [sys.executable, "-W", "default", "-c", _PLAIN_PROGRAM, str(page)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
