"""Processes that read pages: 2 to 4 s of CPU each, by libraries that a damaged file may break or keep busy.

Each has one task at a time. One that takes too long or breaks is replaced; no other request notices.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]

from ecg_vlm.serve.errors import DeadlineError
from ecg_vlm.serve.work_queue import Turn
from render.errors import InputError, WorkFailed, is_memory_full
from render.workers import follow_parent

_Value = TypeVar("_Value")
Outcome = tuple[str, Any]

NOT_ENOUGH_MEMORY = "not enough memory; ask about fewer or smaller pages, or close other programs"
_NO_START = "a reading process does not start; close other programs, or take fewer --workers"
_ERRORS: dict[str, type[Exception]] = {"input": InputError, "failed": WorkFailed, "fault": RuntimeError}

_WALL_RATIO = 10
_START_S = 300.0  # of CPU for a process to be ready: 15 mostly, 100 where nothing is compiled yet


class ReadingProcesses:
    """Some processes, each behind a thread that waits for it.

    Args:
        count: of the processes; 0 reads in a thread of this one.
        seconds: of CPU that one task may take, and ten times as many by the clock: on a busy machine a page waits.
        prepare: called in each process before its first task.
    """

    def __init__(self, count: int, seconds: float, prepare: Callable[[], object] | None = None) -> None:
        self._seconds = seconds
        self._prepare = prepare or warm_up
        self._processes: list[ReadingProcess] = []
        self._own = threading.local()
        self._has_processes = count > 0
        self._threads = ThreadPoolExecutor(max(count, 1), "reading")
        for _ in range(count):  # one for each thread, now: starting takes seconds
            self._threads.submit(self._own_process)

    async def run(self, turn: Turn, function: Callable[..., _Value], *arguments: Any) -> _Value:
        """The result of a function of a module, with arguments that can be pickled.

        Raises:
            InputError: That the function raises, or that its process broke.
            DeadlineError: Where it took too long.
            WorkFailed: Where this machine lacks what the process needs; the next task tries anew.
        """
        return await turn.run(self._threads, self._call, function, arguments)

    def _own_process(self) -> ReadingProcess | None:
        """The process of this thread, started where it has none yet."""
        if self._has_processes and not hasattr(self._own, "process"):
            self._own.process = ReadingProcess(self._prepare)
            self._processes.append(self._own.process)
        return getattr(self._own, "process", None)

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        process = self._own_process()
        return function(*arguments) if process is None else process.call(function, arguments, self._seconds)

    def close(self) -> None:
        """End all processes, when their tasks have ended."""
        self._threads.shutdown()
        for process in self._processes:
            process.end()


class ReadingProcess:
    """One process and the pipe to it."""

    def __init__(self, prepare: Callable[[], object]) -> None:
        self._prepare = prepare
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._process: BaseProcess | None = None
        self._is_ready = False
        try:
            self._pipe, there = context.Pipe()
            with there:
                process = context.Process(target=_serve, args=(there, self._prepare), daemon=True)
                process.start()
        except OSError as error:
            raise WorkFailed(f"{error.strerror}: {_NO_START}") from error
        self._process = process

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> Any:
        """The result of a function there. Raises as `ReadingProcesses.run`."""
        if self._process is None or not self._process.is_alive():  # ended by the system since the last task
            self._restart()
        kind, value = self._outcome(function, arguments, seconds)
        if kind == "value":
            return value
        if kind in _ERRORS:
            raise _ERRORS[kind](value)
        self._restart()
        if kind == "slow":
            raise DeadlineError(f"reading the page takes more than {seconds:.0f} s; send a smaller picture")
        raise InputError("the file breaks the library that reads it; save it as PNG")

    def _outcome(self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> Outcome:
        """What the process sends back: "value" or one of `_ERRORS` with what it is; or "slow" or "broken" without."""
        try:
            if failure := self._failure_to_start():
                return failure
            start = self._cpu_seconds()
            self._pipe.send((function, arguments))
            for _ in range(_WALL_RATIO * math.ceil(seconds)):
                if self._pipe.poll(1.0):
                    outcome: Outcome = self._pipe.recv()
                    return outcome
                if self._cpu_seconds() - start > seconds:
                    break
        except (EOFError, OSError, psutil.Error):
            return "broken", None
        return "slow", None

    def _cpu_seconds(self) -> float:
        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def _failure_to_start(self) -> Outcome | None:
        """Wait for a process that has just been started, however slow the machine; the request has its own limit."""
        failure: Outcome = "failed", _NO_START
        with contextlib.suppress(EOFError, OSError, psutil.Error):
            while not self._is_ready:
                if self._pipe.poll(1.0):
                    failure = self._pipe.recv()
                    if failure[0] != "value":
                        break
                    self._is_ready = True
                elif self._cpu_seconds() > _START_S:
                    break
        if self._is_ready:
            return None
        self.end()
        return failure

    def _restart(self) -> None:
        self.end()
        self._begin()

    def end(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None


def _serve(pipe: Connection, prepare: Callable[[], object]) -> None:
    """Do one task after the other until the other side closes the pipe."""
    follow_parent()
    try:
        prepare()
    except Exception as error:
        pipe.send(_failure(error))
        return
    pipe.send(("value", None))
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            sys.exit()
        try:
            outcome = ("value", function(*arguments))
        except InputError as error:
            outcome = ("input", str(error))
        except Exception as error:
            outcome = _failure(error)
        pipe.send(outcome)
        del function, arguments, outcome  # a large picture is not kept until the next task


def _failure(error: Exception) -> Outcome:
    """A line about a machine that lacks memory; of what no one foresaw all, for the server's log."""
    if is_memory_full(error):
        return "failed", NOT_ENOUGH_MEMORY
    return "fault", "".join(traceback.format_exception(error))


def warm_up() -> None:
    """Load what reading needs, and compile it, before the first request: on a drawn page."""
    from recipes.digitizer.digitize import digitize
    from render.pages.page import draw
    from render.sources.registry import open_source

    digitize(draw(open_source("simulated:NORM").read(0)).to_pil())
