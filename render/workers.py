"""Worker processes that report each step, stop within one step, and never outlive their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from render.errors import WorkFailed

Step = Callable[[], None]
"""Called by the work after each step (a page); it raises where the work is to stop."""

_REPORT_EVERY_S = 0.5


class _Stopped(Exception):  # noqa: N818  # the parent has asked for it
    """Raised by a step in a worker once the parent wants to stop."""


def run_tasks(
    function: Callable[..., None], tasks: Sequence[tuple[Any, ...]], workers: int, report: Callable[[int], None]
) -> None:
    """Call `function(*task, step)` for every task, in this process or in `workers` spawned ones.

    An exception of a task or of `report`, Ctrl-C included, stops every worker within one step and is raised again.
    Where this process is killed, its workers end at once.

    Args:
        report: called with the number of steps of all tasks so far, in this process.

    Raises:
        WorkFailed: When a worker is killed.
    """
    if workers <= 1:
        count = 0

        def step() -> None:
            nonlocal count
            count += 1
            report(count)

        for task in tasks:
            function(*task, step)
        return
    # spawn, not fork: a forked child inherits locks of threads (OpenMP, Arrow) that do not exist in it.
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("Q"), context.Event()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (counter, stop))
    try:
        pending = {pool.submit(_run_in_worker, function, task) for task in tasks}
        while pending:
            finished, pending = wait(pending, _REPORT_EVERY_S, FIRST_EXCEPTION)
            for future in finished:
                future.result()
            report(int(counter.value))
    except BrokenProcessPool as error:
        raise WorkFailed("a worker process was killed, perhaps for lack of memory; continue with --resume") from error
    finally:
        stop.set()
        # One call that both cancels and waits: a second one would no longer know what to wait for.
        pool.shutdown(wait=True, cancel_futures=True)


_counter: Any = None
_stop: Any = None


def _start_worker(counter: Any, stop: Any) -> None:
    """Set up a worker: Ctrl-C is the parent's to handle, and a thread ends this process with its parent."""
    global _counter, _stop
    _counter, _stop = counter, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _run_in_worker(function: Callable[..., None], task: tuple[Any, ...]) -> None:
    def step() -> None:
        with _counter.get_lock():
            _counter.value += 1
        if _stop.is_set():
            raise _Stopped

    function(*task, step)
