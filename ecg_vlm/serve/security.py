"""The server's door, outside of all routes: who may ask, from where, how much; and what every answer's head says.

- Host: a page of another site can make its own name point to this machine (DNS rebinding); the name gives it away.
- Origin and content type: a page of another site can send a form or a plain text here (CSRF), but neither JSON nor
  its own origin's name as ours.
- Token: compared in constant time. The page itself is public, what it asks for is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ecg_vlm.serve.errors import (
    ApiError,
    BadRequestError,
    ClientGoneError,
    ContentTypeError,
    DeadlineError,
    ForbiddenError,
    QueueFullError,
    TooLargeError,
    UnauthorizedError,
)
from ecg_vlm.serve.metrics import Metrics
from ecg_vlm.serve.service import Limits

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_PUBLIC = re.compile(r"/|/page/[^/]+|/health|/docs|/docs\.css|/openapi\.json|/favicon\.ico")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:\d{1,5})?")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_ENCODED_HEADERS = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
_log = logging.getLogger("ecg_vlm.serve")


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: "" where none is needed.
        names: of this server, as a Host header gives them without the port.
        any_address: whether a Host header may also be any IP address: no name, so no rebinding.
    """

    token: str = field(default="", repr=False)
    names: frozenset[str] = LOCAL_NAMES
    any_address: bool = False


class Door:
    """The ASGI application that stands before another: checks, limits, headers, and one line for every error."""

    def __init__(self, inside: ASGIApp, access: Access, limits: Limits, metrics: Metrics) -> None:
        self._inside = inside
        self._access = access
        self._limits = limits
        self._metrics = metrics
        self._bytes = 0  # of all bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it in."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._inside(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, status, size, is_unread = time.perf_counter(), 0, 0, True
        parts = _parts(receive)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _ENCODED_HEADERS if pair[0] not in own)]
            async with asyncio.timeout(self._limits.send_seconds):
                await send(message)

        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            check_access(self._access, scope["method"], scope["path"], headers)
            _check_length(headers, self._limits.body_bytes)
            body = await self._read(parts)
            size, is_unread = len(body), False
            _require_text(body)
            messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
            del body  # the request that is parsed from it is enough to keep

            async def replay() -> Message:
                return messages.pop() if messages else await receive()

            await self._inside(scope, replay, send_with_headers)
        except ApiError as error:
            if is_unread and not isinstance(error, DeadlineError):
                await _discard(parts, self._limits)  # a client that still sends would not see the answer
            await _send_error(send_with_headers, error)
        except TimeoutError:
            status = ClientGoneError.status  # it does not read; uvicorn closes the connection
        except Exception:
            _log.exception("a request failed")
            if not status:
                await _send_error(send_with_headers, ApiError("internal error; the log of the server has the details"))
        finally:
            self._bytes -= size
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.count(route, status, time.perf_counter() - start)

    async def _read(self, body: AsyncIterator[bytes]) -> bytes:
        """The whole body. It counts in `_bytes` from here on."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.upload_seconds):
                async for part in body:
                    parts.append(part)
                    size += len(part)
                    self._bytes += len(part)
                    if size > self._limits.body_bytes:
                        raise _too_large(self._limits.body_bytes)
                    if self._bytes > self._limits.bodies_bytes:
                        raise QueueFullError(
                            "too many large requests at the same time; try again in 5 s", retry_after=5
                        )
        except BaseException as error:
            self._bytes -= size
            if isinstance(error, TimeoutError):
                raise DeadlineError("the body of the request did not arrive in time; send a smaller picture") from error
            raise
        return b"".join(parts)


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        yield message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


async def _discard(body: AsyncIterator[bytes], limits: Limits) -> None:
    """Read the rest of a body that is not wanted, if there is one, as far as a mistake may be long."""
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limits.upload_seconds):
            async for part in body:
                size += len(part)
                if size > 8 * limits.body_bytes:
                    return


async def _send_error(send: Send, error: ApiError) -> None:
    headers = [(b"content-type", b"application/json")]
    if error.retry_after:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error.to_json()).encode()})


def check_access(access: Access, method: str, path: str, headers: Mapping[str, str]) -> None:
    """Raise an `ApiError` for a request that comes for another name, from another site, or without the token."""
    host = headers.get("host", "")
    match = _HOST.fullmatch(host)
    if not match:
        raise BadRequestError("the Host header is missing or damaged")
    name = match[1].lower().rstrip(".")
    if name not in access.names and not (access.any_address and _is_address(name)):
        raise ForbiddenError("this server is not known by that name; start it with --allowed-host NAME")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        raise ForbiddenError("requests from another site are refused")
    is_public = method in ("GET", "HEAD") and bool(_PUBLIC.fullmatch(path))
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_public:
        raise ForbiddenError("requests from another site are refused")
    if method not in ("GET", "HEAD") and headers.get("content-type", "").partition(";")[0].strip().lower() != (
        "application/json"
    ):
        raise ContentTypeError("send JSON, with the header Content-Type: application/json")
    if access.token and not is_public:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        credential = token.strip().encode() if scheme.lower() == "bearer" else b""
        if not hmac.compare_digest(credential, access.token.encode()):
            raise UnauthorizedError(
                "a token is needed: open the address that the server printed, or send it as a bearer"
            )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _check_length(headers: Mapping[str, str], most: int) -> None:
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        raise BadRequestError("the Content-Length header is damaged")
    if len(length) > 18 or int(length) > most:
        raise _too_large(most)


def _require_text(body: bytes) -> None:
    """JSON may hold halves of characters, which no tokenizer and no file takes. Other faults are the routes'."""
    if _HALF.search(body):
        try:
            json.dumps(json.loads(body), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise BadRequestError(
                "the body holds halves of characters (\\ud800 to \\udfff); send whole ones"
            ) from error
        except (ValueError, RecursionError):
            pass


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"the request has more than {most >> 20} MiB; scale the image down first")
