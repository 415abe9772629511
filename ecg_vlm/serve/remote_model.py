"""A model behind another server with OpenAI's chat completions, such as vLLM: its answers, and our reading of the page.

It gives no probabilities of statements, so that nothing checks its answers against them, and the API says so.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from ecg_vlm.answers import QuestionAnswer
from ecg_vlm.serve.errors import BackendError, InvalidRequestError
from render.errors import InputError

_CONNECT_S, _ANSWER_S = 10.0, 120.0
_MOST_LINE = 1 << 20  # bytes of one event
NO_SCORES = "the model is behind another server, which gives no probabilities of statements"


@dataclass(frozen=True)
class RemoteAnswer(QuestionAnswer):
    """An answer with the tokens that the server counted, or {}."""

    usage: dict[str, int] = field(default_factory=dict)


class RemoteModel:
    """One model of a server.

    Args:
        name: of the model there.
        url: of the server, up to and with /v1.
        key: that it asks for, or "".
    """

    def __init__(self, name: str, url: str, key: str) -> None:
        self.name = name
        self._client = _client(url, key)

    def prefill(self, images: Sequence[Image.Image], /) -> str:
        """The only image as a data URI."""
        stream = io.BytesIO()
        images[0].save(stream, "PNG", compress_level=1)
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"

    def ask(self, image: str, questions: Sequence[str], /, *, max_new_tokens: int) -> list[str]:
        """Answers, one after the other. Raises `BackendError`."""
        return [self.answer(image, question, max_new_tokens=max_new_tokens).text for question in questions]

    def answer(
        self,
        prefill: str,
        question: str,
        /,
        *,
        max_new_tokens: int,
        history: Sequence[tuple[str, str]] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> QuestionAnswer:
        """The server's answer, in pieces too. Raises `BackendError`."""
        request = {
            "model": self.name,
            "messages": _messages(prefill, question, history),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        text = ""
        usage: dict[str, Any] = {}
        try:
            with self._client.stream("POST", "chat/completions", json=request) as response:
                _require_success(response)
                for event in _events(response):
                    usage = event.get("usage") or usage
                    for choice in event.get("choices", ())[:1]:
                        piece = choice["delta"].get("content") or ""
                        text += piece
                        if on_text and piece:
                            on_text(piece)
        except httpx.HTTPError as error:
            raise BackendError(f"the model's server does not answer ({type(error).__name__})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError("the model's server answers in another form than OpenAI's") from error
        counts: dict[str, int] = {
            key: int(usage[key]) for key in ("prompt_tokens", "completion_tokens") if key in usage
        }
        return RemoteAnswer(question, text.strip(), usage=counts)

    def score(self, image: str, /) -> dict[str, float]:
        """Raises `InvalidRequestError`."""
        raise InvalidRequestError(NO_SCORES)


def remote_models(url: str, names: Sequence[str], key: str) -> list[RemoteModel]:
    """The named models of a server, or its first.

    Raises:
        InputError: Where the server cannot be reached or has no model.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"--backend openai:{url}: an address such as openai:http://127.0.0.1:8001/v1 is needed")
    if not names:
        try:
            with _client(url, key) as client:
                names = [client.get("models").raise_for_status().json()["data"][0]["id"]]
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"--backend openai:{url}: {reason}; start the server, or name its --model") from error
    return [RemoteModel(name, url, key) for name in names]


def _messages(image: str, question: str, history: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The turns in OpenAI's shape, the image in the first of them."""
    messages: list[dict[str, Any]] = []
    for earlier, answer in history:
        messages += [{"role": "user", "content": earlier}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": question})
    text = {"type": "text", "text": messages[0]["content"]}
    messages[0]["content"] = [{"type": "image_url", "image_url": {"url": image}}, text]
    return messages


def _client(url: str, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S))


def _require_success(response: httpx.Response) -> None:
    if not response.is_success:
        raise BackendError(f"the model's server refuses the question (status {response.status_code})")


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The objects of its server-sent events."""
    for line in response.iter_lines():
        if len(line) > _MOST_LINE:
            raise ValueError("a line is too long")
        if line.startswith("data:") and (content := line[5:].strip()) != "[DONE]":
            yield json.loads(content)
