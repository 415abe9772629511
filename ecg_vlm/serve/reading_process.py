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
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]

from ecg_vlm.serve.errors import DeadlineError
from ecg_vlm.serve.work_queue import Turn
from render.errors import InputError, WorkFailed
from render.workers import follow_parent

_Value = TypeVar("_Value")

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
        self._threads = ThreadPoolExecutor(max(count, 1), "reading", self._start if count else None)
        for _ in range(count):  # one for each thread, now: starting takes seconds
            self._threads.submit(self._own_process)

    async def run(self, turn: Turn, function: Callable[..., _Value], *arguments: Any) -> _Value:
        """The result of a function of a module, with arguments that can be pickled.

        Raises:
            InputError: That the function raises, or that its process broke.
            DeadlineError: Where it took too long.
        """
        return await turn.run(self._threads, self._call, function, arguments)

    def _start(self) -> None:
        process = ReadingProcess(self._prepare)
        self._processes.append(process)
        self._own.process = process

    def _own_process(self) -> ReadingProcess | None:
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
        self._pipe, there = context.Pipe()
        self._is_ready = False
        self._process = context.Process(target=_serve, args=(there, self._prepare), daemon=True)
        self._process.start()
        there.close()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> Any:
        """The result of a function there. Raises as `ReadingProcesses.run`."""
        if not self._process.is_alive():  # ended by the system since the last task
            self._restart()
        kind, value = self._outcome(function, arguments, seconds)
        if kind == "value":
            return value
        if kind == "input":
            raise InputError(value)
        if kind == "fault":
            raise RuntimeError(value)
        self._restart()
        if kind == "slow":
            raise DeadlineError(f"reading the page takes more than {seconds:.0f} s; send a smaller picture")
        raise InputError("the file breaks the library that reads it; save it as PNG")

    def _outcome(self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> tuple[str, Any]:
        """What the process sends back: "value", "input" or "fault" with what it is; or "slow" or "broken" without."""
        try:
            self._require_ready()
            start = self._cpu_seconds()
            self._pipe.send((function, arguments))
            for _ in range(_WALL_RATIO * math.ceil(seconds)):
                if self._pipe.poll(1.0):
                    outcome: tuple[str, Any] = self._pipe.recv()
                    return outcome
                if self._cpu_seconds() - start > seconds:
                    break
        except (EOFError, OSError, psutil.Error):
            return "broken", None
        return "slow", None

    def _cpu_seconds(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def _require_ready(self) -> None:
        """Wait for a process that has just been started, however slow the machine; the request has its own limit.
        Raises `WorkFailed` where it does not come up."""
        with contextlib.suppress(EOFError, OSError, psutil.Error):
            while not self._is_ready and self._cpu_seconds() < _START_S:
                self._is_ready = self._pipe.poll(1.0) and bool(self._pipe.recv())
        if not self._is_ready:
            raise WorkFailed("a reading process does not start")

    def _restart(self) -> None:
        self.end()
        self._begin()

    def end(self) -> None:
        """End the process, whatever it does."""
        self._pipe.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(pipe: Connection, prepare: Callable[[], object]) -> None:
    """Do one task after the other until the other side closes the pipe."""
    follow_parent()
    prepare()
    pipe.send(True)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            sys.exit()
        try:
            outcome = ("value", function(*arguments))
        except InputError as error:
            outcome = ("input", str(error))
        except Exception:
            outcome = ("fault", traceback.format_exc())  # for the server's log
        pipe.send(outcome)
        del function, arguments, outcome  # a large picture is not kept until the next task


def warm_up() -> None:
    """Load what reading needs, and compile it, before the first request: on a drawn page."""
    from recipes.digitizer.digitize import digitize
    from render.pages.page import draw
    from render.sources.registry import open_source

    digitize(draw(open_source("simulated:NORM").read(0)).to_pil())
