"""Kill a command at every point where it opens, makes, renames or removes something in its folder, and go on.

    python tests/crash_points.py 1 OUT render simulated OUT --limit 3
    python tests/crash_points.py 1 OUT evaluate nano --data PAGES --out OUT
    python tests/crash_points.py random:100 OUT finetune quickstart data.train=PAGES --out OUT
    python tests/crash_points.py random:20 OUT serve --port 8599

1: at every point, 4: at every fourth, random:100: a hundred times after a random share of its CPU time. Each crash is
in a child process, which ends at once, by `os._exit` or by a signal that it does not handle: nothing is cleaned up.
Then the same command runs with --resume. It has to succeed and to leave the files, byte by byte, that a run without a
crash leaves, times in it apart. Prints one JSON object: the number of points, and those that failed.

A server is killed while it starts, waits, or answers about a page. It has to leave no file, no process and a free port.
"""

from __future__ import annotations

import base64
import faulthandler
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from importlib import import_module
from io import BytesIO
from pathlib import Path
from urllib.request import Request, urlopen

import psutil  # type: ignore[import-untyped]

_MODULES = {
    "render": ("ecg_vlm.images", "render.dataset.llava", "render.dataset.parquet", "render.simulator.simulate"),
    "evaluate": ("ecg_vlm.evaluation", "ecg_vlm.reader", "render.dataset.parquet"),
    "finetune": ("recipes.train", "trl", "peft", "render.dataset.parquet"),
    "baseline": ("eval.baselines.train", "pywt", "torch._dynamo", "render.simulator.simulate"),
    "serve": ("ecg_vlm.serve.server", "ecg_vlm.reader", "render.pages.page", "render.simulator.simulate"),
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
        if event not in EVENTS or not any(
            isinstance(a, str) and os.path.abspath(a).startswith(parent) for a in map(_text, arguments)
        ):
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
    return exit_code(fork(run, before, errors))


def fork(run: Callable[[], int], before: Callable[[], object], errors: str = os.devnull) -> int:
    """The id of a forked process that does `run`, as in `in_child`."""
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
    return child


def exit_code(child: int) -> int:
    """Wait for a forked process. Negative: the signal that ended it."""
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


def kill_server(run: Callable[[bool], int], out: Path, count: int, port: int) -> dict[str, object]:
    """Kill a server so many times, while it starts or works on pages; its failures to leave nothing behind."""
    failures, answers, choice, seconds = [], 0, random.Random(0), 0.0
    for number in range(count + 1):  # the first one is killed when it has answered, which tells how long that takes
        moment = choice.uniform(0, 1.5 * seconds)
        child = fork(partial(run, False), partial(_live_in, out.parent))
        has_answered, is_over = threading.Event(), threading.Event()
        client = threading.Thread(target=_ask_about_pages, args=(port, has_answered, is_over))
        begin = time.monotonic()
        client.start()
        if number:
            time.sleep(moment)
        elif has_answered.wait(HANG_S):
            seconds = time.monotonic() - begin
        else:
            failures.append("does not answer")
        os.kill(child, signal.SIGKILL)
        is_over.set()
        if (code := exit_code(child)) != -signal.SIGKILL:
            failures.append(f"after {moment:.2f} s: exit code {code}")
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            failures.append(f"after {moment:.2f} s: the port is not free ({error})")
        client.join()
        answers += has_answered.is_set()
        if processes := _processes_in(out.parent):
            failures.append(f"after {moment:.2f} s: {len(processes)} processes live on")
        if left := files_of(out.parent):
            failures.append(f"after {moment:.2f} s: left {sorted(left)}")
        _empty(out.parent)
        print(f"{number} of {count} kills, {time.monotonic() - begin:.0f} s, failures: {failures}", file=sys.stderr)
    return {"kills": count, "after an answer": answers - 1, "seconds": round(seconds, 2), "failures": failures}


def _live_in(folder: Path) -> None:
    """Let this folder tell a process and its children from others, and take what they leave."""
    os.chdir(folder)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


def _ask_about_pages(port: int, has_answered: threading.Event, is_over: threading.Event) -> None:
    """Ask a server about a page again and again."""
    request = question_about_page(port)
    while not is_over.wait(0.05):
        with suppress(OSError, HTTPException), urlopen(request, timeout=HANG_S):
            has_answered.set()


def question_about_page(port: int) -> Request:
    """A request to a server on this machine."""
    from render.pages.page import draw
    from render.sources.registry import open_source

    stream = BytesIO()
    draw(open_source("simulated:AFIB").read(0)).to_pil().save(stream, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    body = {"images": [{"name": "page.png", "data": uri}], "questions": ["Rhythm?"], "view": False}
    return Request(f"http://127.0.0.1:{port}/v1/ask", json.dumps(body).encode(), {"Content-Type": "application/json"})


def _processes_in(folder: Path, patience: float = 10.0) -> list[int]:
    """The processes whose working folder this is, after the patience that they have to notice their parent's end."""
    end = time.monotonic() + patience
    while True:
        processes = [
            each.info["pid"] for each in psutil.process_iter(["pid", "cwd"]) if each.info["cwd"] == str(folder)
        ]
        if not processes or time.monotonic() > end:
            return processes
        time.sleep(0.1)


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

    if command[0] == "serve":
        result = kill_server(run, out, int(kind.removeprefix("random:")), int(command[command.index("--port") + 1]))
    elif kind.startswith("random:"):
        result = kill_at_random(run, out, int(kind.removeprefix("random:")))
    else:
        result = crash_everywhere(run, out, every=int(kind))
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
