"""The API of `ecg-vlm serve`: what it answers, what it refuses, and who is next."""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from ecg_vlm.images import open_page
from ecg_vlm.page_answers import answer_page
from ecg_vlm.reader import Reader
from ecg_vlm.serve import reading_process
from ecg_vlm.serve.app import create_app
from ecg_vlm.serve.correction import correct
from ecg_vlm.serve.errors import ApiError, ClosingError, DeadlineError, QueueFullError
from ecg_vlm.serve.models import Models, load_readers
from ecg_vlm.serve.page_files import upload_name
from ecg_vlm.serve.reading_process import ReadingProcesses
from ecg_vlm.serve.remote_model import NO_SCORES, RemoteModel, remote_models
from ecg_vlm.serve.schema import Correction, Upload
from ecg_vlm.serve.security import Access, check_access
from ecg_vlm.serve.server import access_for
from ecg_vlm.serve.service import Limits, Service
from ecg_vlm.serve.work_queue import WorkQueue
from render.errors import InputError, WorkFailed
from render.pages.page import draw
from render.sources.registry import open_source

_URL = "http://127.0.0.1:8571"
_TOKEN = "a-token"
_HEAD = b"IHDR" + (65_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
_BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\r" + _HEAD + zlib.crc32(_HEAD).to_bytes(4, "big") + b"\0\0\0\0IDAT" + bytes(4)


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture_bytes(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return draw(open_source("simulated:AFIB").read(0)).to_pil()


@pytest.fixture(scope="module")
def png(picture) -> bytes:
    return picture_bytes(picture)


@pytest.fixture(scope="module")
def images(png) -> list[dict]:
    return [{"name": "C:\\pages\\<script>.png", "data": data_uri(png)}]


@pytest.fixture(scope="module")
def service():
    service = Service(Models(load_readers(["nano"])), 0, Limits(body_bytes=8 << 20))
    yield service
    service.close()


@pytest.fixture(scope="module")
def client(service):
    with TestClient(create_app(service, Access()), base_url=_URL) as client:
        yield client


def error_of(response) -> str:
    """The message of an error, after its shape has been checked: one line, without a path or a traceback."""
    assert response.headers["content-type"] == "application/json"
    content = response.json()
    assert list(content) == ["error"] and set(content["error"]) == {"message", "type", "code"}
    message = content["error"]["message"]
    assert "\n" not in message and "Traceback" not in message and "/tmp" not in message and ".py" not in message
    assert content["error"]["code"] == response.status_code
    return message


# What it answers


def test_ask_gives_what_the_command_line_prints(client, service, images, png, tmp_path):
    (tmp_path / "page.png").write_bytes(png)
    questions = ["What is the rhythm?", "Is this a normal ECG?"]
    response = client.post("/v1/ask", json={"images": images, "questions": questions})
    assert response.status_code == 200
    (result,) = response.json()["results"]
    model = service.models.get(None)
    command_line = answer_page(model, open_page(tmp_path / "page.png"), questions, scores=True).to_json()
    assert result["image"] == "<script>.png"
    assert result["picture"]["width"], result["picture"]["height"] == (1120, 560)
    view = Image.open(io.BytesIO(base64.b64decode(result["as_read"].partition(",")[2])))
    assert view.format == "PNG" and view.size == (1120, 560)
    assert {**result, "image": ""} == {
        **command_line, "image": "", "picture": result["picture"], "as_read": result["as_read"],
    }  # fmt: skip


def test_a_stream_tells_what_is_known_as_it_is_known(client, images):
    request = {"images": images, "questions": ["What does this ECG show?", "Is it atrial fibrillation?"]}
    response = client.post("/v1/ask", json={**request, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [(name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n\n", response.text)]
    names = [name for name, _ in events]
    assert names[0] == "reading" and names[-4:] == ["answer", "scores", "result", "done"] and names.count("answer") == 2
    (whole,) = client.post("/v1/ask", json=request).json()["results"]
    assert {key: value for key, value in events[-2][1].items() if key != "result"} == whole
    assert events[0][1]["measurements"] == whole["measurements"] and "answers" not in events[0][1]
    for place, answer in enumerate(whole["answers"]):
        pieces = [content["text"] for name, content in events if name == "delta" and content["question"] == place]
        assert "".join(pieces) == (answer["original"] or answer["answer"])


def test_a_page_is_read_once_for_many_questions(client, service, images, monkeypatch):
    client.post("/v1/ask", json={"images": images})
    monkeypatch.setattr(service.reading, "run", None)
    assert client.post("/v1/ask", json={"images": images, "questions": ["What is the heart rate?"]}).status_code == 200


def test_other_routes(client, images):
    (scores,) = client.post("/v1/score", json={"images": images}).json()["results"]
    assert len(scores["scores"]) == 71 and "answers" not in scores
    assert client.post("/v1/parse", json={"text": "Atrial fibrillation. No LVH."}).json()["absent"] == ["LVH"]
    answers = [{"answer": "Yes.", "question": "Is it atrial fibrillation?"}]
    assert client.post("/v1/parse", json={"answers": answers}).json()["results"][0]["present"] == ["AFIB"]
    statements = client.get("/v1/statements").json()["statements"]
    assert len(statements) == 71 and [s["code"] for s in statements if s["group"] == "other"] == ["NORM"]
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["nano"]
    assert client.get("/health").json()["status"] == "ok"
    assert 'ecg_vlm_requests_total{route="/v1/parse",status="200"} 2.0' in client.get("/metrics").text
    docs = client.get("/docs").text
    assert "POST /v1/ask" in docs and "<script" not in docs and "http" not in docs.replace("http-equiv", "")


def test_leads_in_millivolts(client, images, tmp_path):
    (page,) = client.post("/v1/digitize", json={"images": images}).json()["results"]
    assert page["sampling_rate"] == 500 and len(page["leads"]) == 13
    assert len(page["leads"][0]["millivolts"]) == round(page["leads"][0]["seconds"] * 500)
    accept = {"accept": "application/zip"}
    archive = zipfile.ZipFile(io.BytesIO(client.post("/v1/digitize", json={"images": images}, headers=accept).content))
    archive.extractall(tmp_path)
    record = wfdb.rdrecord(tmp_path / "ecg")
    table = client.post("/v1/digitize", json={"images": images, "format": "csv"}).text.splitlines()
    assert table[0].split(",")[1:] == record.sig_name and len(table) == len(record.p_signal) + 1
    assert float(table[100].split(",")[2]) == pytest.approx(record.p_signal[99, 1], abs=6e-4)


def test_pages_of_a_pdf(client, picture):
    blank = Image.new("RGB", picture.size, "white")
    pdf = picture_bytes(blank, "PDF", save_all=True, append_images=[picture, blank], resolution=254)
    images = [{"name": "report.pdf", "data": data_uri(pdf, "application/pdf")}]
    pages = client.post("/v1/pages", json={"images": images}).json()["pages"]
    assert [(page["number"], page["blank"]) for page in pages] == [(1, True), (2, False), (3, True)]
    (result,) = client.post("/v1/ask", json={"images": images}).json()["results"]
    assert result["page"] == 2 and result["pages"] == 3 and result["readable"]
    assert (pages[1]["width"], pages[1]["height"]) == pytest.approx(
        (result["picture"]["width"], result["picture"]["height"]), abs=4
    )
    response = client.post("/v1/score", json={"images": images, "page": "all"})
    assert [result["page"] for result in response.json()["results"]] == [2]
    for page, reason in ((3, "page 3 is blank"), (4, "there is no page 4 of 3")):
        assert reason in error_of(client.post("/v1/ask", json={"images": images, "page": page}))


def test_nothing_is_written_to_disk(client, picture, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", True)  # of modules that the first page imports
    images = [{"data": data_uri(picture_bytes(picture, "PDF", resolution=254))}]
    client.post("/v1/pages", json={"images": images})  # what is imported for PDF once
    files, watches = [], True

    def hook(event: str, arguments: tuple) -> None:
        if watches and event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            files.append(arguments[0])

    sys.addaudithook(hook)  # cannot be removed
    (result,) = client.post("/v1/ask", json={"images": images}).json()["results"]
    for form in ("pdf", "html"):
        assert client.post("/v1/export", json={"result": result, "format": form}).status_code == 200
    watches = False
    assert [file for file in files if file != os.devnull] == []


def test_a_result_becomes_a_document(client, images):
    (result,) = client.post("/v1/ask", json={"images": images}).json()["results"]
    for form, start in (("pdf", b"%PDF-"), ("html", b"<!doctype html>"), ("json", b"{"), ("fhir", b"{")):
        response = client.post("/v1/export", json={"result": result, "format": form})
        assert response.status_code == 200 and response.content.lower().startswith(start.lower()), form
        assert "attachment" in response.headers["content-disposition"]
    assert response.json()["resourceType"] == "DiagnosticReport"
    for change in ({"as_read": "data:image/svg+xml;base64,AAAA"}, {"scores": {"<b>": 0.5}}, {"scores": {"AFIB": 2}}):
        response = client.post("/v1/export", json={"result": {**result, **change}, "format": "html"})
        assert response.status_code == 422 and error_of(response).startswith(f"result.{next(iter(change))}")


# Corrections


def test_corners_straighten_a_sheet(picture):
    corners = [(210, 120), (1500, 60), (1580, 900), (150, 820)]
    size = picture.size
    canvas = Image.new("RGB", (1700, 1000), "brown")
    matrix = _homography(corners, [(0, 0), (size[0], 0), size, (0, size[1])])
    canvas = Image.composite(
        picture.transform(canvas.size, Image.Transform.PERSPECTIVE, matrix, Image.Resampling.BICUBIC),
        canvas,
        Image.new("L", size, 255).transform(canvas.size, Image.Transform.PERSPECTIVE, matrix),
    )
    straight = correct(canvas, Correction(corners=corners)).resize(size)
    difference = np.abs(np.asarray(straight, float) - np.asarray(picture, float)).mean()
    assert difference < 12 < np.abs(np.asarray(canvas.resize(size), float) - np.asarray(picture, float)).mean()
    half = [(x / 2, y / 2) for x, y in corners]
    same = correct(canvas, Correction(corners=half, size=(850, 500)))
    assert same.tobytes() == correct(canvas, Correction(corners=corners)).tobytes()
    crop = correct(canvas, Correction(corners=corners, crop=(100, 50, 1600, 950)))
    assert np.abs(np.asarray(crop.resize(size), float) - np.asarray(straight, float)).mean() < 1


def _homography(corners, rectangle):
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, rectangle, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows, float), np.array(values, float)).tolist()


def test_turn_and_crop(picture):
    assert correct(picture, Correction(turn=90)).tobytes() == picture.rotate(-90, expand=True).tobytes()  # clockwise
    crop = correct(picture, Correction(crop=(100, 50, 400, 250), turn=180))
    assert crop.rotate(180).tobytes() == picture.crop((100, 50, 400, 250)).tobytes()


@pytest.mark.parametrize(
    ("correction", "reason"),
    [
        ({"crop": [0, 0, 5, 500]}, "correction.crop"),
        ({"crop": [2000, 0, 3000, 500]}, "correction.crop"),
        ({"corners": [[0, 0], [100, 100], [100, 0], [0, 100]]}, "clockwise"),
        ({"corners": [[-50, 0], [100, 0], [100, 100], [0, 100]]}, "clockwise"),
        ({"corners": [[0, 0], [9, 0], [9, 100], [0, 100]]}, "move the corners apart"),
        ({"corners": [[1e308, 0], [100, 0], [100, 100], [0, 100]]}, "clockwise"),
        ({"turn": 45}, "correction.turn"),
        ({"size": [0, 5]}, "correction.size"),
        ({"corners": [[0, 0], [9, 0]]}, "correction.corners"),
    ],
)
def test_corrections_that_make_no_page(client, images, correction, reason):
    response = client.post("/v1/ask", json={"images": images, "correction": correction})
    assert response.status_code == 422 and reason in error_of(response)


# What it refuses


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("http://example.com/ecg.png", "addresses are not fetched"),
        ("file:///etc/passwd", "addresses are not fetched"),
        ("data:image/png,plain", "addresses are not fetched"),
        ("data:image/png;base64,@@@@", "not base64"),
        ("data:image/png;base64,", "empty"),
        (data_uri(b"not a picture"), "not an image"),
        (data_uri(_BOMB), "megapixels"),
        (data_uri(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"), "SVG"),
        (data_uri(b"PK\x03\x04" + b"%PDF-1.4"), "ZIP"),
        (data_uri(b"%!PS\n(/etc/passwd) run"), "PostScript"),
        (data_uri(b"GIF89a/*" + b"*/=alert(1)//"), "not an image"),
        (data_uri(b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>"), "XML"),
    ],
)
def test_what_is_no_page_is_one_line(client, data, reason):
    response = client.post("/v1/ask", json={"images": [{"name": "/home/me/x.png", "data": data}]})
    assert response.status_code == 422
    message = error_of(response)
    assert reason in message and message.startswith("x.png: ")
    stream = client.post("/v1/ask", json={"images": [{"name": "x.png", "data": data}], "stream": True})
    assert "event: error\ndata: " in stream.text and "event: done" in stream.text and stream.status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "the body"),
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "the body"),
        (b'{"images": [], "images": []}', 422, "images: "),
        (b'{"images": [{"data": "data:,"}], "stop": 1}', 422, "stop: "),
        (b'{"images": [{"data": "data:,"}], "max_new_tokens": 100000}', 422, "max_new_tokens: "),
        (b'{"images": [{"data": "data:,"}], "questions": [""]}', 422, "questions.0: "),
        (b'{"images": [{"data": "data:,"}], "page": NaN}', 422, "page"),
        (b'{"images": [{"data": "data:,"}], "page": ' + b"9" * 5000 + b"}", 400, "the body"),
        (b'{"images": [{"data": "data:,"}], "questions": ["\\ud800"]}', 400, "halves of characters"),
        (b'{"images": [{"data": "data:,"}], "model": "/etc/passwd"}', 404, "this server has nano"),
        (b"\xff\xfe", 400, "the body"),
    ],
)
def test_what_is_no_request_is_one_line(client, body, status, reason):
    response = client.post("/v1/ask", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status and reason in error_of(response)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/page/../app.py", {}, 404),
        ("GET", "/page/%2e%2e/app.py", {}, 404),
        ("GET", "/v1/ask", {}, 405),
        ("POST", "/v1/ask", {"content-type": "text/plain"}, 415),
        ("POST", "/v1/ask", {"content-type": "application/x-www-form-urlencoded"}, 415),
        ("GET", "/v1/models", {"host": "evil.example"}, 403),
        ("GET", "/v1/models", {"host": "127.0.0.1.evil.example:8571"}, 403),
        ("GET", "/v1/models", {"host": "x@127.0.0.1"}, 400),
        ("GET", "/v1/models", {"origin": "http://evil.example"}, 403),
        ("GET", "/v1/models", {"origin": "null"}, 403),
        ("GET", "/v1/models", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", "/v1/models", {"origin": "http://127.0.0.1:9999"}, 403),
        ("GET", "/v1/models", {"origin": _URL, "sec-fetch-site": "same-origin"}, 200),
        ("GET", "/v1/models", {"host": "localhost:8571"}, 200),
    ],
)
def test_who_may_ask(client, method, path, headers, status):
    response = client.request(method, path, headers=headers)
    assert response.status_code == status
    assert status == 200 or error_of(response)
    assert "unsafe" not in response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff" and response.headers["referrer-policy"]


def test_a_token_is_needed_elsewhere(service):
    access = access_for("0.0.0.0", _TOKEN, ["ecg.example"])
    with TestClient(create_app(service, access), base_url="http://192.168.1.7:8571") as client:
        for authorization in ({}, {"authorization": "Bearer wrong"}, {"authorization": _TOKEN}):
            response = client.get("/v1/models", headers=authorization)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/models", headers={"authorization": f"Bearer {_TOKEN}"}).status_code == 200
        assert client.get("/health").status_code == 200 and client.get("/metrics").status_code == 401
        for host, status in (("ecg.example", 200), ("evil.example", 403)):
            assert client.get("/health", headers={"host": host}).status_code == status
    assert len(access_for("0.0.0.0", "", []).token) > 30 and not access_for("127.0.0.1", "", []).token
    with pytest.raises(InputError, match="--token"):
        access_for("127.0.0.1", "ü", [])
    assert _TOKEN not in repr(access)
    with pytest.raises(ApiError, match="Host"):
        check_access(access, "GET", "/", {})


@pytest.fixture
def impatient(service, monkeypatch):
    """The service with limits that a busy machine would break elsewhere: an answer would come without its body."""
    monkeypatch.setattr(service, "limits", replace(service.limits, upload_seconds=0.2, send_seconds=0.2))
    return service


def test_a_client_that_does_not_read_is_left(impatient):
    async def check() -> None:
        async def receive() -> dict:
            return {"type": "http.request", "body": b'{"text": "AF"}', "more_body": False}

        async def send(message: dict) -> None:
            await asyncio.sleep(3600)

        await asyncio.wait_for(create_app(impatient, Access())(_scope("/v1/parse"), receive, send), 60)

    asyncio.run(check())


def test_large_bodies(client):
    headers = {"content-type": "application/json"}
    assert client.post("/v1/ask", content=bytes(9 << 20), headers=headers).status_code == 413
    chunks = (bytes(1 << 20) for _ in range(20))
    start = time.monotonic()
    assert client.post("/v1/ask", content=chunks, headers=headers).status_code == 413
    assert time.monotonic() - start < 30  # what has arrived whole has no rest to wait for, which takes the server 60 s
    assert client.post("/v1/ask", content=b"", headers={**headers, "content-length": "-5"}).status_code == 400


def test_slow_bodies(impatient):
    async def slow() -> list[dict]:
        messages = []

        async def receive() -> dict:
            await asyncio.sleep(0 if not messages else 3600)
            messages.append({})
            return {"type": "http.request", "body": b"{", "more_body": True}

        async def send(message: dict) -> None:
            answers.append(message)

        answers: list[dict] = []
        await create_app(impatient, Access())(_scope("/v1/ask"), receive, send)
        return answers

    start, body = asyncio.run(slow())
    assert start["status"] == 504 and b"did not arrive in time" in body["body"]


def _scope(path: str) -> dict:
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_FILES = st.sampled_from([_BOMB, b"%PDF-1.4", b"GIF89a", b"\xff\xd8\xff", b"II*\0", b"RIFF0000WEBP", b""])
_URIS = st.builds(lambda head, tail: data_uri(head + tail), _FILES, st.binary(max_size=40)) | st.text(max_size=30)
_KEYS = st.sampled_from(["images", "questions", "page", "correction", "model", "scores", "messages", "text", "result",
                         "answers", "format", "stream", "max_new_tokens"])  # fmt: skip
_BODIES = st.dictionaries(_KEYS, _JSON | st.lists(st.fixed_dictionaries({"data": _URIS}), min_size=1, max_size=2))
_PATHS = ["ask", "score", "digitize", "pages", "parse", "export", "chat/completions"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(_PATHS), body=_BODIES | _JSON, uri=_URIS)
def test_whatever_is_sent_is_answered(client, path, body, uri):
    if isinstance(body, dict) and path in ("ask", "score", "digitize", "pages"):
        body = {"images": [{"data": uri}], **body}
    response = client.post(
        f"/v1/{path}", content=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    assert response.status_code < 500
    if response.status_code != 200:
        error_of(response)


def test_names_of_uploads():
    for name, safe in (("../../etc/passwd", "passwd"), ("a\nb\u202e.png", "a_b_.png"), ("", "upload"), ("..", "..")):
        assert upload_name(Upload(name=name, data="")) == safe


# Who is next


def test_the_queue_is_in_order_and_bounded():
    async def check() -> None:
        queue = WorkQueue(slots=1, places=2)
        order: list[str] = []
        positions: dict[str, list[int]] = {"a": [], "b": [], "c": []}

        async def work(name: str, turn) -> None:
            async with turn:
                order.append(name)
                await asyncio.sleep(0.01)

        turns = [queue.enter(positions[name].append) for name in "abc"]
        with pytest.raises(QueueFullError) as error:
            queue.enter()
        assert error.value.retry_after and error.value.status == 429
        tasks = [asyncio.create_task(work(name, turn)) for name, turn in zip("abc", turns, strict=True)]
        await asyncio.sleep(0)
        tasks[1].cancel()  # a client that has gone before its turn
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["a", "c"] and positions["c"] == [2, 1]
        assert queue.running == queue.waiting == 0

    asyncio.run(check())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_leaves_the_line(service, images, stream):
    body = json.dumps({"images": images, "stream": stream, "as_is": stream}).encode()
    waiting = []

    async def check() -> None:
        turns = [service.queue.enter() for _ in range(2)]  # all slots
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict:
            if messages:
                return messages.pop()
            await asyncio.sleep(0.1)
            waiting.append(service.queue.waiting)
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            pass

        await asyncio.wait_for(create_app(service, Access())(_scope("/v1/ask"), receive, send), 60)
        await asyncio.sleep(0.05)
        waiting.append(service.queue.waiting)
        for turn in turns:
            async with turn:
                pass

    asyncio.run(check())
    assert waiting == [1, 0] and service.queue.running == 0


def test_a_closed_queue_lets_finish_and_refuses():
    async def check() -> None:
        queue = WorkQueue(slots=1, places=5)
        first, second = queue.enter(), queue.enter()
        async with first:
            queue.close()
            with pytest.raises(ClosingError):
                async with second:
                    pass
            with pytest.raises(ClosingError):
                queue.enter()
        assert queue.running == queue.waiting == 0

    asyncio.run(check())


def test_a_process_that_breaks_or_hangs_is_replaced():
    async def check() -> None:
        processes = ReadingProcesses(1, 1.0, time.time)
        queue = WorkQueue(slots=1, places=1)

        async def call(function, *arguments):
            async with queue.enter() as turn:
                return await processes.run(turn, function, *arguments)

        first = await call(os.getpid)
        assert first != os.getpid() and await call(os.getpid) == first
        with pytest.raises(InputError, match="breaks the library"):
            await call(os.abort)
        with pytest.raises(DeadlineError, match="more than 1 s"):
            await call(sum, range(10**12))
        with pytest.raises(RuntimeError, match="invalid literal"):
            await call(int, "x")
        assert await call(os.getpid) not in (first, os.getpid())
        processes.close()

    asyncio.run(check())


def test_what_the_machine_lacks_is_one_line_and_the_next_task_tries_anew(monkeypatch):
    def fail(context: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def check() -> None:
        queue = WorkQueue(slots=1, places=1)

        async def call(processes: ReadingProcesses) -> int:
            async with queue.enter() as turn:
                return await processes.run(turn, abs, -1)

        without_memory = ReadingProcesses(1, 1.0, partial(exec, "raise MemoryError"))
        for _ in range(2):
            with pytest.raises(WorkFailed, match="not enough memory"):
                await call(without_memory)
        without_memory.close()
        with monkeypatch.context() as context:
            context.setattr("multiprocessing.context.SpawnContext.Pipe", fail)
            without_files = ReadingProcesses(1, 1.0, time.time)
            with pytest.raises(WorkFailed, match="Too many open files"):
                await call(without_files)
        assert await call(without_files) == 1
        without_files.close()

    asyncio.run(check())


@pytest.mark.parametrize(
    ("error", "line"), [(MemoryError(), "not enough memory"), (WorkFailed("no process starts"), "no process starts")]
)
def test_a_request_that_the_machine_cannot_do_is_told_so(client, png, monkeypatch, caplog, error, line):
    def read_upload(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("ecg_vlm.serve.service.read_upload", read_upload)
    response = client.post(
        "/v1/ask", json={"images": [{"data": data_uri(png + b"no memory")}], "questions": ["Rhythm?"]}
    )
    assert response.status_code == 503 and response.json()["error"]["message"].startswith(line)
    assert not caplog.records


def test_a_page_is_encoded_once_for_questions_in_a_row(client, png, monkeypatch):
    pages: list[Any] = []
    prefill = Reader.prefill

    def counted(reader: Reader, images: Any) -> Any:
        pages.extend(images)
        return prefill(reader, images)

    monkeypatch.setattr(Reader, "prefill", counted)
    body = {"images": [{"data": data_uri(png + b"asked in a row")}], "view": False, "scores": False}
    for question, answer in (("What is the rhythm?", "trial fibrillation."), ("Is it atrial fibrillation?", "Yes.")):
        result = client.post("/v1/ask", json={**body, "questions": [question]}).json()["results"][0]
        assert result["answers"][0]["answer"].endswith(answer)
    assert len(pages) == 1
    client.post("/v1/ask", json={**body, "questions": ["What is the rhythm?"], "as_is": True})
    assert len(pages) == 2  # another view of the same page


def test_a_process_that_starts_slowly_is_waited_for(monkeypatch):
    monkeypatch.setattr(reading_process, "_START_S", 4.0)  # of CPU: a busy machine gives it slowly

    async def check() -> None:
        processes = ReadingProcesses(1, 1.0, partial(time.sleep, 4.5))
        async with WorkQueue(slots=1, places=1).enter() as turn:
            assert await processes.run(turn, abs, -1) == 1
        processes.close()

    asyncio.run(check())


# Behind another server


class _Backend(BaseHTTPRequestHandler):
    """A chat-completions server of two words."""

    fails = False
    turns: list[str]

    def do_GET(self) -> None:
        self._send(b'{"data": [{"id": "llava"}]}', "application/json")

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = request["messages"][0]
        type(self).turns = [each["content"] for each in request["messages"][1:]]
        assert message["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
        chunks: list[dict] = [{"choices": [{"delta": {"content": word}}]} for word in ("Sinus", " rhythm.")]
        chunks.append({"choices": [], "usage": {"prompt_tokens": 1600, "completion_tokens": 3}})
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self._send(text.encode(), "text/event-stream", 500 if self.fails else 200)

    def _send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        pass


def test_a_model_behind_another_server(images, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    remote = RemoteModel("llava", f"http://127.0.0.1:{server.server_port}", "key")
    service = Service(Models([remote], 2), 0, Limits())
    with TestClient(create_app(service, Access()), base_url=_URL) as client:
        request: dict[str, Any] = {"images": [{**images[0], "name": "image"}], "view": False}
        (result,) = client.post("/v1/ask", json={**request, "questions": ["Rhythm?"]}).json()["results"]
        assert result["answers"][0]["answer"] == "Sinus rhythm." and result["measurements"]
        assert result["scores"] == {} and result["no_scores_because"] == NO_SCORES
        message = {"role": "user", "content": [{"type": "text", "text": "Rhythm?"},
                   {"type": "image_url", "image_url": {"url": images[0]["data"]}}]}  # fmt: skip
        chat = client.post("/v1/chat/completions", json={"messages": [message], "stream": True}).text
        assert '"content": "Sinus"' in chat and '"content": " rhythm."' in chat
        usage = client.post("/v1/chat/completions", json={"messages": [message]}).json()["usage"]
        assert usage == {"prompt_tokens": 1600, "completion_tokens": 3, "total_tokens": 1603}
        turns = [message, {"role": "assistant", "content": "Sinus."}, {"role": "user", "content": "Why?"}]
        assert client.post("/v1/chat/completions", json={"messages": turns}).status_code == 200
        assert _Backend.turns == ["Sinus.", "Why?"]
        assert NO_SCORES in error_of(client.post("/v1/score", json={"images": images}))
        monkeypatch.setattr(_Backend, "fails", True)
        response = client.post("/v1/ask", json=request)
        assert response.status_code == 502 and "status 500" in error_of(response)
        server.shutdown()
        server.server_close()
        assert client.post("/v1/ask", json=request).status_code == 502
    service.close()


# A server of its own process


@pytest.fixture(scope="module")
def server():
    command = [sys.executable, "-c", "import sys; from ecg_vlm.cli import main; sys.exit(main())"]
    environment = {**os.environ, "ECG_VLM_TOKEN": _TOKEN}
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", "--workers", "1", "--queue", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    (url,) = re.findall(r"http://[^#\s]+", process.stdout.readline())
    yield process, url
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_a_server_of_ours_behind_another_one(server, images):
    (remote,) = remote_models(f"{server[1]}v1", [], _TOKEN)
    service = Service(Models([remote], 2), 0, Limits())
    with TestClient(create_app(service, Access()), base_url=_URL) as near:
        assert [model["id"] for model in near.get("/v1/models").json()["data"]] == ["nano"]
        questions = ["What is the rhythm?", "Liegt Vorhofflimmern vor?"]
        (result,) = near.post("/v1/ask", json={"images": images, "questions": questions}).json()["results"]
    service.close()
    rhythm, yes = (answer["answer"] for answer in result["answers"])
    assert rhythm.endswith("trial fibrillation.") and yes == "Ja."
    assert result["measurements"]["qrs_ms"] and result["readable"] and result["no_scores_because"] == NO_SCORES
    with pytest.raises(InputError, match="401"):
        remote_models(f"{server[1]}v1", [], "wrong")


def test_the_official_client_and_ctrl_c(server, images, png):
    process, url = server
    client = openai.OpenAI(base_url=f"{url}v1", api_key=_TOKEN, max_retries=0)
    assert [model.id for model in client.models.list()] == ["nano"]
    content: list[Any] = [
        {"type": "text", "text": "What is the rhythm?"},
        {"type": "image_url", "image_url": {"url": images[0]["data"]}},
    ]
    messages: list[Any] = [{"role": "system", "content": "You read ECGs."}, {"role": "user", "content": content}]
    answer = client.chat.completions.create(model="nano", messages=messages, max_tokens=64)
    assert answer.choices[0].message.content == "Atrial fibrillation." and answer.choices[0].finish_reason == "stop"
    assert answer.usage and answer.usage.prompt_tokens > 0 and 0 < answer.usage.completion_tokens < 10
    chunks = list(
        client.chat.completions.create(
            model="nano", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Atrial fibrillation."
    assert chunks[-1].usage == answer.usage
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{url}v1", api_key="wrong", max_retries=0).models.list()
    content[1]["image_url"]["url"] = "http://example.com/ecg.png"
    with pytest.raises(openai.UnprocessableEntityError, match="addresses are not fetched"):
        client.chat.completions.create(model="nano", messages=messages)
    _check_ctrl_c(process, url, png)


def _check_ctrl_c(process, url, png):
    """Four new pages: two are worked on and answered, two wait and are refused; a fifth finds the queue full."""
    client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {_TOKEN}"}, timeout=120)
    statuses: dict[int, int] = {}

    def ask(number: int) -> None:
        image = {"data": data_uri(png + bytes([number]))}
        statuses[number] = client.post("v1/ask", json={"images": [image]}).status_code

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    lines = {"ecg_vlm_queue_running 2.0", "ecg_vlm_queue_waiting 2.0"}
    deadline = time.monotonic() + 20
    while not lines <= {*client.get("metrics").text.splitlines()}:
        assert time.monotonic() < deadline
    ask(4)
    assert statuses == {4: 429}
    process.send_signal(signal.SIGINT)
    for thread in threads:
        thread.join()
    assert sorted(statuses.values()) == [200, 200, 429, 503, 503]
    client.close()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors
