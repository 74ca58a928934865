"""Adapters of a bank are added, replaced and removed while it answers: `/adapters/{name}`, for admins."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from vptkit.errors import OutputError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.serving.http_error import HttpError

from .request_limits import require_type

if TYPE_CHECKING:
    from starlette.requests import Request

    from vptkit.runtime.serving.served_model import ServedModel

    from .request_log import RequestRecord
    from .server_state import BankEditor, ServerState

__all__ = ["delete_adapter", "put_adapter"]

_ADAPTER = ("application/octet-stream", "application/x-www-form-urlencoded")


async def put_adapter(state: ServerState, request: Request, record: RequestRecord) -> Response:
    """Add an adapter, or put it in the place of the one of its name: `PUT /adapters/{name}`."""
    model, name = _bank(state, request, record)
    require_type(request.headers, _ADAPTER)
    async with state.limits.body(request.stream(), request.headers) as body:
        record.size = len(body)
        verb = await asyncio.to_thread(_write_adapter, state, model, name, body)
    names = list(model.bundle.adapter_names)
    document = {"model_name": model.name, verb: name, "adapters": names}
    return JSONResponse(document, 201 if verb == "added" else 200)


async def delete_adapter(state: ServerState, request: Request, record: RequestRecord) -> Response:
    """Remove an adapter: `DELETE /adapters/{name}`."""
    model, name = _bank(state, request, record)
    await asyncio.to_thread(_remove_adapter, state, model, name)
    names = list(model.bundle.adapter_names)
    return JSONResponse({"model_name": model.name, "removed": name, "adapters": names})


def _write_adapter(state: ServerState, model: ServedModel, name: str, content: bytes) -> str:
    editor = _editor(state)
    with tempfile.TemporaryDirectory(prefix="vptkit-") as folder, _as_refusals(model, folder):
        file = Path(folder) / "adapter.safetensors"
        file.write_bytes(content)
        there = name in open_bundle(model.path, verify=False).adapter_names
        change = editor.replace if there else editor.add
        change(model.path, file, name=name)
        state.store.follow(model)
    return "replaced" if there else "added"


def _remove_adapter(state: ServerState, model: ServedModel, name: str) -> None:
    editor = _editor(state)
    with _as_refusals(model):
        names = open_bundle(model.path, verify=False).adapter_names
        if name not in names:
            raise HttpError(404, f"no adapter {name[:100]!r}, expected one of {', '.join(names)}")
        editor.remove(model.path, name)
        state.store.follow(model)


def _editor(state: ServerState) -> BankEditor:
    if state.editor is None:
        raise HttpError(403, "adapters cannot be changed over HTTP here")
    return state.editor


def _bank(state: ServerState, request: Request, record: RequestRecord) -> tuple[ServedModel, str]:
    model = state.store.only(request.query_params.get("model")).model
    record.model = model.name
    if model.bundle.layout != "bank":
        raise HttpError(
            409,
            f"{model.name} has one adapter, compiled in: export it with --layout bank to change "
            "adapters while it runs",
        )
    return model, request.path_params["name"]


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
