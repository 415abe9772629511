"""`ecg-vlm serve` from its arguments to the last request."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import webbrowser
from dataclasses import replace

import torch
import uvicorn

from ecg_vlm.cli.progress import print_note, waiting
from ecg_vlm.serve.app import create_app
from ecg_vlm.serve.models import Models, load_readers
from ecg_vlm.serve.remote_model import remote_models
from ecg_vlm.serve.security import LOCAL_NAMES, Access
from ecg_vlm.serve.service import Limits, Service
from ecg_vlm.serve.work_queue import WorkQueue
from render.errors import InputError

_MOST_PROCESSES = 4
_REMOTE_THREADS = 16  # requests at a server that batches them itself
_KEEP_ALIVE_S = 15
_MOST_CONNECTIONS = 900  # a process may usually have 1024 files open
_OPENAI = "openai:"


def serve(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM: what is worked on is finished, the rest is refused.

    Raises:
        InputError: For a model that is not there, and an address that is not free.
    """
    a = arguments
    listener = _listen(a.host, a.port)
    access = access_for(a.host, a.token or os.environ.get("ECG_VLM_TOKEN", ""), a.names)
    processes = a.workers or min(_core_count(), _MOST_PROCESSES)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, _core_count() - processes))  # threads that share a core wait for each other
    models = _models(a.models, a.backend)
    service = Service(models, processes, replace(Limits(), waiting=a.queue))
    url = _url(a.host, listener.getsockname()[1], access.token)
    print(f"ecg-vlm: {url} (Ctrl-C ends it)", flush=True)
    if access.token and a.host not in LOCAL_NAMES:
        print_note(
            "ecg-vlm: requests travel as plain HTTP; put a proxy with TLS before it, or use a network of your own"
        )
    if a.open:
        webbrowser.open(url)
    try:
        Server(create_app(service, access), service.queue, service.limits.seconds).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn has finished, and raises the signal again
    finally:
        service.close()


class Server(uvicorn.Server):
    """uvicorn, that refuses what waits when it is stopped."""

    def __init__(self, app: object, queue: WorkQueue, seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_keep_alive=_KEEP_ALIVE_S,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=round(seconds),
            )
        )
        self._queue = queue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what waits, then let the rest finish."""
        self._queue.close()
        await super().shutdown(sockets)


def access_for(host: str, token: str, names: list[str]) -> Access:
    """Who may ask at this address: on this machine anyone who names it as such, elsewhere with a token."""
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise InputError("--token: only ASCII characters without spaces can be sent; choose another")
    own = frozenset(name.lower() for name in names)
    if host in LOCAL_NAMES:
        return Access(token, LOCAL_NAMES | own)
    machine = socket.gethostname().lower()
    own |= {host.lower(), machine, f"{machine}.local"}
    return Access(token or secrets.token_urlsafe(24), LOCAL_NAMES | own, any_address=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise InputError(f"{host}:{port}: {error.strerror or error}; choose another --host or --port") from error


def _models(names: list[str] | None, backend: str | None) -> Models:
    if backend is None:
        with waiting("loading the model"):
            return Models(load_readers(names or ["nano"]))
    if not backend.startswith(_OPENAI):
        raise InputError(f"--backend {backend}: only openai:URL is known, such as openai:http://127.0.0.1:8001/v1")
    url = backend.removeprefix(_OPENAI)
    return Models(remote_models(url, names or [], os.environ.get("OPENAI_API_KEY", "")), _REMOTE_THREADS)


def _core_count() -> int:
    """Of those that this process may use; a system that cannot tell has all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _url(host: str, port: int, token: str) -> str:
    name = f"[{host}]" if ":" in host else {"0.0.0.0": socket.gethostname()}.get(host, host)
    return f"http://{name}:{port}/" + (f"#token={token}" if token else "")
