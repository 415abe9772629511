"""Who is next: requests wait in order, a few are worked on, and too many are refused at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ecg_vlm.serve.errors import ClosingError, QueueFullError

_Value = TypeVar("_Value")

_RETRY_S = 2.0  # a request's usual time, before one has been timed


class WorkQueue:
    """At most `places` requests wait, and `slots` are worked on. Everything here happens in the event loop's thread."""

    def __init__(self, slots: int, places: int) -> None:
        self._slots = slots
        self._places = places
        self._line: deque[Turn] = deque()
        self._seconds = _RETRY_S  # of work for one request, a running mean
        self.running = 0
        self.is_closed = False

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    def enter(self, on_position: Callable[[int], None] = lambda position: None) -> Turn:
        """A place in the line; `on_position` is called with the number of requests before it whenever that changes.

        Raises:
            QueueFullError: When no place is free.
            ClosingError: After `close`.
        """
        if self.is_closed:
            raise ClosingError("the server is being stopped; try again later")
        if self.running >= self._slots and len(self._line) >= self._places:
            wait = max(1, round(self._seconds * len(self._line) / self._slots))
            raise QueueFullError(f"{len(self._line)} requests are waiting; try again in {wait} s", retry_after=wait)
        turn = Turn(self, on_position)
        self._line.append(turn)
        self._advance()
        return turn

    def close(self) -> None:
        """Refuse all that wait and all that come; what is worked on goes on."""
        self.is_closed = True
        while self._line:
            self._line.popleft().begin.set_exception(ClosingError("the server is being stopped; try again later"))

    def _advance(self) -> None:
        while self._line and self.running < self._slots:
            turn = self._line.popleft()
            if not turn.begin.done():
                self.running += 1
                turn.begin.set_result(None)
        for position, turn in enumerate(self._line, 1):
            turn.on_position(position)

    def leave(self, turn: Turn, seconds: float | None) -> None:
        """End a turn: `seconds` of work, or None for one that never began."""
        if seconds is None:
            if turn in self._line:
                self._line.remove(turn)
        else:
            self.running -= 1
            self._seconds += 0.1 * (seconds - self._seconds)
        self._advance()


class Turn:
    """One request's place in the line, and then its work: `async with turn: ...`."""

    def __init__(self, queue: WorkQueue, on_position: Callable[[int], None]) -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._work: list[concurrent.futures.Future[Any]] = []
        self._start = 0.0
        self._is_over = False
        self.on_position = on_position
        self.begin: asyncio.Future[None] = self._loop.create_future()

    async def __aenter__(self) -> Turn:
        try:
            await self.begin
        except BaseException:
            began = not self.begin.cancelled() and self.begin.exception() is None  # cancelled in that very moment
            self._queue.leave(self, 0.0 if began else None)
            raise
        self._start = self._loop.time()
        return self

    async def __aexit__(self, *error: object) -> None:
        # Work in a thread cannot be stopped from here: the slot is free when it has ended.
        self._is_over = True
        for future in self._work:
            future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._leave))
        self._leave()

    def _leave(self) -> None:
        if self._is_over and all(future.done() for future in self._work):
            self._is_over = False
            self._queue.leave(self, self._loop.time() - self._start)

    async def run(
        self, executor: concurrent.futures.Executor, function: Callable[..., _Value], *arguments: Any
    ) -> _Value:
        """The result of a function in another thread. Cancelled before it begins there, it is not called."""
        future = executor.submit(function, *arguments)
        self._work.append(future)
        return await asyncio.wrap_future(future)
