"""The routes. Each turns JSON into a job of `Service`, and its events into JSON or a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ecg_vlm import __version__
from ecg_vlm.digitized_files import csv_table
from ecg_vlm.page_answers import SCHEMA_VERSION
from ecg_vlm.reader import Reader
from ecg_vlm.serve import chat, export
from ecg_vlm.serve.docs_page import docs_html
from ecg_vlm.serve.errors import ApiError, BadRequestError, ClientGoneError, InvalidRequestError, NotFoundError
from ecg_vlm.serve.jobs import KEEP_ALIVE, Event, Job
from ecg_vlm.serve.metrics import Metrics
from ecg_vlm.serve.page_files import DigitizedUpload
from ecg_vlm.serve.schema import (
    AskRequest,
    AskResponse,
    DigitizeRequest,
    ExportRequest,
    PagesRequest,
    ParseRequest,
    ScoreRequest,
)
from ecg_vlm.serve.security import Access, Door
from ecg_vlm.serve.service import Service
from ecg_vlm.statement_scores import calibrated_scores, group_of
from eval.parser.parse import parse
from render.errors import InputError
from render.statements import STATEMENTS

_Value = TypeVar("_Value")

_DESCRIPTION = (
    "Answers about pictures of ECGs from models on this machine. Not a medical device: nothing it says is a diagnosis. "
    "Errors are {error: {message, type, code}}. With a token, send Authorization: Bearer TOKEN."
)
_SCORE_KEYS = (
    "image", "image_sha256", "page", "pages", "model", "readable", "refusal_reason", "scores", "calibrated",
    "calibration", "uncalibrated", "thresholds", "verdicts",
)  # fmt: skip
_PAGE = Path(str(files("ecg_vlm") / "serve" / "page"))


def create_app(service: Service, access: Access) -> ASGIApp:
    """The page and the API, behind the door."""
    app = FastAPI(title="ecg-vlm", version=__version__, description=_DESCRIPTION, docs_url=None, redoc_url=None)
    metrics = Metrics(service.queue)
    app.include_router(_pages(app))
    app.include_router(_questions(service))
    app.include_router(_conversions(service))
    app.include_router(_state(service, metrics))
    if _PAGE.is_dir():
        app.mount("/page", StaticFiles(directory=_PAGE))
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(Exception, _fault)
    return Door(app, access, service.limits, metrics)


def _pages(app: FastAPI) -> APIRouter:
    """What a person opens in a browser."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html")

    @router.get("/page/messages_de.json")
    async def german_messages() -> Response:
        return Response((files("ecg_vlm") / "messages_de.json").read_bytes(), media_type="application/json")

    @router.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(docs_html(app.openapi()))

    @router.get("/docs.css")
    async def docs_style() -> Response:
        return Response((files("ecg_vlm") / "serve" / "docs.css").read_bytes(), media_type="text/css")

    return router


def _questions(service: Service) -> APIRouter:
    """What needs a model."""
    router = APIRouter()

    @router.post("/v1/ask", response_model=AskResponse)
    async def ask(body: AskRequest, request: Request) -> Response:
        """Questions about pages. With stream: true server-sent events: queued, reading, delta, answer, scores, result,
        error, done."""
        job = service.ask(body)
        if body.stream:
            return _event_stream(_sse(job.events()))
        results = await _unless_gone(request, _results(job))
        return JSONResponse({"schema_version": SCHEMA_VERSION, "results": results})

    @router.post("/v1/score")
    async def score(body: ScoreRequest, request: Request) -> Response:
        """P(present) of all 71 statements."""
        job = service.ask(AskRequest(**dict(body), questions=[], view=False))
        results = await _unless_gone(request, _results(job))
        rows = [{key: result[key] for key in _SCORE_KEYS if key in result} for result in results]
        return JSONResponse({"schema_version": SCHEMA_VERSION, "results": rows})

    @router.post("/v1/chat/completions")
    async def chat_completions(body: chat.ChatRequest, request: Request) -> Response:
        """OpenAI's chat completions, with an image as a data URI."""
        model = service.models.get(body.model)
        question = chat.ask_request(body, model)
        live = not (isinstance(model, Reader) and model.knows_few_wordings)
        answer = chat.ChatAnswer(question, model, live=live)
        job = service.ask(question)
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            return _event_stream(answer.chunks(job.events(), with_usage=with_usage))
        return JSONResponse(await _unless_gone(request, answer.whole(job.events())))

    return router


