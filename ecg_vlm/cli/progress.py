"""What a person sees while a command works, all of it on stderr: a bar, and a line where a wait is long and silent."""

from __future__ import annotations

import _thread
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

Show = Callable[[str, int, int], None]
"""Called with (what, count, total)."""

_LINE_EVERY_S = 15.0  # in a log file
_SILENCE_S = 2.0  # a longer wait says what it is for

_quiet = False


def configure(*, quiet: bool, verbose: bool) -> None:
    """Decide what may reach the screen: without `verbose` only our own words, with `quiet` no progress either."""
    global _quiet
    _quiet = quiet
    if verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")  # `recipes.quiet` lets them through
        return
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    # Read by libraries that are not imported yet: no progress bars and no hub traffic beside what the user asked for.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_CONTROL |= {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CONTROL |= {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}


def printable(text: object) -> str:
    """Text with control characters, marks that turn its direction and halves of characters written out: names in files
    of other people must not move the cursor, recolour or rename a terminal."""
    return str(text).translate(_CONTROL)


class PrintableOutput:
    """Standard output on a terminal, with all text as `printable` writes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as `printable` does."""
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def print_note(text: str) -> None:
    """One line on stderr about what the command does, not with --quiet."""
    if not _quiet:
        print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say `what` is being done once the block has taken two seconds: "loading the model ..."."""
    with status_lines() as status:
        status(what)
        yield


@contextmanager
def status_lines() -> Iterator[Callable[[str], None]]:
    """Like `waiting`, for work that reports what it does: a text is shown once its part of the work has taken two
    seconds without another text; "" shows none."""
    has_ended = threading.Event()

    def status(text: str) -> None:
        nonlocal has_ended
        has_ended.set()
        has_ended = threading.Event()
        if text:
            with suppress(RuntimeError):  # no thread, no line
                # Thread.start would wait for ever for a thread that finds no memory to begin with.
                _thread.start_new_thread(_print_later, (text, has_ended))

    try:
        yield status
    finally:
        status("")


def _print_later(text: str, has_ended: threading.Event) -> None:
    if not has_ended.wait(_SILENCE_S):
        print_note(f"{text} ...")


@contextmanager
def progress_bar(unit: str) -> Iterator[Show]:
    """A bar on a screen, now and then a line elsewhere, nothing with --quiet."""
    if _quiet:
        yield lambda what, count, total: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _progress_lines(unit)
        return
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        rows: list[Any] = []
        last = 0

        def show(what: str, count: int, total: int) -> None:
            nonlocal last
            if not rows or count < last:  # counting starts again: the next system, the next piece of work
                rows.append(bar.add_task("", total=total, rate=""))
            last = count
            what = escape(printable(what))
            speed = bar.tasks[rows[-1]].speed
            rate = f"{speed:.1f} {unit}/s" if speed else ""
            bar.update(rows[-1], description=what, completed=count, total=total, rate=rate)

        yield show


def _progress_lines(unit: str) -> Show:
    """For a log file: a line when enough time has gone by, and one at the end."""
    start = last_line = time.monotonic()
    first = last = -1

    def show(what: str, count: int, total: int) -> None:
        nonlocal start, last_line, first, last
        now = time.monotonic()
        if count < last or first < 0:
            start = last_line = now
            first = count
        elif count == last == total:
            return  # said already
        last = count
        if count < total and now - last_line < _LINE_EVERY_S:
            return
        last_line = now
        rate = (count - first) / max(now - start, 1e-9)
        left = f", {(total - count) / rate:.0f} s left" if rate > 0 and count < total else ""
        print(f"{printable(what)}: {count}/{total} {unit}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)

    return show
