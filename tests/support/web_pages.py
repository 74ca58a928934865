"""Folders of `vptkit export --target web` behind a host of static files, and what they need of npm."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vptkit.atomic_files import sha256_of_file
from vptkit.errors import MissingError
from vptkit.runtime.web import onnxruntime_web
from vptkit.runtime.web.onnxruntime_web import find_library

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Host", "answer_of", "opened", "stand_in_package", "static_host", "web_package"]

_PACKAGE = "VPTKIT_ONNXRUNTIME_WEB"  # a folder, where there is no npm
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
_SECONDS = 240_000  # milliseconds that anything may take


@dataclass
class Host:
    """A host of static files.

    Attributes:
        address: of the page.
        asked: paths that were asked for.
    """

    address: str
    asked: list[str] = field(default_factory=list)


def web_package() -> Path | None:
    """The unpacked package, None if it is in the cache; the test is skipped where there is neither."""
    folder = Path(os.environ[_PACKAGE]) if _PACKAGE in os.environ else None
    try:
        find_library(folder)
    except MissingError as error:
        pytest.skip(f"no onnxruntime-web: {error}")
    return folder


def stand_in_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unpacked package with a few letters in the place of each file, which pass as the right ones."""
    (folder / "dist").mkdir(parents=True)
    about = {"name": onnxruntime_web.PACKAGE, "version": onnxruntime_web.VERSION}
    (folder / "package.json").write_text(json.dumps(about))
    digests = {}
    for name in onnxruntime_web.FILES:
        (folder / "dist" / name).write_text(f"stands for {name}")
        digests[name] = sha256_of_file(folder / "dist" / name)
    monkeypatch.setattr(onnxruntime_web, "FILES", digests)
    return folder


@contextlib.contextmanager
def static_host(folder: Path, *, isolated: bool = False) -> Iterator[Host]:
    """What `python -m http.server` does; isolated with the headers that threads need."""
    host = Host("")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in _HEADERS.items() if isolated else ():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *words: object) -> None:
            host.asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        host.address = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def opened(chromium: Any, host: Host, query: str = "") -> Iterator[Any]:
    """The page with its graph loaded; nothing in it may fail, or ask anybody but its host."""
    context = chromium.new_context()
    context.set_default_timeout(_SECONDS)
    page, told = context.new_page(), []
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("console", lambda m: told.append(m.text) if "Content Security" in m.text else None)
    context.on("request", lambda r: None if _own(r.url, host) else told.append(r.url))
    page.goto(host.address + query)
    page.get_by_text("Ready: ").wait_for()
    yield page
    assert told == []
    context.close()


def _own(url: str, host: Host) -> bool:
    return url.startswith((host.address, f"blob:{host.address}", "data:"))


_ASK = """async ([text, model, adapter]) => {
  const source = await import("./source.js");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const found = await source.answer(new Blob([bytes]), model, adapter);
  return { ...found, logits: [...found.logits] };
}"""


def answer_of(page: Any, image: bytes, model: str, adapter: str) -> dict[str, Any]:
    """What the page's own code answers for the bytes of an image, with all logits."""
    found: dict[str, Any] = page.evaluate(
        _ASK, [base64.b64encode(image).decode("ascii"), model, adapter]
    )
    return found
