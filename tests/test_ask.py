"""`ecg-vlm ask` beyond one answer: streams, conversations, batches, what is stored and reported."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pypdfium2
import pytest
import torch
from PIL import Image

import ecg_vlm
from ecg_vlm.answer_file import AnswerFile
from ecg_vlm.answers import QuestionAnswer
from ecg_vlm.cli import main
from ecg_vlm.cli.answer_text import AnswerPrinter
from ecg_vlm.cli.ask import images_and_questions
from ecg_vlm.images import open_page
from ecg_vlm.page_answers import PageAnswers, answer_page
from ecg_vlm.page_report import page_report_html, page_report_pdf, write_page_report
from ecg_vlm.reader import Reader, open_image
from ecg_vlm.statement_scores import GROUPS
from eval.metrics.calibration import Calibration, Curve, write_calibration
from recipes.inference import TextStreamer
from recipes.packing import encode_prompt
from render.dialogues.wording import label_of
from render.errors import InputError
from render.statements import STATEMENTS


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.png"
    assert main(["render", "simulated", str(path), "--seed", "3"]) == 0
    return path


@pytest.fixture(scope="module")
def nano() -> Reader:
    return Reader.load("nano")


def test_an_answer_is_streamed_in_pieces_and_the_result_replaces_them(page, nano):
    streams, readings = {}, []
    questions = ["What does this ECG show?", "Is it atrial fibrillation?", "Why?"]

    def on_text(place: int, piece: str) -> None:
        streams.setdefault(place, []).append(piece)

    result = answer_page(nano, open_page(page), questions, on_reading=readings.append, on_text=on_text)
    assert [*streams] == [0, 1, 2] and len(streams[0]) > 3 and readings == [result.reading]
    for place, answer in enumerate(result.answers):
        assert "".join(streams[place]) == (answer.original or answer.text)


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
assert Reader.load(sys.argv[2]).ask(image, ["What is the rhythm?"])  # with an adapter
assert transformers_logging.is_progress_bar_enabled() and not hub.are_progress_bars_disabled()  # as it was
assert logging.getLogger("transformers").level == logging.WARNING and warnings.filters
"""


def test_no_message_of_a_library_reaches_the_screen_of_a_program(page, adapter_run):
    command = [
        sys.executable,
        "-W",
        "default",
        "-c",
        _PLAIN_PROGRAM,
        str(page),
        str(adapter_run),
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_a_terminal_shows_the_answer_as_it_comes_and_a_correction_plainly(page, capsys, monkeypatch):
    writes, write = [], sys.stdout.write

    def note(text: str) -> int:
        writes.append(text)
        return write(text)

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "write", note)
    assert main(["ask", str(page), "What does this ECG show?", "Is it AF?"]) == 0
    out = capsys.readouterr().out
    heading = next(place for place, text in enumerate(writes) if text.startswith("What does this ECG show?  "))
    end = writes.index("\n", heading)
    assert end - heading > 3 and "".join(writes[heading:end]) in out and "\nIs it AF?  No.\n" in out

    printer = AnswerPrinter()
    for piece in ("This is a normal", " ECG."):
        printer.stream_text(piece)
    printer.finish(QuestionAnswer("?", "This is not a normal ECG.", original="This is a normal ECG."))
    assert capsys.readouterr().out == (
        "This is a normal ECG.\n  corrected, to agree with the scores: This is not a normal ECG.\n"
    )


def answers_of(nano: Reader, page: Path) -> PageAnswers:
    return answer_page(nano, open_page(page), ["What does this ECG show?", "Is this a normal ECG?"], scores=True)


@pytest.fixture(scope="module")
def answers(nano, page) -> PageAnswers:
    return answers_of(nano, page)


