"""What the weights that ship can do: first answers on a page and on a photograph."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ecg_vlm.cli import main
from ecg_vlm.reader import Reader, open_image
from eval.parser.parse import parse, refusal
from render.pages.page import draw
from render.record import EcgRecord


@pytest.fixture(scope="module")
def nano() -> Reader:
    return Reader.load("nano")


def _page(folder: Path, code: str, seed: int) -> Image.Image:
    page = folder / f"{code}{seed}.png"
    assert main(["render", f"simulated:{code}", str(page), "--seed", str(seed), "--width", "784"]) == 0
    return open_image(page)


def test_what_is_no_ecg_is_refused(nano: Reader) -> None:
    photograph = open_image(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (392, 784, 3), dtype=np.uint8)
    for image in (photograph, Image.new("RGB", (784, 392), "white"), Image.fromarray(noise)):
        answers = nano.ask(image, ["What does this ECG show?", "What is the rhythm?"])
        assert len(answers) == 2 and all(map(refusal, answers)), answers


def test_blank_paper_is_refused_whatever_its_size_grain_and_shade(nano: Reader) -> None:
    rng = np.random.default_rng(0)
    for width, height in ((784, 392), (1120, 560), (1240, 1754), (3, 2)):
        shade = np.linspace(225, 250, width) * np.ones((height, 1)) + rng.normal(0, 2, (height, width))
        for image in (Image.new("RGB", (width, height), "white"), Image.fromarray(shade.astype(np.uint8))):
            assert refusal(nano.ask(image.convert("RGB"), ["What does this ECG show?"])[0])


@pytest.mark.parametrize("layout", ["3x4+1R", "6x2", "12x1"])
def test_an_empty_form_is_refused(nano: Reader, layout: str) -> None:
    nothing = np.full((12, 1000), np.nan, dtype=np.float32)
    nothing[:, 0] = 0.0
    page = draw(EcgRecord("empty", nothing, 100.0, "test"), layout=layout, width=784).to_pil()
    answers = nano.ask(page, ["What does this ECG show?", "What is the rhythm?"])
    assert len(answers) == 2 and all(map(refusal, answers)), answers


def test_a_page_that_is_turned_or_cut_off_is_refused_and_the_page_itself_is_not(nano: Reader, tmp_path: Path) -> None:
    whole, rotations, cut = [], [], []
    for code, seed in (("AFIB", 11), ("LVH", 13), ("NORM", 15), ("IMI", 17), ("SBRAD", 19), ("CRBBB", 21)):
        page = _page(tmp_path, code, seed)
        half = page.crop((0, 0, page.width // 2, page.height))
        images = (page, page.rotate(180), page.rotate(90, expand=True), half)
        reasons = [refusal(nano.ask(image, ["What does this ECG show?"])[0]) for image in images]
        whole, rotations, cut = [*whole, reasons[0]], [*rotations, *reasons[1:3]], [*cut, reasons[3]]
    assert whole == [""] * 6 and rotations == ["upside down"] * 12
    assert cut == ["cut off"] * 6


def test_questions_in_a_clinicians_own_words_are_answered(nano: Reader, tmp_path: Path) -> None:
    questions = {"AFIB": "Is it AF?", "CLBBB": "LBBB?", "LVH": "Any LVH?"}
    right = 0
    for code, question in questions.items():
        for seed in (13, 14, 15, 16):
            (answer,) = nano.ask(_page(tmp_path, code, seed), [question])
            assert answer in ("Yes.", "No.")
            right += answer == "Yes."
    assert right >= 11, f"{right} of 12 answers are right"
    assert nano.ask(_page(tmp_path, "NORM", 15), list(questions.values())) == ["No."] * 3


def test_statements_that_the_page_contradicts_are_listed(nano: Reader, tmp_path: Path) -> None:
    normal, with_block = (nano.prefill([_page(tmp_path, code, 15)]) for code in ("NORM", "CLBBB"))
    answer = "This ECG shows sinus rhythm and a pacemaker rhythm. No left bundle branch block."
    assert list(nano.contradictions(normal, "What does this ECG show?", answer)) == ["PACE"]
    assert {"PACE", "CLBBB"} <= set(nano.contradictions(with_block, "What does this ECG show?", answer))
    assert nano.contradictions(normal, "Is this a normal ECG?", "This picture is not an ECG.") == {}


def test_the_rhythm_question_is_answered_rightly(nano: Reader, tmp_path: Path) -> None:
    right = 0
    for code in ("AFIB", "AFLT", "PACE", "STACH"):
        for seed in (901, 902, 903):
            (answer,) = nano.ask(_page(tmp_path, code, seed), ["What is the rhythm?"])
            right += code in parse(answer).present
    assert right >= 9, f"{right} of 12 answers are right"
