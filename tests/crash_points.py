"""Kill a command at every point where it opens, makes, renames or removes something in its folder, and go on.

    python tests/crash_points.py 1 OUT render simulated OUT --limit 3
    python tests/crash_points.py 1 OUT evaluate nano --data PAGES --out OUT
    python tests/crash_points.py random:100 OUT finetune quickstart data.train=PAGES --out OUT

1: at every point, 4: at every fourth, random:100: a hundred times after a random share of its CPU time. Each crash is
in a child process, which ends at once, by `os._exit` or by a signal that it does not handle: nothing is cleaned up.
Then the same command runs with --resume. It has to succeed and to leave the files, byte by byte, that a run without a
crash leaves, times in it apart. Prints one JSON object: the number of points, and those that failed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

_MODULES = {
    "render": ("ecg_vlm.images", "render.dataset.llava", "render.dataset.parquet", "render.simulator.simulate"),
    "evaluate": ("ecg_vlm.evaluation", "ecg_vlm.reader", "render.dataset.parquet"),
    "finetune": ("recipes.train", "trl", "peft", "render.dataset.parquet"),
    "baseline": ("eval.baselines.train", "pywt", "torch._dynamo", "render.simulator.simulate"),
}
"""Command -> what it imports: once, not in every child."""

EVENTS = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod"})
CRASH = 77
HANG_S = 300  # by the clock; the longest command takes half of it on a busy machine


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
    "run.json": rb'"seconds": [0-9.]+',
    "README.md": rb"steps in [0-9,]+ s",
}
"""Files that hold times -> the times in them. report.json has every figure of the report's other two."""


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, without the times in it."""
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {
        name: re.sub(TIMES[p.name], b"", p.read_bytes(), flags=re.DOTALL) if p.name in TIMES else p.read_bytes()
        for name, p in files.items()
    }


def in_child(run: Callable[[], int], before: Callable[[], object] = lambda: None, errors: str = os.devnull) -> int:
    """Exit code of `run` in a forked process, silent. One that hangs is ended by SIGALRM, and says where it was.

    errors: the file of what goes to standard error.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if "CRASH_POINTS_VERBOSE" not in os.environ:
                os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)  # pytest has put its own ones there
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(HANG_S)
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
        _empty(parent)
        if (code := in_child(partial(run, False), partial(crash_at, number, str(parent)))) != CRASH:
            failures.append(f"point {number}: exit code {code}")
        else:
            failures += [f"point {number}: {failure}" for failure in _differences(run, parent, whole_files)]
    return {"points": points, "files": len(whole_files), "failures": failures}


def kill_at_random(run: Callable[[bool], int], out: Path, count: int) -> dict[str, object]:
    """Kill `run(resume)` so many times after a random share of the CPU time of a whole run; go on, compare."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = in_child(lambda: run(False))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    whole_files = files_of(out.parent)
    failures = [] if code == 0 else [f"a run without a crash ends with {code}"]
    kills, choice = 0, random.Random(0)
    for _ in range(count):
        _empty(out.parent)
        moment = choice.uniform(0, seconds)
        code = in_child(partial(run, False), partial(signal.setitimer, signal.ITIMER_PROF, moment))
        if code not in (0, -signal.SIGPROF):  # no one handles this signal: it ends the process like SIGKILL
            failures.append(f"after {moment:.2f} s: exit code {code}")
            continue
        kills += code != 0
        failures += [f"after {moment:.2f} s: {failure}" for failure in _differences(run, out.parent, whole_files)]
    return {"kills": kills, "seconds": round(seconds, 2), "files": len(whole_files), "failures": failures}


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _differences(run: Callable[[bool], int], parent: Path, whole_files: dict[str, bytes]) -> list[str]:
    """Go on after a crash: what is not as it would have been without it."""
    left = sorted(files_of(parent))
    if code := in_child(partial(run, True)):
        return [f"{left}: resumed with exit code {code}"]
    files = files_of(parent)
    names = sorted(n for n in {*files, *whole_files} if files.get(n) != whole_files.get(n))
    return [f"{left}: other bytes in {names}"] if names else []


def _write(handle: int) -> None:
    os.write(handle, b".")


def main(words: Sequence[str]) -> None:
    """Crash a command line as the module's docstring says."""
    from ecg_vlm import cli

    kind, out, command = words[0], Path(words[1]).resolve(), list(words[2:])
    out.parent.mkdir(parents=True)
    for module in _MODULES[command[0]]:
        import_module(module)

    def run(resume: bool) -> int:
        return cli.main(command + ["--resume"] * resume)

    if kind.startswith("random:"):
        result = kill_at_random(run, out, int(kind.removeprefix("random:")))
    else:
        result = crash_everywhere(run, out, every=int(kind))
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
