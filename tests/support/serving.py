"""A server's application asked without a network, and tiny pictures to ask it with.

Tests take it by `pytest.importorskip("tests.support.serving")`: the extra `serve` may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import struct
import zlib
from typing import TYPE_CHECKING

import httpx
from PIL import Image

from vptkit.runtime.http_server.server_process import ServerSettings, open_application

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from vptkit.runtime.http_server.application import Application

__all__ = ["Asker", "encoded", "huge_png", "served"]


class Asker:
    """Requests to an application, one after the other or at once."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._asgi = application.asgi()
        self.model = next(iter(application.store))

    def at_once(self, *requests: dict) -> list[httpx.Response]:
        """The answers to requests that are made together; keywords of `httpx.request`."""

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self._asgi)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                return await asyncio.gather(*(client.request(**one) for one in requests))

        return asyncio.run(ask())

    def __call__(self, method: str, url: str, **settings) -> httpx.Response:
        return self.at_once({"method": method, "url": url, **settings})[0]


@contextlib.contextmanager
def served(bundles: Sequence[Path], editor=None, **settings) -> Iterator[Asker]:
    """Bundles behind an application; closed at the end."""
    chosen = ServerSettings(backend="cpu", threads=1, decode_threads=2, **settings)
    application = open_application(bundles, chosen, editor=editor)
    try:
        yield Asker(application)
    finally:
        application.store.close(30)
        application.decoders.shutdown()


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """An image file of uint8 [H, W, 3]."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def huge_png(side: int = 10_000) -> bytes:
    """A file of some bytes that says it has side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
