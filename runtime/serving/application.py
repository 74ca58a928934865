"""The routes of a server: an ASGI application of Starlette around a model store.

What every request goes through is in `_Endpoint`: who asks, how it ended, counted and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vptkit import __version__
from vptkit.errors import OutputError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.shown_text import printable, tell

from .http_error import HttpError
from .image_requests import (
    UploadedImage,
    adapters_of,
    best_labels,
    decode,
    given_labels,
    images_of,
    outputs_of,
    require_adapter,
)
from .inference_protocol import HEADER_LENGTH, parse_inference, render_inference
from .request_limits import require_type
from .request_log import RequestRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle

    from .authentication import Access
    from .inference_protocol import InferenceRequest
    from .metrics import Metrics
    from .model_store import ModelStore
    from .request_limits import BodyLimits
    from .request_log import RequestLog
    from .served_model import ServedModel

    Handler = Callable[[Request, RequestRecord], Awaitable[Response]]
    Images = NDArray[np.uint8] | list[UploadedImage]

__all__ = ["Application", "BankEditor"]

_INFER = ("application/json", "application/octet-stream")
# What curl says of --data-binary, too
_RAW = ("image/*", "application/octet-stream", "application/x-www-form-urlencoded")
_FORM = "multipart/form-data"
_ADAPTER = ("application/octet-stream", "application/x-www-form-urlencoded")
_MOST_LABELS, _MOST_FILES = 1000, 256
_SMALL = 1 << 16  # bytes of JSON that are parsed at once; others by a thread


class BankEditor(Protocol):
    """What `vptkit bank add`, `replace` and `remove` call."""

    def add(self, bundle: str | Path, adapter: str | Path, *, name: str | None = None) -> str:
        """Add an adapter."""

    def replace(self, bundle: str | Path, adapter: str | Path, *, name: str | None = None) -> str:
        """Put another adapter in the place of one."""

    def remove(self, bundle: str | Path, name: str) -> None:
        """Remove an adapter."""


@dataclass(slots=True, eq=False, kw_only=True)
class Application:
    """What the routes share.

    Attributes:
        store: the models.
        access: who may ask.
        limits: of bodies.
        metrics, log: told of each request.
        seconds: that a request may take behind its body.
        decoders: threads that decode.
        editor: changes banks; None where nobody may.
        draining: no further work is taken.
        active: requests that are on their way, those of probes left out.
    """

    store: ModelStore
    access: Access
    limits: BodyLimits
    metrics: Metrics
    log: RequestLog
    seconds: float = 10.0
    decoders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    editor: BankEditor | None = None
    draining: bool = False
    active: int = 0

    def asgi(self) -> Starlette:
        """The application that an ASGI server runs."""
        get, post, put = ["GET"], ["POST"], ["PUT"]
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        table: list[tuple[str, list[str], Handler, str]] = [
            ("/v2/health/live", get, self._live, "anyone"),
            ("/v2/health/ready", get, self._ready, "anyone"),
            ("/v2", get, self._server, "user"),
            ("/v2/models", get, self._models, "user"),
            ("/v2/repository/index", post, self._index, "user"),
            ("/predict", post, self._predict, "user"),
            ("/metrics", get, self._metrics, "user"),
            ("/adapters/{name}", put, self._put_adapter, "admin"),
            ("/adapters/{name}", ["DELETE"], self._delete_adapter, "admin"),
        ]
        for place in (model, version):
            table += [
                (place, get, self._model, "user"),
                (place + "/ready", get, self._model_ready, "user"),
                (place + "/infer", post, self._infer, "user"),
            ]
        return Starlette(
            routes=[
                Route(path, _Endpoint(self, handler, who).answer, methods=methods)
                for path, methods, handler, who in table
            ],
            exception_handlers={HTTPException: _no_route},
        )

    async def _live(self, request: Request, record: RequestRecord) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request, record: RequestRecord) -> Response:
        if self.draining:
            raise HttpError(503, "the server is being shut down", retry_after=1)
        return JSONResponse({"ready": True})

    async def _server(self, request: Request, record: RequestRecord) -> Response:
        extensions = ["binary_tensor_data", "model_repository"]
        return JSONResponse({"name": "vptkit", "version": __version__, "extensions": extensions})

    async def _models(self, request: Request, record: RequestRecord) -> Response:
        return JSONResponse({"models": self.store.listed()})

    async def _index(self, request: Request, record: RequestRecord) -> Response:
        entries = [
            {"name": one["name"], "version": "1", "state": one["state"], "parent": one["parent"]}
            for one in self.store.listed()
        ]
        return JSONResponse(entries)

    async def _model(self, request: Request, record: RequestRecord) -> Response:
        model, adapter = self._found(request, record)
        return JSONResponse(model.metadata(adapter))

    async def _model_ready(self, request: Request, record: RequestRecord) -> Response:
        self._found(request, record)
        return await self._ready(request, record)

    async def _metrics(self, request: Request, record: RequestRecord) -> Response:
        return Response(self.metrics.text(self.store), media_type=self.metrics.content_type)

    async def _infer(self, request: Request, record: RequestRecord) -> Response:
        model, adapter = self._found(request, record)
        require_type(request.headers, _INFER)
        length = request.headers.get(HEADER_LENGTH)
        async with self.limits.body(request.stream(), request.headers) as body:
            record.size = len(body)
            wanted = await self._parsed(body, length)
            record.id = wanted.id
            images = images_of(wanted, model.bundle.preprocess)
            seconds = _seconds(wanted, self.seconds)
            answers, names, bundle = await self._ask(
                model,
                images,
                record,
                seconds,
                lambda b: adapters_of(wanted, b, len(images), adapter),
            )
        found = outputs_of(answers, names, bundle)
        asked = wanted.outputs or dict.fromkeys(found, wanted.binary)
        if unknown := [name for name in asked if name not in found]:
            raise HttpError(400, f"no output {unknown[0][:60]!r}, expected {', '.join(found)}")
        head = {"model_name": request.path_params["model"], "model_version": "1"}
        if wanted.id is not None:
            head["id"] = wanted.id
        content, size = render_inference(head, [(found[name], asked[name]) for name in asked])
        if size is None:
            return Response(content, media_type="application/json")
        headers = {HEADER_LENGTH: str(size)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def _predict(self, request: Request, record: RequestRecord) -> Response:
        query = request.query_params
        adapter = query.get("adapter")
        model, fixed = self.store.only(query.get("model"), adapter)
        record.model = model.name
        adapter = fixed if adapter is None else adapter
        top_k = _top_k(query.get("top_k", "5"))
        kind = require_type(request.headers, (*_RAW, _FORM))
        async with self.limits.body(request.stream(), request.headers) as body:
            record.size = len(body)
            images = await _files(request, body) if kind == _FORM else [UploadedImage("body", body)]
            answers = await self._answers(
                model,
                images,
                record,
                self.seconds,
                lambda b: [require_adapter(b, adapter)] * len(images),
            )
        return self._predictions(model, images, answers, top_k)

    def _predictions(
        self, model: ServedModel, images: list[UploadedImage], answers: list[Any], top_k: int
    ) -> Response:
        """One entry an image, broken ones with their error; the status is theirs if all are broken."""
        entries: list[dict[str, Any]] = []
        for image, answer in zip(images, answers, strict=True):
            if isinstance(answer, HttpError):
                entries.append({"name": printable(image.name), "error": printable(str(answer))})
                continue
            row, name, bundle = answer
            adapter = bundle.entry(name)
            ranked = best_labels(row, adapter, len(adapter["labels"]), image.name)
            given = given_labels(ranked, adapter)
            entry: dict[str, Any] = {"name": printable(image.name), "adapter": name}
            entry |= {"label": ranked[0][0], "score": ranked[0][1], "top": _listed(ranked[:top_k])}
            if given is not None:
                entry["labels"] = _listed(given)
            entries.append(entry)
        broken = [answer for answer in answers if isinstance(answer, HttpError)]
        if len(broken) == len(answers):
            raise broken[0]
        return JSONResponse({"model_name": model.name, "predictions": entries})

    async def _put_adapter(self, request: Request, record: RequestRecord) -> Response:
        model, name = self._bank(request, record)
        require_type(request.headers, _ADAPTER)
        async with self.limits.body(request.stream(), request.headers) as body:
            record.size = len(body)
            verb = await asyncio.to_thread(self._write_adapter, model, name, body)
        names = list(model.bundle.adapter_names)
        document = {"model_name": model.name, verb: name, "adapters": names}
        return JSONResponse(document, 201 if verb == "added" else 200)

    async def _delete_adapter(self, request: Request, record: RequestRecord) -> Response:
        model, name = self._bank(request, record)
        await asyncio.to_thread(self._remove_adapter, model, name)
        names = list(model.bundle.adapter_names)
        return JSONResponse({"model_name": model.name, "removed": name, "adapters": names})

    def _write_adapter(self, model: ServedModel, name: str, content: bytes) -> str:
        editor = self._editor()
        with tempfile.TemporaryDirectory(prefix="vptkit-") as folder, _as_refusals(model, folder):
            file = Path(folder) / "adapter.safetensors"
            file.write_bytes(content)
            there = name in open_bundle(model.path, verify=False).adapter_names
            change = editor.replace if there else editor.add
            change(model.path, file, name=name)
            self.store.follow(model)
        return "replaced" if there else "added"

    def _remove_adapter(self, model: ServedModel, name: str) -> None:
        editor = self._editor()
        with _as_refusals(model):
            names = open_bundle(model.path, verify=False).adapter_names
            if name not in names:
                raise HttpError(
                    404, f"no adapter {name[:100]!r}, expected one of {', '.join(names)}"
                )
            editor.remove(model.path, name)
            self.store.follow(model)

    def _editor(self) -> BankEditor:
        if self.editor is None:
            raise HttpError(403, "adapters cannot be changed over HTTP here")
        return self.editor

    def _bank(self, request: Request, record: RequestRecord) -> tuple[ServedModel, str]:
        model = self.store.only(request.query_params.get("model")).model
        record.model = model.name
        if model.bundle.layout != "bank":
            raise HttpError(
                409,
                f"{model.name} has one adapter, compiled in: export it with --layout bank to change "
                "adapters while it runs",
            )
        return model, request.path_params["name"]

    def _found(self, request: Request, record: RequestRecord) -> tuple[ServedModel, str | None]:
        model, adapter = self.store.find(request.path_params["model"])
        record.model = model.name
        version = request.path_params.get("version", "1")
        if version != "1":
            raise HttpError(404, f"no version {version[:40]!r} of {model.name}, expected 1")
        return model, adapter

    async def _parsed(self, body: bytes, length: str | None) -> InferenceRequest:
        if len(body) < _SMALL or length is not None:
            return parse_inference(body, length)
        return await asyncio.to_thread(parse_inference, body, length)

    async def _ask(
        self,
        model: ServedModel,
        images: Images,
        record: RequestRecord,
        seconds: float,
        choose: Callable[[Bundle], Sequence[str]],
    ) -> tuple[NDArray[np.float32], Sequence[str], Bundle]:
        """The answers to a request's images, the adapter of each, and the bundle that answered.

        Raises:
            HttpError: an image is broken, the queue is full, or the time is up.
        """
        answers = await self._answers(model, images, record, seconds, choose)
        for answer in answers:
            if isinstance(answer, HttpError):
                raise answer
        return np.stack([row for row, _, _ in answers]), [n for _, n, _ in answers], answers[0][2]

    async def _answers(
        self,
        model: ServedModel,
        images: Images,
        record: RequestRecord,
        seconds: float,
        choose: Callable[[Bundle], Sequence[str]],
    ) -> list[Any]:
        """For each image its row of answers, its adapter and the bundle; or why there are none."""
        deadline = time.monotonic() + seconds
        record.images = len(images)
        ticket = model.queue.ticket(len(images))
        try:
            bundle = ticket.state
            names = choose(bundle)
            record.adapters = frozenset(names)
            pixels = await self._decoded(images, bundle, deadline)
            good = [i for i, one in enumerate(pixels) if not isinstance(one, HttpError)]
            found: list[Any] = list(pixels)
            if good:
                batch = np.stack([pixels[i] for i in good])
                future = model.queue.submit(ticket, batch, [names[i] for i in good], deadline)
                rows = await _before(asyncio.wrap_future(future), deadline)
                for i, row in zip(good, rows, strict=True):
                    found[i] = row, names[i], bundle
            return found
        finally:
            model.queue.release(ticket)

    async def _decoded(self, images: Images, bundle: Bundle, deadline: float) -> list[Any]:
        """The pixels of each image, uint8 [H, W, 3], or why there are none."""
        if not isinstance(images, list):
            return list(images)
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(self.decoders, decode, image, bundle.preprocess)
            for image in images
        ]
        gathered = asyncio.gather(*jobs, return_exceptions=True)
        found: list[Any] = await _before(gathered, deadline)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, HttpError):
                raise one
        return found


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One route: who may ask, and how its end is told."""

    application: Application
    handler: Handler
    who: str

    async def answer(self, request: Request) -> Response:
        """Answer a request; what goes wrong is an answer, too."""
        application, begun = self.application, time.monotonic()
        client = request.client.host if request.client else ""
        record = RequestRecord(request.method, request.url.path, client)
        counted = self.who != "anyone"
        application.active += counted
        try:
            response, message = await self._tried(request, record)
        finally:
            application.active -= counted
        seconds = time.monotonic() - begun
        application.metrics.request(record.model, response.status_code, seconds, record.images)
        application.log.write(record, response.status_code, seconds, message)
        return response

    async def _tried(self, request: Request, record: RequestRecord) -> tuple[Response, str | None]:
        try:
            self._let_in(request)
            return await self.handler(request, record), None
        except HttpError as error:
            return _refusal(error, close=self.application.draining), str(error)
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
            self.application.access.require_admin(request.headers)
        elif self.who == "user":
            self.application.access.require_user(request.headers)
        if self.application.draining and request.method != "GET":
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