def validate(result: object) -> None:
    schema = json.loads((Path(ecg_vlm.__file__).parent / "answers.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(result)
    assert isinstance(result, dict) and result.keys() <= schema["properties"].keys()


def test_the_json_object_is_of_the_schema(answers, nano, page, tmp_path):
    result = json.loads(json.dumps(answers.to_json()))
    validate(result)
    measurements = result["measurements"]
    rr_s = 60 / measurements["rate_bpm"]
    assert measurements["qtc_fridericia_ms"] == pytest.approx(measurements["qt_ms"] / rr_s ** (1 / 3), abs=0.2)
    assert f"QTc (Fridericia) {measurements['qtc_fridericia_ms']:.0f} ms" in answers.measurements_in_words()
    assert result["image_sha256"] == hashlib.sha256(page.read_bytes()).hexdigest()
    assert result["scores"].keys() == result["thresholds"].keys() == result["verdicts"].keys() == STATEMENTS.keys()
    noise = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    validate(answers_of(nano, tmp_path / "noise.png").to_json())
    with pytest.raises(jsonschema.ValidationError):
        validate({**result, "schema_version": 2})


def test_a_report_is_one_printable_page_that_loads_and_runs_nothing(answers, tmp_path):
    write_page_report(tmp_path / "r.html", answers)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in html and "http:" not in html and "https:" not in html and "Not a medical device" in html
    assert html.count('<svg viewBox="0 0 100 10"') == 71 and html.count("data:image/png;base64,") == 1
    assert all(f"<h3>{group}</h3>" in html for group in GROUPS)
    write_page_report(tmp_path / "r.pdf", answers)
    pdf = pypdfium2.PdfDocument(tmp_path / "r.pdf")
    text = " ".join(pdf[0].get_textpage().get_text_range().split())
    assert len(pdf) == 1 and "Not a medical device" in text and "Measured on the digitized leads" in text
    assert answers.answers[0].text in text and all(label_of(code) in text for code in STATEMENTS)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e{{ 7*7 }}"


def test_a_report_escapes_whatever_an_object_holds(answers):
    result = answers.to_json()
    result |= {"image": HOSTILE, "model": HOSTILE, "warnings": [HOSTILE], "refusal_reason": HOSTILE}
    result["answers"] = [{"question": HOSTILE, "answer": HOSTILE, "contradicted": {}, "original": HOSTILE}]
    html = page_report_html(result)
    assert "<script" not in html and "<img" not in html and "7*7" in html
    result["image"] = "/home/ward/7/心電図.png"  # its folders are not printed
    first_page = pypdfium2.PdfDocument(page_report_pdf(result))[0].get_textpage().get_text_range()
    assert first_page.startswith("ECG: □□□.png") and "心電図.png" in page_report_html(result)
    assert "ward" not in page_report_html(result)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"AFIB": "high"}, "thresholds": {"AFIB": 0.5}, "verdicts": {"AFIB": True}},
        {"scores": {"nothing": 0.5}, "thresholds": {"nothing": 0.5}, "verdicts": {"nothing": True}},
        {"answers": [{}]},
        {"measurements": {"rate_bpm": None}},
        {"as_read": "javascript:alert(1)"},
        {"as_read": "data:image/png;base64,AAAA"},
        {"page_as_read": "x"},
    ],
)
def test_a_report_refuses_what_is_no_result(answers, change):
    with pytest.raises(InputError, match="is no object of ecg-vlm ask"):
        page_report_html({**answers.to_json(), **change})


