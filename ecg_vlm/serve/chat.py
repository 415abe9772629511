"""OpenAI's chat completions: the official `openai` client works unchanged.

The last text of the user is the question, about the last image; turns since that image are its history, which nano does
not see. System messages are not seen. Warnings stand below the answer, so that no client misses them.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ecg_vlm.page_answers import PageModel
from ecg_vlm.serve.errors import ApiError, InvalidRequestError
from ecg_vlm.serve.jobs import KEEP_ALIVE, Event
from ecg_vlm.serve.models import token_counts
from ecg_vlm.serve.schema import (
    MOST_ANSWER_CHARACTERS,
    MOST_QUESTION_CHARACTERS,
    MOST_QUESTIONS,
    MOST_TOKENS,
    AnswerText,
    AskRequest,
    Upload,
)

_MOST_MESSAGES = 200


class _Open(BaseModel):
    """OpenAI's clients send many more keys; they are ignored."""

    model_config = ConfigDict(extra="ignore")


class ImageUrl(_Open):
    """url: a data URI; addresses are not fetched."""

    url: str


class Part(_Open):
    """A piece of a message."""

    type: str
    text: str = ""
    image_url: ImageUrl | None = None


class ChatMessage(_Open):
    """One turn of the conversation."""

    role: str
    content: str | list[Part] | None = None

    @property
    def parts(self) -> list[Part]:
        """The content, a bare text as one part."""
        if isinstance(self.content, str):
            return [Part(type="text", text=self.content)]
        return self.content or []

    @property
    def text(self) -> str:
        """All text of it."""
        return "\n".join(part.text for part in self.parts if part.type == "text").strip()

    @property
    def images(self) -> list[str]:
        """The addresses of its images."""
        return [part.image_url.url for part in self.parts if part.type == "image_url" and part.image_url]


class StreamOptions(_Open):
    """include_usage: a last chunk with the usage."""

    include_usage: bool = False


class ChatRequest(_Open):
    """A conversation with an image in it."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1, max_length=_MOST_MESSAGES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


def ask_request(request: ChatRequest, model: PageModel) -> AskRequest:
    """The same as a request of /v1/ask.

    Raises:
        InvalidRequestError: Without a question, or without an image.
    """
    users = [place for place, message in enumerate(request.messages) if message.role == "user"]
    places = [place for place in users if request.messages[place].images]
    question = request.messages[users[-1]].text if users else ""
    if not places:
        raise InvalidRequestError("messages: there is no image; add a part of type image_url with a data URI")
    if not 0 < len(question) <= MOST_QUESTION_CHARACTERS:
        raise InvalidRequestError(
            f"messages: the user's last message must hold a question of at most {MOST_QUESTION_CHARACTERS} characters"
        )
    most = request.max_completion_tokens or request.max_tokens or AskRequest.model_fields["max_new_tokens"].default
    return AskRequest(
        images=[Upload(name="image", data=request.messages[places[-1]].images[-1])],
        history=_history(request.messages[places[-1] : users[-1]]),
        questions=[question],
        model=model.name,
        scores=False,
        view=False,
        max_new_tokens=min(most, MOST_TOKENS),
    )


def _history(messages: Sequence[ChatMessage]) -> list[AnswerText]:
    """Questions of the user with the assistant's answers, of those that have both; the last few."""
    turns = [
        AnswerText(question=question.text[:MOST_ANSWER_CHARACTERS], answer=answer.text[:MOST_ANSWER_CHARACTERS])
        for question, answer in pairwise(messages)
        if (question.role, answer.role) == ("user", "assistant")
    ]
    return turns[-MOST_QUESTIONS:]


class ChatAnswer:
    """One answer in OpenAI's shape, whole or in chunks.

    Args:
        live: whether the text is sent while it is generated. Nano's may still be made consistent with its scores, and a
            chunk cannot be taken back: it is sent when it stands.
    """

    def __init__(self, request: AskRequest, model: PageModel, *, live: bool) -> None:
        self._request = request
        self._model = model
        self._live = live
        self._text = ""
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model.name}
        self._result: dict[str, Any] = {}

    async def whole(self, events: AsyncIterator[Event]) -> dict[str, Any]:
        """The completion. Raises `ApiError`."""
        async for piece in self._pieces(events):
            self._text += piece
        message = {"role": "assistant", "content": self._text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason()}
        return {
            "object": "chat.completion", **self._head, "choices": [choice], "usage": self._usage(),
            "ecg": self._result,
        }  # fmt: skip

    async def chunks(self, events: AsyncIterator[Event], *, with_usage: bool) -> AsyncIterator[bytes]:
        """Server-sent events, the last one [DONE]."""
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            async for piece in self._pieces(events):
                self._text += piece
                yield self._chunk({"content": piece}) if piece else b": waiting\n\n"
            yield self._chunk({}, self._finish_reason())
            if with_usage:
                yield _sse({"object": "chat.completion.chunk", **self._head, "choices": [], "usage": self._usage()})
        except ApiError as error:
            yield _sse(error.to_json())
        yield b"data: [DONE]\n\n"

    async def _pieces(self, events: AsyncIterator[Event]) -> AsyncIterator[str]:
        """The text, piece by piece; "" says that nothing has happened for a while."""
        async for name, content in events:
            if (name, content) == KEEP_ALIVE:
                yield ""
            elif name == "delta" and self._live:
                yield content["text"]
            elif name == "answer" and not self._live:
                yield content["answer"]
            elif name == "result":
                self._result = {key: value for key, value in content.items() if key != "result"}
                if content["warnings"]:
                    yield "\n\n" + "\n".join(f"Warning: {warning}." for warning in content["warnings"])

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _sse({"object": "chat.completion.chunk", **self._head, "choices": [choice]})

    def _counts(self) -> tuple[int, int]:
        answer = self._result["answers"][0]
        if usage := answer.get("usage"):
            return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        return token_counts(self._model, self._request.questions[0], answer.get("original") or answer["answer"])

    def _usage(self) -> dict[str, int]:
        prompt, completion = self._counts()
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _finish_reason(self) -> str:
        return "length" if self._counts()[1] >= self._request.max_new_tokens else "stop"


def _sse(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()