async def _no_route(request: Request, error: Exception) -> Response:
    """What Starlette refuses itself: an unknown path, or another method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = getattr(error, "headers", None)
    known = "expected one of /v2, /v2/models/NAME/infer, /predict, /metrics, /adapters/NAME"
    texts = {404: f"no such path; {known}", 405: f"{request.method} is not answered here"}
    text = texts.get(status, str(error))
    return JSONResponse({"error": text}, status, headers)


@contextlib.contextmanager
def _as_refusals(model: ServedModel, folder: str = "") -> Any:
    """What an edit of a bank refuses, as an answer that names no folder of this machine."""
    try:
        yield
    except (HttpError, OutputError):
        raise
    except VptkitError as error:
        text = str(error).replace(str(model.path), model.name)
        if folder:
            text = text.replace(f"{folder}/adapter.safetensors", "the body").replace(folder, "")
        raise HttpError(
            409 if "already" in text or "last adapter" in text else 400, text
        ) from error


async def _before(awaited: Any, deadline: float) -> Any:
    """The result of a future that comes in time.

    Raises:
        HttpError: 503: the time is up.
    """
    try:
        return await asyncio.wait_for(awaited, max(deadline - time.monotonic(), 0))
    except asyncio.TimeoutError as error:
        raise HttpError(
            503, "the request took longer than it may: its deadline passed", retry_after=1
        ) from error


class _Form(MultiPartParser):
    """As Starlette's, which is content with a form that is cut off."""

    ended = False

    def on_end(self) -> None:
        """Note that the last boundary has come."""
        self.ended = True


