"""The main commands on a machine that fails them: one line and exit code 1 or 2, and nothing half-written.

    python -m tests.faults                                  # every fault, every command
    python -m tests.faults --faults disk-full --commands render ask

Each command runs in a forked process of its own. `serve` is asked about a page until it answers or ends, then stopped.
What a command leaves has to be nothing, or something that the same command
goes on from (--resume, where it has that) once the fault is over; what lay on a full disk is gone with it. A fault that
needs rights which are not there (a file system of its own, for instance) is left out, and named.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from render.io import _PARTIAL
from tests.crash_points import HANG_S, exit_code, fork, in_child, question_about_page

_V01 = Path(__file__).with_name("v0_1")
_MODULES = ("ecg_vlm.cli.ask", "ecg_vlm.images", "ecg_vlm.reader", "ecg_vlm.evaluation", "eval.baselines.train", "pywt",
            "recipes.train", "recipes.export", "trl", "peft", "recipes.digitizer.digitize", "render.simulator.simulate",
            "render.dataset.llava", "render.dataset.parquet", "ecg_vlm.serve.server")  # fmt: skip
_SECONDS = 180  # of CPU time for one command

# Commands: OUT is what they write, IN a folder of their own copies of what they read.

COMMANDS: dict[str, str] = {
    "render": "render simulated OUT --limit 3 --shard-size 2 --width 400",
    "llava": "render simulated OUT --limit 2 --width 400 --format llava",
    "digitize": "digitize IN/page.png OUT",
    "finetune": "finetune quickstart data.train=IN/pages train.max_steps=1 lora.rank=2 --out OUT",
    "ask": "ask IN/page.png Rhythm? --max-new-tokens 2",
    "evaluate": "evaluate IN/pred/scores.parquet --data IN/pages --force --out OUT",
    "rejudge": "evaluate --from IN/report --out OUT",
    "compare": "compare IN/report IN/report2 --out OUT.html",
    "train": "baseline train wavelet_nn --data simulated --limit 4 --epochs 1 --out OUT",
    "predict": "baseline predict IN/baseline --data simulated --limit 2 --out OUT",
    "parse": "parse IN/report/answers.jsonl --out OUT.csv",
    "export": "export IN/new-run OUT",
    "serve": "serve --workers 1",
}
RESUMED = ("render", "llava", "digitize", "finetune", "evaluate", "train")


# Faults: each is set in the process of the command, before it starts.

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000
_CAPABILITIES_V3 = 0x20080522


class NoRightsError(Exception):
    """The fault cannot be made here."""


def _checked(result: int) -> None:
    if result != 0:
        raise NoRightsError(os.strerror(ctypes.get_errno()))


def _small_disk(place: Path, size: str) -> None:
    """A file system of that size at `place`, for this process alone."""
    _checked(_libc.unshare(_CLONE_NEWNS))
    _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _checked(_libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, f"size={size}".encode()))


def disk_full(folder: Path) -> None:
    """Where OUT is to lie there are four pages of 4 KiB."""
    _small_disk(folder / "out", "16k")


def disk_nearly_full(folder: Path) -> None:
    """64 KiB: the first files fit."""
    _small_disk(folder / "out", "64k")


def no_shared_memory(folder: Path) -> None:
    """/dev/shm has one page."""
    _small_disk(Path("/dev/shm"), "4k")


def short_files(folder: Path) -> None:
    """No file may grow beyond 4 KiB, wherever it lies."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def read_only(folder: Path) -> None:
    """OUT cannot be made."""
    (folder / "out").chmod(stat.S_IRUSR | stat.S_IXUSR)
    _drop_rights()


def no_rights(folder: Path) -> None:
    """What is to be read may not be read."""
    for path in (folder / "in").rglob("*"):
        if path.is_file():
            path.chmod(0)
    _drop_rights()


def _drop_rights() -> None:
    """Let permissions count, for root too."""
    header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, nothing))