def _conversions(service: Service) -> APIRouter:
    """What needs none."""
    router = APIRouter()

    @router.post("/v1/pages")
    async def pages(body: PagesRequest, request: Request) -> Response:
        """The pages of a file, each with a small picture."""
        events = await _unless_gone(request, _collect(service.thumbnails(body.images[0]), "pages"))
        return JSONResponse(events[0])

    @router.post("/v1/digitize")
    async def digitize(body: DigitizeRequest, request: Request) -> Response:
        """Leads in millivolts: JSON, or a ZIP archive with WFDB and CSV, or with CSV alone."""
        form = "wfdb" if request.headers.get("accept") == "application/zip" and body.format == "json" else body.format
        events = await _unless_gone(request, _collect(service.digitize(body), "page"))
        pages: list[DigitizedUpload] = [event["page"] for event in events]
        leads = [page.page for page in pages if page.page is not None]
        if not leads:
            raise InvalidRequestError(f"{pages[0].source}: {pages[0].refusal_reason}")
        if form == "json":
            return JSONResponse({"results": [export.digitized_json(page) for page in pages]})
        if form == "csv" and len(pages) == 1:
            return _file(csv_table(leads[0]).encode(), "text/csv; charset=utf-8", "ecg.csv")
        return _file(export.digitized_archive(pages, form), "application/zip", "ecg.zip")

    @router.post("/v1/parse")
    def parse_answers(body: ParseRequest) -> Response:
        """Statement codes of answers in words: present, absent, uncertain."""
        if (body.text is None) == (body.answers is None):
            raise InvalidRequestError("give either text or answers")
        rows = (
            [(body.text, "")] if body.text is not None else [(row.answer, row.question) for row in body.answers or ()]
        )
        results = [_codes(answer, question, body.cautious) for answer, question in rows]
        return JSONResponse(results[0] if body.text is not None else {"results": results})

    @router.post("/v1/export")
    def export_result(body: ExportRequest) -> Response:
        """A result of /v1/ask as a report (PDF, HTML), a FHIR DiagnosticReport, or JSON."""
        try:
            return _file(*export.document(body.result.model_dump(), body.format, body.language))
        except ModuleNotFoundError as error:
            raise InvalidRequestError(f"this server lacks {error.name}; choose another format") from error

    return router


def _state(service: Service, metrics: Metrics) -> APIRouter:
    """What the server is and does."""
    router = APIRouter()
    start = int(time.time())

    @router.get("/v1/models")
    async def models() -> Response:
        """The models of this server, the first one being the default."""
        rows = [
            {"id": name, "object": "model", "created": start, "owned_by": "ecg-vlm"} for name in service.models.by_name
        ]
        return JSONResponse({"object": "list", "data": rows})

    @router.get("/v1/statements")
    async def statements() -> Response:
        """The 71 statements, each in its group, with the first model's threshold where its scores are calibrated."""
        model = service.models.get(None)
        calibration = model.calibration if isinstance(model, Reader) else None
        thresholds = calibrated_scores({}, calibration).thresholds
        rows = [
            {
                "code": s.code,
                "name": s.name,
                "name_de": s.german,
                "group": group_of(s.code),
                "threshold": thresholds.get(s.code),
            }
            for s in STATEMENTS.values()
        ]
        return JSONResponse({"statements": rows})

    @router.get("/health")
    async def health() -> Response:
        """Whether requests are taken on."""
        is_closed = service.queue.is_closed
        state = {"status": "closing" if is_closed else "ok", "version": __version__}
        return JSONResponse(state, 503 if is_closed else 200)

    @router.get("/metrics")
    async def metrics_text() -> Response:
        """Counts for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _codes(answer: str, question: str, cautious: bool) -> dict[str, list[str]]:
    codes = parse(answer, question, cautious=cautious)
    return {status: list(getattr(codes, status)) for status in ("present", "absent", "uncertain")}


async def _results(job: Job) -> list[dict[str, Any]]:
    events = await _collect(job, "result")
    return [{key: value for key, value in event.items() if key != "result"} for event in events]


async def _collect(job: Job, name: str) -> list[dict[str, Any]]:
    """What all events of one name tell. Raises `ApiError`."""
    return [content async for event, content in job.events() if event == name]


async def _unless_gone(request: Request, work: Awaitable[_Value]) -> _Value:
    """The result of some work; it is dropped when the client has gone, as nobody would see it."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError("the client has gone")
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)  # an error that came as the client went is no news


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _sse(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield b": waiting\n\n" if event == KEEP_ALIVE else _event(*event)
    except ApiError as error:
        yield _event("error", error.to_json())
    yield _event("done", {})


def _event(name: str, content: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()


def _event_stream(content: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(content, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def _file(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else {}
    return JSONResponse(error.to_json(), error.status, headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    """The first of the faults, by its key; never the value, which may be a whole picture."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return await _api_error(request, BadRequestError("the body is not JSON"))
    key = ".".join(str(part)[:60] for part in first["loc"][1:]) or "the body"
    return await _api_error(request, InvalidRequestError(f"{key[:200]}: {first['msg'][:200]}"))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return await _api_error(request, NotFoundError("there is no such address; see /docs"))
    fault = BadRequestError("the body cannot be read" if error.status_code == 400 else str(error.detail))
    fault.status = error.status_code
    return await _api_error(request, fault)


async def _input_error(request: Request, error: Exception) -> Response:
    return await _api_error(request, InvalidRequestError(str(error)))


async def _fault(request: Request, error: Exception) -> Response:
    """Of an error that no one foresaw; the door writes it to the log."""
    return await _api_error(request, ApiError("internal error; the log of the server has the details"))