async def _files(request: Request, body: bytes) -> list[UploadedImage]:
    """The files of a form.

    Raises:
        HttpError: 400: it is none, or has no file.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        if not parser.ended:
            raise MultiPartException("it is cut off")

    parser = _Form(request.headers, stream(), max_files=_MOST_FILES, max_fields=16)
    parser.spool_max_size = len(body) + 1  # nothing goes to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise HttpError(400, f"the body is not multipart/form-data: {error}") from error
    found: list[UploadedImage] = []
    for _, part in form.multi_items():
        if isinstance(part, UploadFile):
            found.append(UploadedImage(part.filename or f"file {len(found)}", await part.read()))
    await form.close()
    if not found:
        raise HttpError(400, "no file in the form, expected one or more, as -F file=@photo.jpg")
    return found


def _listed(pairs: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in pairs]


def _seconds(request: InferenceRequest, most: float) -> float:
    """How long a request may take: by its `timeout`, in microseconds, if that is less."""
    value = request.parameters.get("timeout")
    if value is None or value == 0:
        return most
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise HttpError(400, "parameters.timeout: expected a number of microseconds")
    return min(most, value / 1e6)


def _top_k(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _MOST_LABELS):
        raise HttpError(400, f"top_k is {text[:40]!r}, expected 1 to {_MOST_LABELS}")
    return int(text)
