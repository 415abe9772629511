"""A short round of `make fuzz`, and every file that once failed in a long one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from render.errors import InputError
from tests.fuzz import CORPUS, Reader, fuzz, observe_input
from tests.fuzz_readers import READERS

KEPT = [path for path in sorted(CORPUS.rglob("*")) if path.is_file()]
assert KEPT


@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    reader = READERS[name]()
    for file in sorted(set(reader.files) - reader.fixed):
        observe_input(reader, tmp_path, file, reader.files[file])  # what is imported then is no growth
    tally = fuzz(reader, tmp_path / "kept", inputs=25, seconds=2)
    assert not tally.failure
    # A reader of models takes half a second of CPU an input, and there are few of them in two.
    assert tally.passed > min(5, tally.inputs // 3), "few inputs get past the first check"


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.relative_to(CORPUS).parts[0])
def test_files_that_once_failed(kept: Path, tmp_path: Path) -> None:
    name, _, *parts = kept.relative_to(CORPUS).parts
    observe_input(READERS[name](), tmp_path, "/".join(parts), kept.read_bytes())


def test_a_fault_is_found_made_small_and_kept(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        content = path.read_bytes()
        if b"9" in content:
            raise KeyError("nine")
        if content[:1] != b"[":
            raise InputError("no list")

    tally = fuzz(Reader({"x.json": b"[1, 2, 3, 4]"}, read, "no list"), tmp_path / "kept", inputs=2000, seconds=20)
    assert tally.failure.startswith("KeyError: 'nine'") and 0 < tally.passed < tally.inputs
    (kept,) = (tmp_path / "kept").rglob("x.json")
    assert b"9" in kept.read_bytes() and str(kept) in tally.failure


@pytest.mark.parametrize("fault", ["time", "memory", "lines", "standard error"])
def test_bounds_are_kept(fault: str, tmp_path: Path) -> None:
    def read(path: Path) -> None:
        if fault == "lines":
            raise ValueError("a\nb") from InputError("a")
        if fault == "standard error":
            os.write(2, b"libtiff: bad")
            return
        end = time.process_time() + 60
        waste = []
        while time.process_time() < end:
            if fault == "memory":
                waste.append(bytearray(400 << 20))
                return

    tally = fuzz(Reader({"x": b"abc"}, read, seconds=0.05 if fault == "time" else 5), tmp_path, inputs=1, seconds=1)
    messages = {"time": "took too much time", "memory": "took", "lines": "ValueError", "standard error": "libtiff: bad"}
    assert messages[fault] in tally.failure
