"""Time and memory grow with the input, and not faster: small files that took minutes or gigabytes."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from ecg_vlm.cli import main
from eval.parser.parse import parse, refusal
from eval.parser.tokenizer import tokenize
from eval.prediction_files import read_predictions
from recipes import model as models
from recipes.config import load_recipe
from recipes.model import load_processor
from render.errors import InputError
from render.sources.mimic_statements import codes_in_line


def seconds(function: Callable[..., object], *arguments: object) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


@pytest.mark.parametrize("unit", ["left and ", "V1, V2, ", "no ", "LVH, ", "(", "1. ", "? ", "a\n", "in leads ", "A) "])
def test_long_answers_are_read_in_a_second(unit: str) -> None:
    parse("Sinus rhythm.")
    text = unit * (1_000_000 // len(unit))
    assert seconds(parse, text) < 3 and seconds(parse, "Yes.", text) < 3 and seconds(refusal, text) < 3
    assert "AFIB" in parse("Atrial fibrillation. " + text).present


def test_answers_that_begin_again_and_again_are_found_in_linear_time() -> None:
    assert seconds(parse, "<answer>" * 125_000) < 3  # 40 where each looked for its end


def test_lists_that_begin_in_the_same_line_again_and_again_are_marked_in_linear_time() -> None:
    assert seconds(tokenize, "Differential" + ": 1. " * 20_000) < 3  # 12 where each looked for its second item


@pytest.mark.parametrize("unit", [",", " ", "-", "(", "with ", "infarct ", "(cited on or before ", "bi-"])
def test_long_lines_of_a_machine_state_nothing(unit: str) -> None:
    text = "Atrial fibrillation" + unit * (16_000 // len(unit))
    assert seconds(codes_in_line, text) < 1 and codes_in_line(text) == frozenset()
    assert codes_in_line("Atrial fibrillation" + " " * 400) == {"AFIB"}


def test_a_csv_of_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    names = [f"c{k}" for k in range(40_000)]
    for header in (["record_id", *names], ["record_id", *names, "c0"]):
        path.write_text(",".join(header) + "\n", encoding="utf-8")
        start = time.process_time()
        with pytest.raises(InputError, match=r"many\.csv: no column is a statement code"):
            read_predictions(path)
        assert time.process_time() - start < 1


# YAML


def _aliases(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, levels)]
    return "\n".join(lines) + f"\nname: *a{levels - 1}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_aliases(9), "aliases"),
        ("name: &a [*a]\n", "aliases"),
        ("[" * 100_000, "levels"),
        ("a: " + "{" * 50_000, "levels"),
        ("- " * 40_000, "levels"),
        ("x: " + "y" * 200_000, "characters"),
        ("train: {seed: !!int ''}\n", "not valid YAML"),
        ("train: {seed: !!float ''}\n", "not valid YAML"),
        ("train: {seed: !!timestamp x}\n", "not valid YAML"),
        ("train: {seed: !!binary '*'}\n", "expected a whole number"),
        ("train: {seed: !!python/object:os.system x}\n", "not valid YAML"),
        ("train: {seed: 2024-13-45}\n", "train.seed='2024-13-45': expected a whole number"),
        ("train: {seed: 2024-01-01}\n", "train.seed='2024-01-01': expected a whole number"),
        ("name: 2024-01-01\ntrain: {seed: x}", "train.seed="),
        (f"train: {{seed: {'9' * 400}}}\n", "train.seed=9.*must lie between"),
        (f"train: {{epochs: {'9' * 400}}}\n", "train.epochs=9.*expected a number"),
        (f"train: {{epochs: {'9' * 5000}}}\n", "not valid YAML"),
        (f"train: {{seed: 0x{'f' * 9000}}}\n", "train.seed=a very long number"),
        (f"data: {{folds: 0x{'f' * 9000}}}\n", "data.folds=a very long number"),
        ("train: {epochs: .nan}\n", "train.epochs=nan: must lie between"),
        ("train: {epochs: -.inf}\n", "train.epochs=-inf: must lie between"),
        ("? {a: b}\n: c\n", "not valid YAML"),
        ("1: 2\n", "unknown key 1"),
        ("\x00", "not valid YAML"),
        ("a: b\n" * 3 + "\t", "YAML"),
        ("%TAG ! !\n---\n", "mapping|YAML"),
        ("---\na: 1\n---\nb: 2\n", "not valid YAML"),
    ],
)
def test_a_recipe_is_refused_in_one_line(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.process_time()
    with pytest.raises(InputError, match=f"(?s)recipe.yaml: .*({reason})") as error:
        load_recipe(path)
    assert time.process_time() - start < 2
    assert len(str(error.value)) < 500


def test_an_override_is_refused_in_one_line() -> None:
    for value in ("!!int ''", "&a [*a]", "[" * 50_000, "2024-13-45", "9" * 400, "9" * 5000):
        with pytest.raises(InputError, match=r"override|train\.seed"):
            load_recipe("nano", [f"train.seed={value}"])


# The hub


@pytest.fixture
def silent_host() -> Iterator[str]:
    """The address of a host that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in connections:
            connection.close()


def test_a_silent_hub_is_left_after_seconds_with_one_line(silent_host: str, tmp_path: Path) -> None:
    program = f"""
import sys
from recipes import model
model._HUB_SECONDS = 2.0
from ecg_vlm.cli import main
sys.exit(main(["ask", {str(_page(tmp_path))!r}, "Rhythm?", "--model", "somebody/some-model"]))
"""
    environment = {"HF_ENDPOINT": silent_host, "HF_HOME": str(tmp_path / "hub"), "PATH": "", "HF_HUB_OFFLINE": "0"}
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    lines = [line for line in process.stderr.splitlines() if not line.endswith(" ...")]
    assert process.returncode == 2, process.stderr
    assert len(lines) == 1 and "huggingface.co cannot be reached (no answer within 2 s)" in lines[0]
    assert models._HUB_SECONDS == 15


def test_what_the_hub_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(base: str) -> None:
        raise ValueError("no such name")

    monkeypatch.setattr("huggingface_hub.auth_check", refuse)
    with pytest.raises(InputError, match=r"is no folder here and no model on huggingface\.co"):
        load_processor("some body/some model")


def _page(folder: Path) -> Path:
    image = Image.new("RGB", (300, 200), "white")
    image.paste("black", (20, 20, 200, 22))
    image.save(folder / "page.png")
    return folder / "page.png"


# Pictures


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the most memory of a process is read there")
def test_a_two_coloured_bomb_stays_small(tmp_path: Path) -> None:
    image = Image.new("1", (8000, 8000), 1)
    for x in range(0, 8000, 40):
        image.paste(0, (x, 0, x + 1, 8000))
    image.save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    program = f"""
from ecg_vlm.images import open_page
print(open_page({str(tmp_path / "bomb.png")!r}).image.size)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    size, kilobytes = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert size == "(4000, 4000)" and int(kilobytes) < 300_000


def test_a_page_of_usual_size_keeps_its_pixels(tmp_path: Path) -> None:
    from ecg_vlm.images import open_image

    Image.new("RGB", (5000, 6000), "white").save(tmp_path / "large.png")
    assert open_image(tmp_path / "large.png").size == (5000, 6000)


def test_long_lines_do_not_stop_the_command(tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("left and " * 50_000 + "\n" + "V1, V2, " * 50_000, encoding="utf-8")
    start = time.process_time()
    assert main(["parse", str(tmp_path / "answers.txt")]) == 0
    assert time.process_time() - start < 5
