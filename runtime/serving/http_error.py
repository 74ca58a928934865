"""An answer that is an error: a status, and a message that says what was expected."""

from __future__ import annotations

from vptkit.errors import VptkitError

__all__ = ["HttpError"]


class HttpError(VptkitError):
    """What a client is told instead of an answer.

    Attributes:
        status: of HTTP.
        retry_after: seconds after which the same request may be answered; None where it will not be.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