def no_memory(folder: Path, megabytes: int = 0) -> None:
    """No more than what the process has taken from the system already; some of that is free."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def no_descriptors(folder: Path) -> None:
    """One file more than are open now."""
    count = len(os.listdir("/proc/self/fd"))  # with that of the folder itself
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def input_removed(folder: Path) -> None:
    """What is to be read is gone at the moment at which its first file is opened, behind every check."""
    place, is_there = str(folder / "in"), True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal is_there
        if event == "open" and is_there and str(arguments[0]).startswith(place) and Path(str(arguments[0])).is_file():
            is_there = False
            shutil.rmtree(place)

    sys.addaudithook(hook)


def clock_jumps(folder: Path) -> None:
    """Every second look at the clock is a year earlier."""
    now, looks = time.time, [0]

    def jump() -> float:
        looks[0] += 1
        return now() - 3.2e7 * (looks[0] % 2)

    time.time = jump


def no_network(folder: Path) -> None:
    """Nothing can be reached."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo") and "127.0.0.1" not in str(arguments):
            raise OSError(101, "Network is unreachable")

    sys.addaudithook(hook)


def plain_ascii(folder: Path) -> None:
    """Standard output takes ASCII alone, as with LANG=C."""
    sys.stdout.reconfigure(encoding="ascii")  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding="ascii")  # type: ignore[union-attr]


FAULTS: dict[str, Callable[[Path], None]] = {
    "none": lambda folder: None, "disk-full": disk_full, "disk-nearly-full": disk_nearly_full,
    "no-shared-memory": no_shared_memory,
    "short-files": short_files, "read-only": read_only, "no-rights": no_rights, "no-memory": no_memory,
    "memory-10": lambda folder: no_memory(folder, 10), "memory-100": lambda folder: no_memory(folder, 100),
    "no-descriptors": no_descriptors, "input-removed": input_removed, "clock-jumps": clock_jumps,
    "no-network": no_network, "plain-ascii": plain_ascii,
}  # fmt: skip
ODD_NAMES = {
    "spaces": " a b ",
    "line-break": "a\nb",
    "other-letters": "é心🫀",
    "quotes": "'\"$(x);*",
    "long": "n" * 250,
}
HARMLESS = frozenset({"none", "no-shared-memory", "clock-jumps", "no-network", "plain-ascii", *ODD_NAMES})
"""With these every command has to do its work."""


@dataclass
class Outcome:
    """Exit code and lines of a command under a fault, and what is wrong with that."""

    code: int
    lines: list[str]
    wrong: str = ""


def try_command(name: str, fault: Callable[[Path], None], inputs: Path, odd: str = "") -> Outcome:
    """Run a command under a fault, then again without. odd: the name of the folders that it reads and writes."""
    root = Path(tempfile.mkdtemp())
    try:
        folder = root / odd if odd else root
        (folder / "out").mkdir(parents=True)
        shutil.copytree(inputs, folder / "in")
        errors = root / "errors.txt"
        errors.touch()
        run = _ask_server if name == "serve" else _command
        code, answers = run(_words(name, folder), lambda: _prepare(fault, folder), str(errors))
        text = errors.read_text(encoding="utf-8", errors="replace")
        outcome = Outcome(code, [line for line in text.splitlines() if "ecg-vlm: " in line] + answers)
        (folder / "out").chmod(0o700)
        outcome.wrong = _wrong(outcome, text) or _left_wrong(name, folder, inputs, code)
        return outcome
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _command(words: list[str], before: Callable[[], object], errors: str) -> tuple[int, list[str]]:
    return in_child(lambda: _run(words), before, errors), []


