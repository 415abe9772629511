"""What the server does with a request, free of HTTP: its turn, its pages, its answers."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ecg_vlm.answer_file import request_of
from ecg_vlm.page_answers import PageAnswers, PageModel, answer_page
from ecg_vlm.reader import QuestionAnswer
from ecg_vlm.serve.errors import InvalidRequestError, TooLargeError
from ecg_vlm.serve.jobs import Job
from ecg_vlm.serve.models import Models
from ecg_vlm.serve.page_files import DigitizedUpload, ServedPage, digitize_upload, read_upload, thumbnails
from ecg_vlm.serve.reading_process import ReadingProcesses
from ecg_vlm.serve.remote_model import NO_SCORES, RemoteModel
from ecg_vlm.serve.schema import AskRequest, PageRequest, Upload
from ecg_vlm.serve.work_queue import Turn, WorkQueue

_Page = TypeVar("_Page")

_MOST_PAGES = 20  # of one request
_CACHE_PAGES = 12  # at some 5 MB


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Attributes:
        body_bytes: of one request.
        bodies_bytes: of all requests at the same time.
        upload_seconds: in which the body must arrive.
        send_seconds: in which a client must take each part of its answer.
        waiting: requests in the line.
        seconds: of work for one request.
        reading_seconds: of CPU for reading one page.
    """

    body_bytes: int = 48 << 20
    bodies_bytes: int = 1 << 30
    upload_seconds: float = 60.0
    send_seconds: float = 60.0
    waiting: int = 128
    seconds: float = 600.0
    reading_seconds: float = 60.0


class Service:
    """One server's models, reading processes and line.

    Args:
        processes: that read pages; 0 reads in a thread.
    """

    def __init__(self, models: Models, processes: int, limits: Limits) -> None:
        self.models = models
        self.limits = limits
        self.reading = ReadingProcesses(processes, limits.reading_seconds)
        self.queue = WorkQueue(max(processes, 1) + models.thread_count, limits.waiting)
        self._cache: OrderedDict[str, Any] = OrderedDict()

    def close(self) -> None:
        """End the processes and threads, when nothing runs any more."""
        self.reading.close()
        self.models.threads.shutdown()

    def ask(self, request: AskRequest) -> Job:
        """A job with the events of the API's stream. Raises `ApiError` where it cannot be taken on."""
        return self._job(partial(self._ask, request, self.models.get(request.model)))

    def digitize(self, request: PageRequest) -> Job:
        """A job with a "page" event, of a `DigitizedUpload`, for each page."""
        return self._job(partial(self._digitize, request))

    def thumbnails(self, upload: Upload) -> Job:
        """A job with one "pages" event."""
        return self._job(partial(self._thumbnails, upload))

    def _job(self, work: Any) -> Job:
        return Job(self.queue, work, self.limits.seconds)

    async def _thumbnails(self, upload: Upload, job: Job, turn: Turn) -> None:
        job.emit("pages", {"pages": await self.reading.run(turn, thumbnails, upload)})

    async def _digitize(self, request: PageRequest, job: Job, turn: Turn) -> None:
        async for page in self._pages(request, partial(self._digitized_page, request, turn)):
            job.emit("page", {"page": page})

    async def _digitized_page(
        self, request: PageRequest, turn: Turn, upload: Upload, number: int | None, first: int
    ) -> DigitizedUpload | None:
        return await self._read(turn, digitize_upload, upload, number, first, request.correction)

    async def _ask(self, request: AskRequest, model: PageModel, job: Job, turn: Turn) -> None:
        if request.scores and isinstance(model, RemoteModel):
            if not request.questions:
                raise InvalidRequestError(NO_SCORES)
            request = request.model_copy(update={"scores": False})
        words = request_of(model.name, request.questions)
        place = 0
        async for page in self._pages(request, partial(self._served_page, request, turn)):
            before = PageAnswers(page.page, words, page.reading, "", ()).to_json()
            facts = {key: before[key] for key in before if key not in _UNKNOWN_BEFORE}
            job.emit("reading", {"result": place, **facts, **_page_facts(page)})
            answers = await turn.run(self.models.threads, _answer, self.models, model, page, request, place, job)
            result = answers.to_json() | _page_facts(page)
            if isinstance(model, RemoteModel):
                result["no_scores_because"] = NO_SCORES
            if request.scores:
                facts = {key: value for key, value in result.items() if key in _SCORE_KEYS}
                job.emit("scores", {"result": place, **facts})
            job.emit("result", {"result": place, **result})
            place += 1

    async def _pages(self, request: PageRequest, read: Any) -> AsyncIterator[Any]:
        """The pages that a request is about, each read when the one before has been dealt with."""
        count = 0
        for upload in request.images:
            number = request.page if isinstance(request.page, int) else None
            first: int | None = 1
            while first is not None:
                page = await read(upload, number, first)
                if page is None:
                    break
                if count == _MOST_PAGES:
                    raise TooLargeError(f"more than {_MOST_PAGES} pages; ask about them in several requests")
                yield page
                count += 1
                first = _next_number(page) if request.page == "all" else None
        if not count:
            raise InvalidRequestError("no page can be read")

    async def _served_page(
        self, request: AskRequest, turn: Turn, upload: Upload, number: int | None, first: int
    ) -> ServedPage | None:
        arguments = (number, first, request.correction, request.as_is, request.view)
        return await self._read(turn, read_upload, upload, *arguments)

    async def _read(self, turn: Turn, function: Callable[..., _Page | None], *arguments: Any) -> _Page | None:
        """What a function of `page_files` reads; of the last few pages without reading them again."""
        key = hashlib.sha256(f"{function.__name__} {arguments!r}".encode()).hexdigest()
        page: _Page | None = self._cache.pop(key, None) or await self.reading.run(turn, function, *arguments)
        if page is not None:
            self._cache[key] = page  # as the youngest
        while len(self._cache) > _CACHE_PAGES:
            self._cache.popitem(last=False)
        return page


_SCORE_KEYS = frozenset({"scores", "calibrated", "calibration", "uncalibrated", "thresholds", "verdicts"})
_UNKNOWN_BEFORE = _SCORE_KEYS | {"request", "readable", "refusal_reason", "warnings", "answers"}


def _next_number(page: ServedPage | DigitizedUpload) -> int | None:
    number, count = (page.page.number, page.page.count) if isinstance(page, ServedPage) else (page.number, page.count)
    return number + 1 if number < count else None


def _page_facts(page: ServedPage) -> dict[str, Any]:
    """What a result holds beside what `ecg-vlm ask --json` prints."""
    facts = {"picture": page.picture}
    return facts | {"as_read": page.as_read} if page.as_read else facts


def _answer(
    models: Models, model: PageModel, page: ServedPage, request: AskRequest, place: int, job: Job
) -> PageAnswers:
    """All answers about a page, in the model's thread."""

    def on_text(question: int, text: str) -> None:
        job.emit_from_thread("delta", {"result": place, "question": question, "text": text})

    def on_answer(question: int, answer: QuestionAnswer) -> None:
        facts = {"answer": answer.text, "contradicted": answer.contradicted, "understood": answer.understood}
        job.emit_from_thread("answer", {"result": place, "question": question, **facts})

    return answer_page(
        model,
        page.page,
        request.questions,
        scores=request.scores,
        as_is=request.as_is,
        max_new_tokens=request.max_new_tokens,
        history=[(turn.question, turn.answer) for turn in request.history],
        reading=page.reading,
        encoding=models.encode(model, page.reading, as_is=request.as_is),
        on_text=on_text,
        on_answer=on_answer,
    )
