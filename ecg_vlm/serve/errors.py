"""What a client is told when it does not get what it asked for: one line, a type, a status."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A request that is not answered. The message is one plain line without paths of this machine."""

    status = 500
    type = "internal"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.retry_after = retry_after

    def to_json(self) -> dict[str, Any]:
        """OpenAI's shape of an error."""
        return {"error": {"message": str(self), "type": self.type, "code": self.status}}


class InvalidRequestError(ApiError):
    """The client can mend it."""

    status, type = 422, "invalid_request"


class BadRequestError(InvalidRequestError):
    """Not what HTTP or JSON allow."""

    status = 400


class UnauthorizedError(ApiError):
    """No token, or a wrong one."""

    status, type = 401, "unauthorized"


class ForbiddenError(UnauthorizedError):
    """From another site, or for another name."""

    status = 403


class NotFoundError(InvalidRequestError):
    """No such address or model."""

    status = 404


class TooLargeError(ApiError):
    """More than the server takes."""

    status, type = 413, "too_large"


class ContentTypeError(InvalidRequestError):
    """Only JSON is read: a form of another site cannot send it."""

    status = 415


class QueueFullError(ApiError):
    """Come back later."""

    status, type = 429, "queue_full"


class ClientGoneError(ApiError):
    """Nobody reads the answer; for /metrics. The status is nginx's."""

    status = 499


class ClosingError(ApiError):
    """The server is being stopped."""

    status, type = 503, "queue_full"


class MachineError(ApiError):
    """The server's machine lacks memory, or something else that the work needs."""

    status = 503


class DeadlineError(ApiError):
    """The work took longer than is allowed."""

    status, type = 504, "timeout"


class BackendError(ApiError):
    """The server behind this one does not answer as it should."""

    status = 502
