"""What every request goes through: who asks, how it ended, counted and logged."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from vptkit.errors import OutputError, VptkitError
from vptkit.runtime.serving.http_error import HttpError
from vptkit.shown_text import printable, tell

from .request_log import RequestRecord

if TYPE_CHECKING:
    from starlette.requests import Request

    from .server_state import Handler, ServerState

__all__ = ["Endpoint", "no_route"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route: who may ask, and how its end is told."""

    state: ServerState
    handler: Handler
    who: str

    async def answer(self, request: Request) -> Response:
        """Answer a request; what goes wrong is an answer, too."""
        state, begun = self.state, time.monotonic()
        client = request.client.host if request.client else ""
        record = RequestRecord(request.method, request.url.path, client)
        counted = self.who != "anyone"
        state.active += counted
        try:
            response, message = await self._tried(request, record)
        finally:
            state.active -= counted
        seconds = time.monotonic() - begun
        state.metrics.request(record.model, response.status_code, seconds, record.images)
        state.recent.add(seconds, record.images, response.status_code)
        state.log.write(record, response.status_code, seconds, message)
        return response

    async def _tried(self, request: Request, record: RequestRecord) -> tuple[Response, str | None]:
        try:
            self._let_in(request)
            return await self.handler(self.state, request, record), None
        except HttpError as error:
            return _refusal(error, close=self.state.draining), str(error)
        except ClientDisconnect:
            return Response(status_code=499), "the client has left"
        except OutputError as error:
            return _refusal(HttpError(507, str(error))), str(error)
        except Exception as error:
            tell(
                f"warning: {request.method} {request.url.path[:200]}: {type(error).__name__}: {error}"
            )
            return _refusal(HttpError(500, _unexpected(error))), str(error)

    def _let_in(self, request: Request) -> None:
        """Let a request pass that may be answered.

        Raises:
            HttpError: 401, 403: of `Access`; 503: no further work is taken.
        """
        if self.who == "admin":
            self.state.access.require_admin(request.headers)
        elif self.who == "user":
            self.state.access.require_user(request.headers)
        if self.state.draining and request.method != "GET":
            raise HttpError(503, "the server is being shut down", retry_after=1)


def _unexpected(error: Exception) -> str:
    if isinstance(error, VptkitError):
        return str(error)
    return f"unexpected {type(error).__name__}: this is a defect; the server's output has more"


def _refusal(error: HttpError, *, close: bool = False) -> Response:
    """The answer; the connection ends where a body is not waited for, or the server ends."""
    headers = {"Connection": "close"} if close or error.status in (408, 413) else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": printable(str(error))}, error.status, headers)


async def no_route(request: Request, error: Exception) -> Response:
    """What Starlette refuses itself: an unknown path, or another method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = getattr(error, "headers", None)
    known = "expected one of /v2, /v2/models/NAME/infer, /predict, /metrics, /adapters/NAME"
    texts = {404: f"no such path; {known}", 405: f"{request.method} is not answered here"}
    text = texts.get(status, str(error))
    return JSONResponse({"error": text}, status, headers)
