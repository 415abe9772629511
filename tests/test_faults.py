"""Damaged files of our own making: one line and an exit code, never a traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ecg_vlm import cli
from ecg_vlm.cli import main
from tests.faults import FAULTS, ODD_NAMES, try_command, write_inputs

_V01 = Path(__file__).with_name("v0_1")

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "a list": lambda content: b"[1, 2]",
    "null": lambda content: b"null",
    "deep": lambda content: b"[" * 100_000,
    "deep object": lambda content: b'{"a":' * 100_000,
    "zeros": lambda content: bytes(len(content)),
    "not text": lambda content: b"\xff\xfe\x00\xd8" * 50,
    "another type": lambda content: _other_types(content),
}


def _other_types(content: bytes) -> bytes:
    """JSON objects whose every value is a list; anything else with every second byte changed."""
    try:
        tree = json.loads(content)
        return json.dumps({key: [[1]] for key in tree}).encode()
    except ValueError:
        return bytes(byte ^ (i % 2) for i, byte in enumerate(content))


def expect_one_line(capsys: pytest.CaptureFixture[str], *words: object) -> None:
    """A command ends with 1 or 2 and one line, or does its work in spite of the damage."""
    code = main(list(map(str, words)))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ecg-vlm: ")]
    assert (code in (1, 2) and len(lines) == 1) or (code == 0 and not lines)
    assert code == 0 or len(lines[0]) < 1000


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(_V01, tmp_path / "v0_1"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = Image.new("RGB", (300, 200), "white")
    image.paste("black", (20, 20, 200, 40))
    path = tmp_path_factory.mktemp("page") / "page.png"
    image.save(path)
    return path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["run.json", "recipe.yaml", "adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_run(name: str, damage: str, copy: Path, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "run" / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    expect_one_line(capsys, "ask", page, "Rhythm?", "--model", copy / "run", "--max-new-tokens", 1)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["begun.json", "manifest.json", "data"])
def test_a_damaged_data_set(name: str, damage: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shard,) = (copy / "pages" / "data").glob("*.parquet")
    file = shard if name == "data" else copy / "pages" / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    options = json.loads((_V01 / "pages" / "begun.json").read_text())["options"]
    words = [
        "--limit",
        6,
        "--shard-size",
        options["shard_size"],
        "--width",
        options["width"],
        "--seed",
        options["seed"],
    ]
    expect_one_line(capsys, "render", "simulated", copy / "pages", *words, "--resume")
    expect_one_line(capsys, "evaluate", copy / "pred" / "scores.parquet", "--data", copy / "pages", "--out", copy / "a")
    expect_one_line(capsys, "finetune", "nano", f"data.train={copy / 'pages'}", "--out", copy / "b", "--max-steps", "0")


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["report.json", "scores.parquet", "answers.jsonl"])
def test_a_damaged_report(name: str, damage: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "report" / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    expect_one_line(capsys, "evaluate", "--from", copy / "report", "--out", copy / "again")
    expect_one_line(capsys, "compare", copy / "report", _V01 / "report", "--out", copy / "compared")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_damaged_baseline(name: str, damage: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "baseline" / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    words = ("--data", "simulated", "--limit", 2, "--out", copy / "scores")
    expect_one_line(capsys, "baseline", "predict", copy / "baseline", *words)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_calibration(damage: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "pred" / "calibration.json"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    words = ("--data", copy / "pages", "--out", copy / "out")
    expect_one_line(capsys, "evaluate", copy / "pred" / "scores.parquet", *words)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "a/" * 3000, "\udcff\udc80", "", ".", "..", "/dev/null", "-"])
def test_odd_names(name: str, page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    expect_one_line(capsys, "ask", page, "a", "--model", name)
    expect_one_line(capsys, "render", "simulated", name, "--limit", 1, "--width", 400)
    expect_one_line(capsys, "render", f"wfdb:{name}", tmp_path / "a")
    expect_one_line(capsys, "render", f"ptbxl:{name}", tmp_path / "b")
    expect_one_line(capsys, "evaluate", "--from", name, "--out", tmp_path / "c")
    expect_one_line(capsys, "finetune", "nano", f"data.train={name}", "--out", tmp_path / "d")
    expect_one_line(capsys, "doctor", name)


def test_a_record_whose_name_is_no_text_is_left_out(tmp_path: Path, write_wfdb, ecg_mv, capsys) -> None:
    write_wfdb(tmp_path / "records", "a", ecg_mv)
    header = write_wfdb(tmp_path / "records", "b", ecg_mv)
    try:
        header.rename(header.with_name("\udcff.hea"))
    except OSError:
        pytest.skip("this file system takes text alone")
    for kind in ("wfdb", "files"):
        expect_one_line(capsys, "render", f"{kind}:{tmp_path / 'records'}", tmp_path / f"{kind}-1", "--width", 400)
        words = ("--width", 400, "--lenient")
        expect_one_line(capsys, "render", f"{kind}:{tmp_path / 'records'}", tmp_path / f"{kind}-2", *words)
        manifest = json.loads((tmp_path / f"{kind}-2" / "manifest.json").read_text())
        assert manifest["pages"] == 1 and len(manifest["skipped"]) == 1


# A machine that fails


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "in"
    write_inputs(folder)
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="commands run in forked processes")
@pytest.mark.parametrize(("fault", "ends"), [("read-only", 2), ("input-removed", 2), ("line-break", 0), ("long", 0)])
def test_a_command_on_a_machine_that_fails(fault: str, ends: int, inputs: Path) -> None:
    outcome = try_command("parse", FAULTS.get(fault, lambda folder: None), inputs, ODD_NAMES.get(fault, ""))
    assert outcome.wrong == "" and outcome.code == ends and len(outcome.lines) == (ends > 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="commands run in forked processes")
def test_a_command_that_hangs_is_ended_and_says_where_it_was(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.crash_points.HANG_S", 1)
    monkeypatch.setattr("ecg_vlm.cli.parse.run", lambda arguments: threading.Event().wait())
    wrong = try_command("parse", lambda folder: None, inputs).wrong
    assert wrong.startswith("hangs: ") and "threading.py" in wrong


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux does")
def test_no_thread_is_awaited_where_data_sets_and_scores_are_read(tmp_path: Path) -> None:
    """Arrow, `datasets` and Python wait for ever for a thread that finds no memory to begin with."""
    program = """
