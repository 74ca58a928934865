"""Requests for answers: decoded, put into the model's queue, and told in the form that was asked for."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import JSONResponse, Response

from vptkit.runtime.serving.http_error import HttpError
from vptkit.runtime.serving.image_requests import (
    UploadedImage,
    adapters_of,
    best_labels,
    decode,
    given_labels,
    images_of,
    outputs_of,
    require_adapter,
)
from vptkit.runtime.serving.inference_protocol import (
    HEADER_LENGTH,
    parse_inference,
    render_inference,
)
from vptkit.shown_text import printable

from .request_limits import require_type
from .upload_form import files_of_form

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from starlette.requests import Request

    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.serving.inference_protocol import InferenceRequest
    from vptkit.runtime.serving.served_model import ServedModel

    from .request_log import RequestRecord
    from .server_state import ServerState

    Images = NDArray[np.uint8] | list[UploadedImage]

__all__ = ["found_model", "infer", "predict"]

_INFER = ("application/json", "application/octet-stream")
# What curl says of --data-binary, too
_RAW = ("image/*", "application/octet-stream", "application/x-www-form-urlencoded")
_FORM = "multipart/form-data"
_MOST_LABELS = 1000
_SMALL = 1 << 16  # bytes of JSON that are parsed at once; others by a thread


def found_model(
    state: ServerState, request: Request, record: RequestRecord
) -> tuple[ServedModel, str | None]:
    """The model of a path, and the adapter if the path names one.

    Raises:
        HttpError: 404: there is none, or no such version.
    """
    model, adapter = state.store.find(request.path_params["model"])
    record.model = model.name
    version = request.path_params.get("version", "1")
    if version != "1":
        raise HttpError(404, f"no version {version[:40]!r} of {model.name}, expected 1")
    return model, adapter


async def infer(state: ServerState, request: Request, record: RequestRecord) -> Response:
    """Answer in the Open Inference Protocol: `POST /v2/models/{model}/infer`."""
    model, adapter = found_model(state, request, record)
    require_type(request.headers, _INFER)
    length = request.headers.get(HEADER_LENGTH)
    async with state.limits.body(request.stream(), request.headers) as body:
        record.size = len(body)
        wanted = await _parsed(body, length)
        record.id = wanted.id
        images = images_of(wanted, model.bundle.preprocess)
        seconds = _seconds(wanted, state.seconds)
        answers, names, bundle = await _ask(
            state,
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


async def predict(state: ServerState, request: Request, record: RequestRecord) -> Response:
    """Answer images as they are, in the body or in a form: `POST /predict`."""
    query = request.query_params
    adapter = query.get("adapter")
    model, fixed = state.store.only(query.get("model"), adapter)
    record.model = model.name
    adapter = fixed if adapter is None else adapter
    top_k = _top_k(query.get("top_k", "5"))
    kind = require_type(request.headers, (*_RAW, _FORM))
    async with state.limits.body(request.stream(), request.headers) as body:
        record.size = len(body)
        images = (
            await files_of_form(request.headers, body)
            if kind == _FORM
            else [UploadedImage("body", body)]
        )
        answers = await _answers(
            state,
            model,
            images,
            record,
            state.seconds,
            lambda b: [require_adapter(b, adapter)] * len(images),
        )
    return _predictions(model, images, answers, top_k)


def _predictions(
    model: ServedModel, images: list[UploadedImage], answers: list[Any], top_k: int
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


async def _parsed(body: bytes, length: str | None) -> InferenceRequest:
    if len(body) < _SMALL or length is not None:
        return parse_inference(body, length)
    return await asyncio.to_thread(parse_inference, body, length)


async def _ask(
    state: ServerState,
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
    answers = await _answers(state, model, images, record, seconds, choose)
    for answer in answers:
        if isinstance(answer, HttpError):
            raise answer
    return np.stack([row for row, _, _ in answers]), [n for _, n, _ in answers], answers[0][2]


async def _answers(
    state: ServerState,
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
        pixels = await _decoded(state, images, bundle, model.decode, deadline)
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


async def _decoded(
    state: ServerState, images: Images, bundle: Bundle, how: str, deadline: float
) -> list[Any]:
    """The pixels of each image, uint8 [H, W, 3], or why there are none."""
    if not isinstance(images, list):
        return list(images)
    loop, preprocess = asyncio.get_running_loop(), bundle.preprocess.reading(how)
    jobs = [loop.run_in_executor(state.decoders, decode, image, preprocess) for image in images]
    gathered = asyncio.gather(*jobs, return_exceptions=True)
    found: list[Any] = await _before(gathered, deadline)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, HttpError):
            raise one
    return found


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
