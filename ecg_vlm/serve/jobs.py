"""A request's work in a task of its own, whose events its client reads as they come, or all at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ecg_vlm.serve.errors import ApiError, DeadlineError, InvalidRequestError, MachineError
from ecg_vlm.serve.reading_process import NOT_ENOUGH_MEMORY
from ecg_vlm.serve.work_queue import Turn, WorkQueue
from render.errors import InputError, WorkFailed, is_memory_full

Event = tuple[str, dict[str, Any]]
"""A name and what it tells, as JSON."""

KEEP_ALIVE: Event = ("", {})
"""Nothing has happened for `_SILENCE_S`; a connection that says nothing for long is closed by proxies."""

_SILENCE_S = 15.0
_log = logging.getLogger("ecg_vlm.serve")


class NoClientError(Exception):
    """Raised in the model's thread, to end a generation."""


class Job:
    """Work that waits for its turn, then happens, and is dropped when its client goes.

    Args:
        work: called with the job and its turn; it emits events.
        seconds: that it may take from the beginning of its turn.

    Raises:
        ApiError: When the queue is full or closed.
    """

    def __init__(self, queue: WorkQueue, work: Callable[[Job, Turn], Awaitable[None]], seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | ApiError | None] = asyncio.Queue()
        self._is_over = False
        self._seconds = seconds
        turn = queue.enter(lambda position: self.emit("queued", {"position": position}))
        self._task = asyncio.create_task(self._run(work, turn))

    def emit(self, name: str, content: dict[str, Any]) -> None:
        """Tell the client something, in the event loop's thread."""
        self._events.put_nowait((name, content))

    def emit_from_thread(self, name: str, content: dict[str, Any]) -> None:
        """Tell the client something, in any other thread. Raises `NoClientError` when there is no client any more."""
        if self._is_over:
            raise NoClientError
        self._loop.call_soon_threadsafe(self.emit, name, content)

    async def events(self) -> AsyncIterator[Event]:
        """All events; where nobody reads on, the work is dropped.

        Raises:
            ApiError: Where the work failed.
        """
        try:
            while True:
                try:
                    event = await asyncio.wait_for(self._events.get(), _SILENCE_S)
                except TimeoutError:
                    event = KEEP_ALIVE
                if event is None:
                    return
                if isinstance(event, ApiError):
                    raise event
                yield event
        finally:
            self.drop()

    def drop(self) -> None:
        """End the work as soon as may be: at once where it waits, at the next word where it generates."""
        self._is_over = True
        self._task.cancel()

    async def _run(self, work: Callable[[Job, Turn], Awaitable[None]], turn: Turn) -> None:
        end: ApiError | None = None
        try:
            async with turn, asyncio.timeout(self._seconds):
                await work(self, turn)
        except TimeoutError:
            end = DeadlineError(f"the request takes more than {self._seconds:.0f} s; ask about fewer pages")
        except InputError as error:
            end = InvalidRequestError(str(error))
        except ApiError as error:
            end = error
        except WorkFailed as error:
            end = MachineError(str(error))
        except Exception as error:
            if is_memory_full(error):
                end = MachineError(NOT_ENOUGH_MEMORY)
            else:
                _log.exception("a request failed")
                end = ApiError("internal error; the log of the server has the details")
        finally:
            self._is_over = True
            self._events.put_nowait(end)
