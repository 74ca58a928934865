"""`vptkit serve --ui`: the page at /ui/, and the state of the server that it shows.

The page is plain HTML, CSS and JavaScript (`vptkit.runtime.web.page_files`). It asks nobody but this server, which its
content security policy sees to.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from vptkit.runtime.serving.http_error import HttpError
from vptkit.runtime.web.page_files import SERVER_PAGE, page_file

if TYPE_CHECKING:
    from starlette.requests import Request

    from .request_log import RequestRecord
    from .server_state import ServerState

__all__ = ["PLACE", "page", "state_of", "to_page"]

PLACE = "/ui/"
_FIRST = "index.html"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


async def page(state: ServerState, request: Request, record: RequestRecord) -> Response:
    """A file of the page: `GET /ui/{file}`.

    Raises:
        HttpError: 404: no such file.
    """
    asked = request.path_params.get("file", "")
    name = asked or _FIRST
    if name not in SERVER_PAGE or asked == _FIRST:
        raise HttpError(404, f"no file {name[:60]!r} in {PLACE}")
    kind = _TYPES[PurePosixPath(name).suffix]
    return Response(page_file(name, SERVER_PAGE), media_type=kind, headers=_HEADERS)


async def to_page(state: ServerState, request: Request, record: RequestRecord) -> Response:
    """Where a browser begins: `GET /`."""
    return RedirectResponse("ui/", headers=_HEADERS)


async def state_of(state: ServerState, request: Request, record: RequestRecord) -> Response:
    """Models, adapters, queues, and the last minute's requests: `GET /ui/state`."""
    models: list[dict[str, Any]] = [
        {
            "name": model.name,
            "layout": model.bundle.layout,
            "adapters": list(model.bundle.adapter_names),
            "backend": model.session.backend,
            "held": model.queue.held,
            "size": model.queue.size,
        }
        for model in state.store
    ]
    document = {"models": models, "ready": not state.draining, "editable": state.editor is not None}
    return JSONResponse(document | state.recent.summary())
