"""What a person sees while a command works, all of it on stderr: a bar, and a line where a wait is long and silent."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
        return
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    # Read by libraries that are not imported yet: no progress bars and no hub traffic beside what the user asked for.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def print_note(text: str) -> None:
    """One line on stderr about what the command does, not with --quiet."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


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
    timer: threading.Timer | None = None

    def status(text: str) -> None:
        nonlocal timer
        if timer is not None:
            timer.cancel()
        timer = threading.Timer(_SILENCE_S, lambda: print_note(f"{text} ..."))
        timer.daemon = True
        if text:
            timer.start()

    try:
        yield status
    finally:
        status("")


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
                rows.append(bar.add_task(what, total=total, rate=""))
            last = count
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
        last = count
        if count < total and now - last_line < _LINE_EVERY_S:
            return
        last_line = now
        rate = (count - first) / max(now - start, 1e-9)
        left = f", {(total - count) / rate:.0f} s left" if rate > 0 and count < total else ""
        print(f"{what}: {count}/{total} {unit}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)

    return show