def test_batch_goes_on_where_it_ended_and_refuses_another_request(page, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(page, name)
    ask = ("ask", "*.png", "Is it AF?", "--out", "out.jsonl")
    assert main([*ask]) == 0
    lines = Path("out.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["image"] for line in lines] == ["a.png", "b.png", "c.png"]
    Path("out.jsonl").write_bytes(lines[0] + lines[1][:100])  # killed in the second line
    assert main([*ask]) == 2 and "go on with --resume" in capsys.readouterr().err
    assert main([*ask, "--resume"]) == 0
    assert Path("out.jsonl").read_bytes() == b"".join(lines)
    assert main(["ask", "*.png", "Any infarction?", "--out", "out.jsonl", "--resume"]) == 2
    assert "was started with questions=" in capsys.readouterr().err
    Path("notes.jsonl").write_text("mine, without a line break")
    assert main(["ask", "*.png", "--out", "notes.jsonl", "--resume"]) == 2 and Path("notes.jsonl").read_text()
    assert "its last line is no answer" in capsys.readouterr().err
    with Image.open("b.png") as image:
        image.save("b.png", optimize=True)  # other bytes: another picture
    assert main([*ask, "--resume"]) == 0
    images = [json.loads(line)["image"] for line in Path("out.jsonl").read_text().splitlines()]
    assert images == ["a.png", "b.png", "c.png", "b.png"]


def test_a_batch_depends_on_how_the_model_was_loaded_too(answers, tmp_path):
    file, request = tmp_path / "out.jsonl", {**answers.request, "dtype": "bfloat16"}
    AnswerFile(file, request, resume=False).append(answers.to_json())
    again = AnswerFile(file, request, resume=True)
    assert len(again) == 1 and again.has(answers.page.source, answers.page.sha256, 1)
    with pytest.raises(InputError, match=r"was started with dtype=bfloat16, not None; .* or name a new file"):
        AnswerFile(file, answers.request, resume=True)


def test_words_with_a_star_are_files_and_questions_stay_questions(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert images_and_questions(["scans/*", "page-?.png", "*.tif"]) == (["scans/*", "page-?.png", "*.tif"], [])
    assert images_and_questions(["a.png", "Why?", "Is it *really* AF?"])[1] == ["Why?", "Is it *really* AF?"]
    assert main(["ask", "scans/*"]) == 2 and "no picture or waveform file has such a name" in capsys.readouterr().err


def test_interactive_answers_line_by_line_and_says_that_nano_knows_no_follow_ups(page, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is the rhythm?\n\nIs it AF?\nquit\nNever asked?\n"))
    assert main(["ask", str(page), "--interactive"]) == 0
    out, err = capsys.readouterr()
    assert "nano was not trained on follow-ups" in err
    assert [line for line in out.splitlines() if not line.startswith(("Measured", "Warning"))] == [
        "This ECG shows sinus rhythm.", "No.",
    ]  # fmt: skip


def test_a_follow_up_sees_the_turns_before_it(nano, page):
    turns = [("What is the rhythm?", "Sinus rhythm.")]
    prompt = encode_prompt(nano.processor, "Is it fast?", turns)
    text = nano.processor.tokenizer.decode(prompt.input_ids, skip_special_tokens=True)
    assert [text.find(part) for part in ("What is the rhythm?", "Sinus rhythm.", "Is it fast?")] == sorted(
        text.find(part) for part in ("What is the rhythm?", "Sinus rhythm.", "Is it fast?")
    ) and "Sinus rhythm." in text  # fmt: skip
    other = Reader(nano.model, nano.processor, base="another model")
    prefill = other.prefill([open_image(page)])
    alone, after = (other.answer(prefill, "Is it fast?", history=history).text for history in ((), turns * 4))
    assert nano.answer(prefill, "Is it AF?", history=turns) == nano.answer(prefill, "Is it AF?")
    assert alone != after


def test_the_shipped_nano_is_calibrated_on_folds_it_may_use(nano):
    calibration = nano.calibration
    assert calibration is not None and {int(fold) for fold in calibration.folds} <= set(range(1, 9))
    assert len(calibration.curves) >= 50 and len(calibration.record_ids) >= 300


def test_verdicts_answers_and_contradictions_follow_the_same_scores_and_thresholds(nano, page, answers):
    result = answers.to_json()
    assert result["calibrated"] and "PTB-XL" in result["calibration"]
    assert set(result["uncalibrated"]) == STATEMENTS.keys() - nano.calibration.curves.keys()
    assert any(threshold != 0.5 for threshold in result["thresholds"].values())
    prefill = nano.prefill([answers.reading.view])
    for code in ("SR", "IMI", "NORM", "AFIB", "LVH", "ISCLA"):
        wording = "Is this a normal ECG?" if code == "NORM" else f"Does this ECG show {STATEMENTS[code].name}?"
        assert nano.answer(prefill, wording).text == ("Yes." if result["verdicts"][code] else "No."), code
    raw = nano.score_many(prefill)[0]
    for code, p, score in zip(STATEMENTS, raw, result["scores"].values(), strict=True):
        curve = nano.calibration.curves.get(code)
        assert score == pytest.approx(curve.apply(p) if curve else p)
        assert code == "NORM" or result["verdicts"][code] == (p >= (curve.threshold if curve else 0.5))


def test_a_model_without_a_calibration_says_so_and_one_beside_a_run_is_used(nano, page, tmp_path):
    other = Reader(nano.model, nano.processor, name=str(tmp_path), base="nano")
    result = answer_page(other, open_page(page), [], scores=True).to_json()
    validate(result)
    assert not result["calibrated"] and set(result["thresholds"].values()) == {0.5} and result["uncalibrated"] == []
    curves = {"SR": Curve(slope=1.0, offset=-2.0, threshold=0.25, positives=10)}
    write_calibration(tmp_path / "calibration.json", Calibration("mine", "my pages", {}, ("a", "b"), (), curves))
    scores = Reader(nano.model, nano.processor, name=str(tmp_path)).score(open_image(page), ["SR", "AFIB"])
    assert scores.calibration == "2 records of my pages" and scores.codes_as_given() == ("AFIB",)
    assert scores.threshold("SR") == pytest.approx(curves["SR"].apply(0.25)) and scores.threshold("AFIB") == 0.5