import os
import sys
from pathlib import Path
import datasets.table
import pyarrow.parquet
from eval.storage import read_evaluation
from render.dataset.llava import export_llava
from render.dataset.other_rows import open_rows
from render.dataset.parquet import open_dataset
from render.dataset.trl import export_trl

inputs, out = map(Path, sys.argv[1:])
before = len(os.listdir("/proc/self/task"))
rows = open_dataset(inputs / "pages", out).filter(lambda fold: True, input_columns="fold").map(lambda row: row)
assert len(rows) == 6 and read_evaluation(inputs / "report").records.record_ids
assert export_llava(inputs / "pages", out / "llava") and export_trl(inputs / "pages", out / "t")
assert len(open_rows(str(out / "t" / "trl"), out)) > 0
print(len(os.listdir("/proc/self/task")) - before)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, str(_V01), str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert (process.returncode, process.stdout) == (0, "0\n"), process.stderr


def test_files_that_are_not_resumed_are_there_whole_or_not_at_all(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = copy / "baseline" / "model.json"  # with the records of its training, predict writes a second file
    model.write_text(json.dumps(json.loads(model.read_text()) | {"record_ids": ["a"], "patients": ["b"]}))
    commands = {
        "ecg_vlm.evaluation.write_report": ("evaluate", "--from", copy / "report"),
        "render.io.write_json": ("baseline", "predict", copy / "baseline", "--data", "simulated", "--limit", 1),
    }

    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError

    for name, words in commands.items():
        out = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(name, fail)
            expect_one_line(capsys, *words, "--out", out)
        assert not out.exists()
        assert main([*map(str, words), "--out", str(out)]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="commands run in forked processes")
def test_a_fault_of_the_program_counts_as_wrong(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecg_vlm.cli.parse.run", lambda arguments: 1 / 0)
    assert "unexpected ZeroDivisionError" in try_command("parse", lambda folder: None, inputs).wrong


# The last net


def _run(failure: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = f"""
import sys
from ecg_vlm import cli
from ecg_vlm.cli import list
def fail(arguments):
    raise {failure}
list.run = fail
sys.argv = ["ecg-vlm", "list", "recipes", *{list(words)!r}]
sys.exit(cli.main())
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_what_no_one_foresaw_is_one_line_with_the_way_to_report_it() -> None:
    process = _run("KeyError('a\\nb')")
    (line,) = process.stderr.splitlines()
    assert process.returncode == 1 and "KeyError" in line and "--verbose" in line and "/issues" in line
    process = _run("KeyError('a')", "--verbose")
    assert process.returncode == 1 and "Traceback (most recent call last)" in process.stderr
    assert "ecg-vlm: unexpected KeyError" in process.stderr.splitlines()[-1]


def test_what_python_says_of_an_object_that_ends_badly_is_for_verbose_alone() -> None:
    failure = "KeyError(type('HalfMade', (), {'__del__': lambda self: 1 / 0})() and 'a')"
    (line,) = _run(failure).stderr.splitlines()
    assert "KeyError" in line
    assert "ZeroDivisionError" in _run(failure, "--verbose").stderr


@pytest.mark.parametrize(
    ("cause", "start"),
    [
        ("MemoryError('malloc failed')", "not enough memory (malloc failed);"),
        ("OSError(28, 'Error writing bytes to file')", "disk: No space left on device"),
    ],
)
def test_what_the_machine_lacks_is_not_taken_for_damage(cause: str, start: str) -> None:
    process = _run(f"__import__('render.errors').errors.InputError('a: not readable') from {cause}")
    (line,) = process.stderr.splitlines()
    assert process.returncode == 1 and line.startswith(f"ecg-vlm: {start}")


def test_a_full_disk_is_no_surprise_where_a_folder_is_copied() -> None:
    process = _run("__import__('shutil').Error([('a', 'b', \"[Errno 28] No space left on device: 'b'\")])")
    assert (process.returncode, process.stderr) == (1, "ecg-vlm: disk: No space left on device\n")


def test_a_full_disk_is_no_surprise_where_safetensors_writes() -> None:
    error = "__import__('safetensors').SafetensorError"
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    process = _run(f"{error}({text!r})")
    assert (process.returncode, process.stderr) == (1, "ecg-vlm: disk: No space left on device\n")


def test_the_net_is_not_there_for_a_program_that_calls_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: object) -> None:
        raise KeyError("a")

    monkeypatch.setattr("ecg_vlm.cli.list.run", fail)
    with pytest.raises(KeyError):
        cli.main(["list", "recipes"])


@pytest.mark.parametrize(
    "failure",
    [
        "MemoryError()",
        "__import__('pyarrow').ArrowMemoryError('malloc of size 99 failed')",
        "RuntimeError('[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried')",
        "__import__('torch').empty(1 << 50)",
        'RuntimeError("can\'t start new thread")',
        "ImportError('_sigtools.so: failed to map segment from shared object')",
        "__import__('torch').OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has 1 MiB free')",
    ],
)
def test_no_memory_is_one_line(failure: str) -> None:
    process = _run(failure)
    (line,) = process.stderr.splitlines()
    assert process.returncode == 1 and line.startswith("ecg-vlm: not enough memory")
