"""Pages of patients stay where they are: in the data set. Nothing of them is left in the home or a temporary folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from render.dataset.parquet import write_dataset
from render.dataset.rows import Options
from render.simulator.simulate import SimulatedSource


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "d"
    write_dataset(SimulatedSource(1, 4), folder, Options(width=400, closed=1, forms=("closed",)))
    return folder


def _environment(home: Path) -> dict[str, str]:
    for name in ("tmp", "home"):
        (home / name).mkdir(exist_ok=True)
    own = {"HOME": str(home / "home"), "HF_HOME": str(home / "home" / "hf"), "TMPDIR": str(home / "tmp")}
    return {**os.environ, **own, "HF_HUB_OFFLINE": "1"}


def _run(program: str, home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=_environment(home), timeout=300, check=False)


def _files(folder: Path) -> list[str]:
    """Files below a folder that may hold pages; caches of compiled code do not."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix not in (".nbi", ".nbc")]


_CLI = "import sys\nfrom ecg_vlm.cli import main\nsys.argv[0] = 'ecg-vlm'\nsys.exit(main())"


def test_opening_a_data_set_leaves_nothing(pages: Path, tmp_path: Path) -> None:
    program = """
import sys
from render.dataset.parquet import open_dataset
rows = open_dataset(sys.argv[1])
assert len(rows.filter(lambda fold: True, input_columns="fold").map(lambda row: row)) == 4
print(rows.cache_files[0]["filename"])
"""
    process = _run(program, tmp_path, pages)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(str(tmp_path / "tmp"))
    assert _files(tmp_path) == []


def test_a_process_that_is_killed_is_tidied_by_the_next(pages: Path, tmp_path: Path) -> None:
    program = """
import os, signal, sys
from render.dataset.parquet import open_dataset
rows = open_dataset(sys.argv[1])
if len(sys.argv) > 2: os.kill(os.getpid(), signal.SIGKILL)
"""
    assert _run(program, tmp_path, pages, "die").returncode == -signal.SIGKILL
    assert any(name.endswith(".arrow") for name in _files(tmp_path / "tmp"))
    assert _run(program, tmp_path, pages).returncode == 0
    assert _files(tmp_path) == []


def test_a_tuning_leaves_pages_neither_in_the_home_nor_in_the_run(pages: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = (
        "finetune",
        "quickstart",
        f"data.train={pages}",
        f"data.validation={pages}",
        "--max-steps",
        1,
        "--out",
        out,
    )
    process = _run(_CLI, tmp_path, *words, "train.images_per_batch=1", "data.leave_out=[LVH]")
    assert process.returncode == 0, process.stderr
    assert not [name for name in _files(tmp_path) if name.endswith((".arrow", ".parquet", ".png"))]
    assert all(name.startswith("run/") for name in _files(tmp_path))
    assert not [name for name in os.listdir(out) if "ecg-vlm-" in name]


def test_asking_writes_no_file(pages: Path, tmp_path: Path) -> None:
    from render.dataset.parquet import open_dataset

    image: Image.Image = open_dataset(pages)[0]["image"]
    files = [tmp_path / "page.png", tmp_path / "page.tiff"]
    for file in files:
        image.save(file)
    program = """
import json, os, sys, tempfile
tempfile.gettempdir()  # writes a file to see whether it can
written = []
def compiled(name):
    return name.endswith((".pyc", ".nbi", ".nbc")) or "__pycache__" in name
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR) and arguments[0] != os.devnull:
            written.append(arguments[0])
sys.addaudithook(hook)
from ecg_vlm.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, [name for name in written if not compiled(name)]]))
"""
    process = _run(program, tmp_path, "ask", *files, "What is the rhythm?", "--json")
    assert process.returncode == 0, process.stderr
    *answers, written = map(json.loads, process.stdout.splitlines())
    assert [answer["image"] for answer in answers] == list(map(str, files)) and written == [0, []]
    assert _files(tmp_path / "home") == _files(tmp_path / "tmp") == []
