"""The routes of a server: an ASGI application of Starlette around a model store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vptkit import __version__
from vptkit.runtime.serving.http_error import HttpError

from .answer_routes import found_model, infer, predict
from .bank_routes import delete_adapter, put_adapter
from .endpoint import Endpoint, no_route
from .page_routes import PLACE, page, state_of, to_page
from .server_state import ServerState

if TYPE_CHECKING:
    from starlette.requests import Request

    from .request_log import RequestRecord
    from .server_state import Handler

__all__ = ["Application"]

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"


# Of the page itself everybody gets the files: what it asks for has its own rule.
_PAGE: tuple[tuple[str, str, Handler, str], ...] = (
    ("/", "GET", to_page, "anyone"),
    (PLACE, "GET", page, "anyone"),
    (PLACE + "state", "GET", state_of, "user"),
    (PLACE + "{file}", "GET", page, "anyone"),
)


class Application(ServerState):
    """What the routes share, and the routes."""

    __slots__ = ()

    def asgi(self) -> Starlette:
        """The application that an ASGI server runs."""
        return Starlette(
            routes=[
                Route(path, Endpoint(self, handler, who).answer, methods=[method])
                for path, method, handler, who in [*_routes(), *(_PAGE if self.page else ())]
            ],
            exception_handlers={HTTPException: no_route},
        )


def _routes() -> list[tuple[str, str, Handler, str]]:
    """Path, method, what answers, and who may ask: anyone, a user, an admin."""
    routes: list[tuple[str, str, Handler, str]] = [
        ("/v2/health/live", "GET", _live, "anyone"),
        ("/v2/health/ready", "GET", _ready, "anyone"),
        ("/v2", "GET", _server, "user"),
        ("/v2/models", "GET", _models, "user"),
        ("/v2/repository/index", "POST", _index, "user"),
        ("/predict", "POST", predict, "user"),
        ("/metrics", "GET", _metrics, "user"),
        ("/adapters/{name}", "PUT", put_adapter, "admin"),
        ("/adapters/{name}", "DELETE", delete_adapter, "admin"),
    ]
    for place in (_MODEL, _VERSION):
        routes += [
            (place, "GET", _model, "user"),
            (place + "/ready", "GET", _model_ready, "user"),
            (place + "/infer", "POST", infer, "user"),
        ]
    return routes


async def _live(state: ServerState, request: Request, record: RequestRecord) -> Response:
    return JSONResponse({"live": True})


async def _ready(state: ServerState, request: Request, record: RequestRecord) -> Response:
    if state.draining:
        raise HttpError(503, "the server is being shut down", retry_after=1)
    return JSONResponse({"ready": True})


async def _server(state: ServerState, request: Request, record: RequestRecord) -> Response:
    extensions = ["binary_tensor_data", "model_repository"]
    return JSONResponse({"name": "vptkit", "version": __version__, "extensions": extensions})


async def _models(state: ServerState, request: Request, record: RequestRecord) -> Response:
    return JSONResponse({"models": state.store.listed()})


async def _index(state: ServerState, request: Request, record: RequestRecord) -> Response:
    entries = [
        {"name": one["name"], "version": "1", "state": one["state"], "parent": one["parent"]}
        for one in state.store.listed()
    ]
    return JSONResponse(entries)


async def _model(state: ServerState, request: Request, record: RequestRecord) -> Response:
    model, adapter = found_model(state, request, record)
    return JSONResponse(model.metadata(adapter))


async def _model_ready(state: ServerState, request: Request, record: RequestRecord) -> Response:
    found_model(state, request, record)
    return await _ready(state, request, record)


async def _metrics(state: ServerState, request: Request, record: RequestRecord) -> Response:
    return Response(state.metrics.text(state.store), media_type=state.metrics.content_type)