def _ask_server(words: list[str], before: Callable[[], object], errors: str) -> tuple[int, list[str]]:
    """Exit code of a server that is stopped when it has answered twice, and what it said that was no answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    request = question_about_page(port)
    child = fork(lambda: _run([*words, "--port", str(port)]), before, errors)
    answers: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        while len(answers) < 2 and not is_over.wait(0.2):
            try:
                with urlopen(request, timeout=HANG_S) as response:
                    answers.append("" if json.load(response)["results"] else "no result")
            except HTTPError as error:
                answers.append(f"ecg-vlm: {json.load(error)['error']['message']}")
            except (OSError, HTTPException):  # it has not begun, or has ended
                pass
        if not is_over.is_set():
            os.kill(child, signal.SIGINT)

    client = threading.Thread(target=ask)
    client.start()
    code = exit_code(child)
    is_over.set()
    client.join()
    refusals = [answer for answer in answers if answer]
    return (_REFUSES if code == 0 and refusals else code), refusals


def _words(name: str, folder: Path) -> list[str]:
    places = {"OUT": str(folder / "out" / "x"), "IN": str(folder / "in")}
    words = COMMANDS[name].split()
    return [word.replace("OUT", places["OUT"]).replace("IN/", f"{places['IN']}/") for word in words]


def _run(words: list[str]) -> int:
    """As the program does it: a fault of the program is one line as well, which counts as wrong here."""
    from ecg_vlm.cli import main

    sys.argv = ["ecg-vlm", *words]
    return main()


_NO_RIGHTS, _REFUSES = 99, 98


def _prepare(fault: Callable[[Path], None], folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    try:
        fault(folder)
    except NoRightsError:
        os._exit(_NO_RIGHTS)


def _wrong(outcome: Outcome, text: str) -> str:
    if outcome.code == -signal.SIGALRM:
        return f"hangs: {text[:900]!r}"
    if outcome.code not in (0, 1, 2, _REFUSES):
        return f"exit code {outcome.code}: {text[-300:]!r}"
    if "Traceback" in text or "unexpected" in text:
        return f"unforeseen: {text[-300:]!r}"
    failures = [line for line in outcome.lines if not line.endswith(" ...")]
    if outcome.code in (1, 2) and len(failures) != 1:
        return f"{len(failures)} lines: {text[-300:]!r}"
    return ""


def _left_wrong(name: str, folder: Path, inputs: Path, code: int) -> str:
    """What is wrong with the files that a command has left, "" where nothing is."""
    out = folder / "out"
    left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    if code and left:
        shutil.rmtree(folder / "in", ignore_errors=True)
        shutil.copytree(inputs, folder / "in")
        words = _words(name, folder) + ["--resume"] * (name in RESUMED)
        if again := in_child(lambda: _run(words)):
            return f"left {left}, from which it does not go on ({again})"
    partial = [path.name for path in out.rglob("*") if _PARTIAL.fullmatch(path.name)]
    return f"left {partial}" if partial else ""


def write_inputs(folder: Path) -> None:
    """The files of version 0.1, a copy of its report, and a page."""
    from render.pages.page import draw
    from render.sources.registry import open_source

    shutil.copytree(_V01, folder, dirs_exist_ok=True)
    shutil.copytree(_V01 / "report", folder / "report2")
    draw(open_source("simulated:AFIB").read(0)).to_pil().save(folder / "page.png")


def main(words: Sequence[str] | None = None) -> int:
    """Print the counts, and how each command ended that did not do its work; 1 where that is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="NAME")
    parser.add_argument(
        "--faults", nargs="+", choices=[*FAULTS, *ODD_NAMES], default=[*FAULTS, *ODD_NAMES], metavar="NAME"
    )
    arguments = parser.parse_args(words)
    for module in _MODULES:  # once, and before there is no memory or descriptor left
        import_module(module)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        make_run = f"finetune quickstart data.train={folder}/pages train.max_steps=1 lora.rank=2 --out {folder}/new-run"
        assert in_child(lambda: _run(make_run.split())) == 0
        for fault in arguments.faults:
            outcomes = {
                name: try_command(name, FAULTS.get(fault, lambda folder: None), Path(folder), ODD_NAMES.get(fault, ""))
                for name in arguments.commands
            }
            codes = [outcome.code for outcome in outcomes.values()]
            counts = {
                0: "done",
                1: "exit 1",
                2: "exit 2",
                _REFUSES: "answered with an error",
                _NO_RIGHTS: "cannot be tried here",
            }
            print(f"{fault}: " + ", ".join(f"{codes.count(c)} {word}" for c, word in counts.items() if c in codes))
            for name, outcome in outcomes.items():
                wrong = outcome.wrong or ("does not do its work" if fault in HARMLESS and outcome.code else "")
                if wrong and outcome.code != _NO_RIGHTS:
                    failures += 1
                    print(f"  {name}: {wrong}")
                if outcome.code and outcome.code != _NO_RIGHTS:
                    print(f"    {name}: {' | '.join(outcome.lines)[:300]}")
            sys.stdout.flush()
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
