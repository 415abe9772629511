"""Kill a command at every point where it opens, makes, renames or removes something in its folder, and go on.

    python tests/crash_points.py 1 OUT render simulated OUT --limit 3
    python tests/crash_points.py 1 OUT evaluate nano --data PAGES --out OUT

1: at every point, 4: at every fourth. Each crash is in a child process, which ends at once (`os._exit`): nothing is
cleaned up. Then the same command runs with --resume. It has to succeed and to leave the files, byte by byte, that a run
without a crash leaves, times in it apart. Prints one JSON object: the number of points, and those that failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

_MODULES = ("ecg_vlm.images", "render.dataset.llava", "render.dataset.parquet", "render.simulator.simulate")

EVENTS = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod"})
CRASH = 77


def crash_at(number: int, parent: str, count: Callable[[], None] = lambda: None) -> None:
    """End this process at event `number` (from 1) below the folder `parent`; 0 for never."""
    events = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal events
        if event not in EVENTS or not any(isinstance(a, str) and a.startswith(parent) for a in map(_text, arguments)):
            return
        events += 1
        count()
        if events == number:
            os._exit(CRASH)

    sys.addaudithook(hook)


def _text(argument: object) -> object:
    return os.fspath(argument) if isinstance(argument, os.PathLike) else argument


TIMES = {
    "report.json": rb'"(seconds|pages_per_second)": [0-9.]+',
    "report.html": rb"[0-9.,]+",
    "scores.parquet": rb".*",
}
"""Files that hold times -> the times in them. report.json has every figure of the other two."""


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, without the times in it."""
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {
        name: re.sub(TIMES[p.name], b"", p.read_bytes(), flags=re.DOTALL) if p.name in TIMES else p.read_bytes()
        for name, p in files.items()
    }


def in_child(run: Callable[[], int], before: Callable[[], None] = lambda: None) -> int:
    """Exit code of `run` in a forked process, silent."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            if "CRASH_POINTS_VERBOSE" not in os.environ:
                os.dup2(null, 2)
            before()
            code = run()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crash_everywhere(run: Callable[[bool], int], out: Path, every: int = 1) -> dict[str, object]:
    """Crash `run(resume)` at every (or every so many) event in the parent of `out`; go on, compare."""
    parent = out.parent
    numbers, whole = os.pipe()
    code = in_child(lambda: run(False), lambda: crash_at(0, str(parent), lambda: _write(whole)))
    os.close(whole)
    with os.fdopen(numbers, "rb") as file:
        points = len(file.read())
    whole_files = files_of(parent)
    failures = [] if code == 0 else [f"a run without a crash ends with {code}"]
    for number in range(1, points + 1, every):
        shutil.rmtree(parent)
        parent.mkdir()
        if (code := in_child(partial(run, False), partial(crash_at, number, str(parent)))) != CRASH:
            failures.append(f"point {number}: exit code {code}")
            continue
        left = sorted(files_of(parent))
        if code := in_child(partial(run, True)):
            failures.append(f"point {number}: {left}: resumed with exit code {code}")
        elif (files := files_of(parent)) != whole_files:
            names = sorted(n for n in {*files, *whole_files} if files.get(n) != whole_files.get(n))
            failures.append(f"point {number}: {left}: other bytes in {names}")
    return {"points": points, "files": len(whole_files), "failures": failures}


def _write(handle: int) -> None:
    os.write(handle, b".")


def main(words: Sequence[str]) -> None:
    """Crash a command line as the module's docstring says."""
    from ecg_vlm import cli

    every, out, command = int(words[0]), Path(words[1]).resolve(), list(words[2:])
    out.parent.mkdir(parents=True)
    for module in _MODULES:  # once, not in every child
        import_module(module)
    result = crash_everywhere(lambda resume: cli.main(command + ["--resume"] * resume), out, every=every)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
