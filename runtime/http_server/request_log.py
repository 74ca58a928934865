"""One JSON line a request, for machines: who asked what, how it ended, how long it took.

No content of images, no headers, no query: what a client may not want to be kept is not there.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vptkit.strict_json import json_text

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["RequestLog", "RequestRecord"]

_LETTERS, _NAMES = 200, 8


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request by its end.

    Attributes:
        method, path: of HTTP, without the query.
        client: the address that asked.
        model: which was asked; "" for none.
        adapters: of its images.
        images: how many.
        size: bytes of the body.
        id: that the client gave.
    """

    method: str
    path: str
    client: str
    model: str = ""
    adapters: frozenset[str] = field(default_factory=frozenset)
    images: int = 0
    size: int = 0
    id: str | None = None


class RequestLog:
    """Lines to a stream; none where there is no stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to a stream, such as standard error."""
        self._stream = stream

    def write(self, record: RequestRecord, status: int, seconds: float, error: str | None) -> None:
        """Write a line."""
        if self._stream is None:
            return
        now = dt.datetime.now(dt.timezone.utc)
        line = {
            "time": now.isoformat(timespec="milliseconds"),
            "client": record.client,
            "method": record.method,
            "path": record.path[:_LETTERS],
            "status": status,
            "ms": round(1000 * seconds, 3),
            "bytes": record.size,
            "model": record.model,
            "images": record.images,
            "adapters": sorted(record.adapters)[:_NAMES],
        }
        if record.id is not None:
            line["id"] = record.id[:_LETTERS]
        if error is not None:
            line["error"] = error[:_LETTERS]
        self._stream.write(json_text(line) + "\n")
        self._stream.flush()
