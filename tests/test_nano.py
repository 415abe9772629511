"""What the weights that ship can do: a newcomer's first answers, on a page and on a photograph."""

from pathlib import Path

import matplotlib
import pytest

from ecg_vlm.cli import main
from ecg_vlm.reader import Reader, open_image
from eval.parse import parse, refusal


@pytest.fixture(scope="module")
def nano() -> Reader:
    return Reader.load("nano")


def test_a_photograph_is_refused(nano: Reader) -> None:
    photograph = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    for answer in nano.ask(open_image(photograph), ["What does this ECG show?", "What is the rhythm?"]):
        assert refusal(answer), answer


def test_the_rhythm_of_pages_is_named(nano: Reader, tmp_path: Path) -> None:
    named = 0
    for code in ("AFIB", "AFLT", "PACE", "STACH"):
        for seed in (901, 902, 903):
            page = tmp_path / f"{code}{seed}.png"
            assert main(["render", f"simulated:{code}", str(page), "--seed", str(seed), "--width", "784"]) == 0
            (answer,) = nano.ask(open_image(page), ["What is the rhythm?"])
            named += code in parse(answer).present
    assert named >= 9, f"{named} of 12 rhythms are named"
