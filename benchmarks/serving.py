"""`ecg-vlm serve` under load: `python benchmarks/serving.py [--clients 64] [--requests 640] [--kind page] [PAGE]`.

Starts a server of its own and asks it from many clients at the same time, each sending its next request when the one
before is answered. Kinds: "page", every page is new to the server and is read; "again", a page that it has read before;
"small", an answer to parse, without page and model.

Prints requests/s; CPU seconds of the server a request, which a busy machine hardly changes; seconds at p50, p95, p99;
the memory of the server's processes before, after each tenth of the requests, and after; and lost requests: any that
was not answered with 200, of those that were not asked to come back later (429), which is what a client then does.
Exits 1 where one was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
from PIL import Image, PngImagePlugin

_START = "from ecg_vlm.cli import main; import sys; sys.exit(main())"
_MIB = 1 << 20
_FIRST = 8  # requests that are not counted


def main() -> int:
    """Measure, print a table; 1 when a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", nargs="?", type=Path, help="picture of an ECG (default: a simulated page)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--kind", choices=("page", "again", "small"), default="page")
    parser.add_argument("--workers", type=int, help="reading processes of the server")
    parser.add_argument("--queue", type=int, default=128, help="requests that may wait (default 128)")
    a = parser.parse_args()
    options = ["--queue", str(a.queue), *(["--workers", str(a.workers)] if a.workers else [])]
    with running_server(options) as (process, url):
        first = (body("page", a.page, -number) for number in range(1, _FIRST + 1))
        asyncio.run(load(url, path_of("page"), first, _FIRST))  # what is loaded once is loaded, in all processes
        if a.kind == "again":
            asyncio.run(load(url, path_of(a.kind), [body(a.kind, a.page, 0)], 1))
        before, cpu = memory(process.pid), cpu_seconds(process.pid)
        track: list[float] = []  # memory after each tenth
        start = time.perf_counter()

        def on_answer(count: int) -> None:
            if count * 10 // a.requests > len(track):
                track.append(memory(process.pid))

        bodies = (body(a.kind, a.page, number) for number in range(a.requests))
        seconds, outcomes = asyncio.run(load(url, path_of(a.kind), bodies, a.clients, on_answer))
        wall = time.perf_counter() - start
        after, cpu = memory(process.pid), cpu_seconds(process.pid) - cpu
    losses = sum(count for outcome, count in outcomes.items() if outcome not in ("200", "429"))
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    print(f"{a.kind}: {a.requests} requests of {a.clients} clients in {wall:.1f} s: {a.requests / wall:.2f} requests/s")
    print(f"{cpu / a.requests:.3f} s of CPU a request")
    print(f"p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s, worst {max(seconds):.2f} s")
    print(f"memory {before:.0f} MiB before, by tenths {' '.join(f'{mib:.0f}' for mib in track)}, {after:.0f} MiB after")
    print(f"outcomes {dict(outcomes)}; {losses} lost")
    return 1 if losses else 0


@contextlib.contextmanager
def running_server(options: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port, and its address; it is ended with Ctrl-C."""
    command = [sys.executable, "-c", _START, "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        match = re.search(r"http://\S+", process.stdout.readline())
        if match is None:
            raise RuntimeError("the server does not start")
        yield process, match[0].rstrip("/")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def path_of(kind: str) -> str:
    """The address of a kind of request."""
    return "/v1/parse" if kind == "small" else "/v1/ask"


def body(kind: str, page: Path | None, number: int) -> dict[str, Any]:
    """The JSON of a request. number: of its page, which makes the file's bytes its own."""
    if kind == "small":
        return {"text": f"Sinus rhythm, {number % 200}/min. No left ventricular hypertrophy."}
    mark = PngImagePlugin.PngInfo()
    mark.add_text("number", str(number if kind == "page" else 0))
    stream = io.BytesIO()
    ecg_picture(page).save(stream, "PNG", pnginfo=mark)
    uri = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {"images": [{"name": "page.png", "data": uri}], "questions": ["What is the rhythm?"], "view": False}


@cache
def ecg_picture(page: Path | None) -> Image.Image:
    """A picture of a file, or a simulated page."""
    if page is not None:
        with Image.open(page) as image:
            return image.convert("RGB")
    from render.pages.page import draw
    from render.sources.registry import open_source

    return draw(open_source("simulated:AFIB").read(0)).to_pil()


async def load(
    url: str,
    path: str,
    bodies: Iterable[dict[str, Any]],
    clients: int,
    on_answer: Callable[[int], None] = lambda count: None,
) -> tuple[list[float], Counter[str]]:
    """Seconds from the first try to the answer of each request, and how the tries ended.

    Args:
        bodies: of the requests, each made when a client is free to send it.
        on_answer: called with the number of requests that have been answered.
    """
    line = iter(bodies)
    seconds: list[float] = []
    outcomes: Counter[str] = Counter()

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=3600) as connection:
            for content in line:
                start = time.perf_counter()
                while (wait := await one_try(connection, path, content, outcomes)) is not None:
                    await asyncio.sleep(wait)
                seconds.append(time.perf_counter() - start)
                on_answer(len(seconds))

    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, outcomes


async def one_try(
    connection: httpx.AsyncClient, path: str, content: dict[str, Any], outcomes: Counter[str]
) -> float | None:
    """Seconds after which to come back, as a full queue says; None where the request has ended."""
    try:
        response = await connection.post(path, json=content)
    except httpx.HTTPError as error:
        outcomes[type(error).__name__] += 1
        return None
    outcomes[str(response.status_code)] += 1
    return float(response.headers["retry-after"]) if response.status_code == 429 else None


def memory(pid: int) -> float:
    """MiB of a process and its children, what they share counted once."""
    return float(sum(each.memory_full_info().uss for each in _processes(pid))) / _MIB


def cpu_seconds(pid: int) -> float:
    """Of a process and its children, user and system."""
    return float(sum(sum(each.cpu_times()[:2]) for each in _processes(pid)))


def _processes(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of shared cores wait for each other
    sys.exit(main())
