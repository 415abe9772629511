"""Tasks in worker processes: of this machine, which report each step, stop within one step and never outlive their
parent, or of a cluster (`render.cluster`)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from render.errors import WorkFailed

Step = Callable[[], None]
"""Called by the work after each step (a page); it raises where the work is to stop."""

_REPORT_EVERY_S = 0.5


class _Stopped(Exception):  # noqa: N818  # the parent has asked for it
    """Raised by a step in a worker once the parent wants to stop."""


class Pool(Protocol):
    """Processes that run tasks, here or on a cluster."""

    @property
    def capacity(self) -> int:
        """How many tasks may be in the pool at once; the others wait in `run_tasks`."""
        ...

    @property
    def steps(self) -> int:
        """Steps of all tasks so far, as far as they are known here."""
        ...

    def submit(self, task: tuple[Any, ...]) -> Future[Any]:
        """Start a task as soon as a process is free."""
        ...

    def finish(self, future: Future[Any]) -> Any:
        """The result of a task that has ended. Raises what it raised, and `WorkFailed` when its process was lost."""
        ...

    def close(self) -> None:
        """Stop all tasks that have not ended."""
        ...


class Workers(Protocol):
    """Where tasks run, in place of a number of processes of this machine: a cluster (`render.cluster`)."""

    def pool(self, function: Callable[..., Any]) -> Pool:
        """A pool that calls `function(*task, step)` for each task."""
        ...


def _drop(result: Any) -> None:
    """Takes a result that no one needs."""


def run_tasks(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    workers: int | Workers,
    report: Callable[[int], None],
    take: Callable[[Any], None] = _drop,
) -> None:
    """Call `function(*task, step)` for every task, in this process, in `workers` spawned ones, or on a cluster.

    An exception of a task or of `report`, Ctrl-C included, stops every worker (here within one step) and is raised
    again. Where this process is killed, its workers end at once.

    Args:
        report: called with the number of steps of all tasks so far, in this process.
        take: called with the result of each task as it ends, in this process.

    Raises:
        WorkFailed: When a worker is killed (on a cluster: more often than a task is tried again).
    """
    if workers == 1:
        count = 0

        def step() -> None:
            nonlocal count
            count += 1
            report(count)

        for task in tasks:
            take(function(*task, step))
        return
    pool = _ProcessPool(function, workers) if isinstance(workers, int) else workers.pool(function)
    waiting = iter(tasks)
    pending: set[Future[Any]] = set()
    try:
        while True:
            pending |= {pool.submit(task) for task in islice(waiting, max(0, pool.capacity - len(pending)))}
            if not pending:
                break
            finished, pending = wait(pending, _REPORT_EVERY_S, FIRST_COMPLETED)
            for future in finished:
                take(pool.finish(future))
            report(pool.steps)
    finally:
        pool.close()


class _ProcessPool:
    """Spawned processes of this machine."""

    def __init__(self, function: Callable[..., Any], workers: int) -> None:
        # spawn, not fork: a forked child inherits locks of threads (OpenMP, Arrow) that do not exist in it.
        context = multiprocessing.get_context("spawn")
        self.capacity = 2 * workers
        self._function, self._counter, self._stop = function, context.Value("Q"), context.Event()
        self._pool = ProcessPoolExecutor(workers, context, _start_worker, (self._counter, self._stop))

    @property
    def steps(self) -> int:
        return int(self._counter.value)

    def submit(self, task: tuple[Any, ...]) -> Future[Any]:
        with _killed_worker():
            return self._pool.submit(_run_in_worker, self._function, task)

    def finish(self, future: Future[Any]) -> Any:
        with _killed_worker():
            return future.result()

    def close(self) -> None:
        self._stop.set()
        # One call that both cancels and waits: a second one would no longer know what to wait for.
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _killed_worker() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkFailed("a worker process was killed, perhaps for lack of memory; continue with --resume") from error


_counter: Any = None
_stop: Any = None


def _start_worker(counter: Any, stop: Any) -> None:
    global _counter, _stop
    _counter, _stop = counter, stop
    follow_parent()


def follow_parent() -> None:
    """In a process of `multiprocessing`: leave Ctrl-C to its parent, and end with it, at once and whatever is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _run_in_worker(function: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    def step() -> None:
        with _counter.get_lock():
            _counter.value += 1
        if _stop.is_set():
            raise _Stopped

    return function(*task, step)
