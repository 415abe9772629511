"""Worker processes: every way of stopping ends within one step and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from render.workers import run_tasks

PROGRAM = """
import signal
import sys
from pathlib import Path
from tests_workers_helper import slow
from render.workers import run_tasks

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
run_tasks(slow, [(sys.argv[1], k) for k in range(2)], 2, lambda steps: print(steps, flush=True))
"""

HELPER = """
import time
from pathlib import Path

def slow(folder, number, step):
    for k in range(600):
        time.sleep(0.05)
        (Path(folder) / f"{number}-{k}").touch()
        step()
"""


def touch(folder: str, number: int, step: Callable[[], None]) -> None:
    for k in range(400):
        (Path(folder) / f"{number}-{k}").touch()
        time.sleep(0.01)
        step()


def fail_late(folder: str, number: int, step: Callable[[], None]) -> None:
    if number == 1:
        time.sleep(0.3)
        raise ValueError("the second task is wrong")
    touch(folder, number, step)


def test_tasks_run_and_their_steps_are_counted(tmp_path: Path) -> None:
    for workers in (1, 2):
        counts: list[int] = []
        folder = tmp_path / str(workers)
        folder.mkdir()
        run_tasks(touch, [(str(folder), 0), (str(folder), 1)], workers, counts.append)
        assert counts[-1] == 800 == len(list(folder.iterdir())) and counts == sorted(counts) and len(counts) > 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_of_the_parent_stops_the_workers(error: type[BaseException], tmp_path: Path) -> None:
    def report(steps: int) -> None:
        if steps:
            raise error

    with pytest.raises(error):
        run_tasks(touch, [(str(tmp_path), k) for k in range(2)], 2, report)
    count = len(list(tmp_path.iterdir()))
    assert 0 < count < 790
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == count


def test_an_error_of_one_task_stops_the_others(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="second task"):
        run_tasks(fail_late, [(str(tmp_path), k) for k in range(2)], 2, lambda steps: None)
    assert len(list(tmp_path.iterdir())) < 390


def test_no_reading_process_outlives_its_server() -> None:
    program = """
import time
from functools import partial
from ecg_vlm.serve.reading_process import ReadingProcess

if __name__ == "__main__":
    ReadingProcess(partial(exec, "import os, time; print(os.getpid(), flush=True); time.sleep(600)"))
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(timeout=20)
    parent.stdout.close()
    assert not psutil.wait_procs([child], timeout=10)[1]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_no_worker_outlives_its_parent(name: str, tmp_path: Path) -> None:
    (tmp_path / "tests_workers_helper.py").write_text(HELPER)
    (tmp_path / "files").mkdir()
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    program = tmp_path / "program.py"
    program.write_text(f"if __name__ == '__main__':{PROGRAM.replace(chr(10), chr(10) + '    ')}")
    process = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "files")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) in ("0\n",):
        pass
    assert int(line) > 0
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(getattr(signal, name))
    process.wait(timeout=20)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    count = len(list((tmp_path / "files").iterdir()))
    time.sleep(0.3)
    assert len(list((tmp_path / "files").iterdir())) == count
