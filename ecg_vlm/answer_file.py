"""The answers about many pages in one file, a JSON object a line, that an interrupted `ecg-vlm ask` goes on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecg_vlm import __version__
from render.errors import InputError
from render.io import require_same_request

_START = b'{"schema_version": '


def request_of(
    model: str, questions: Sequence[str], *, scores: bool = False, as_is: bool = False, max_new_tokens: int = 128
) -> dict[str, Any]:
    """What the answers about a page depend on besides the page."""
    return {
        "model": model, "questions": list(questions), "scores": scores, "as_is": as_is, "max_new_tokens": max_new_tokens
    }  # fmt: skip


class AnswerFile:
    """JSON Lines of `PageAnswers.to_json`, written as the answers come.

    Args:
        request: of `request_of`, and whatever else the answers depend on; all lines of a file have the same one.
        resume: go on behind the last complete line.

    Raises:
        InputError: For a file that exists, where it is not to be resumed; for one of another request or another
            version; and for a line that is no answer.
    """

    def __init__(self, file: Path, request: Mapping[str, Any], *, resume: bool) -> None:
        self.file = file
        self._request = dict(request)
        self._pages: set[tuple[str, str, int]] = set()
        if file.is_dir():
            raise InputError(f"{file}: is a folder; name a file")
        if not file.exists():
            return
        if not resume:
            raise InputError(f"{file}: already exists; name a new file, or go on with --resume")
        with file.open("rb+") as stream:
            content = stream.read()
            complete = content[: content.rfind(b"\n") + 1]
            for number, line in enumerate(complete.splitlines(), 1):
                self._read(line, number)
            partial_line = content[len(complete) :]  # of a process that was killed
            if not partial_line.startswith(_START[: len(partial_line)]):
                raise InputError(f"{file}: its last line is no answer of ecg-vlm ask; name another file")
            stream.truncate(len(complete))

    def __len__(self) -> int:
        """How many pages were answered before."""
        return len(self._pages)

    def _read(self, line: bytes, number: int) -> None:
        try:
            page = json.loads(line)
            first = {"version": page["version"], **page["request"]}
            self._pages.add((page["image"], page["image_sha256"], page["page"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self.file}: line {number} is no answer of ecg-vlm ask; name another file") from error
        require_same_request(self.file, first, {"version": __version__, **self._request})

    def has(self, image: str, sha256: str, page: int) -> bool:
        """Whether a page of a picture was answered before."""
        return (image, sha256, page) in self._pages

    def has_file(self, file: Path, page: int | None) -> bool:
        """Whether a page of a file was answered before; None for any page. Reads the file only where its name was."""
        pages = {(sha256, number) for image, sha256, number in self._pages if image == str(file)}
        if not pages:
            return False
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return any(sha256 == digest and page in (None, number) for sha256, number in pages)

    def append(self, answers: Mapping[str, Any]) -> None:
        """Write the answers about a page, whole, at the end."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**answers, "request": self._request}) + "\n")
