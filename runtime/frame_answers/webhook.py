"""Answers posted to a URL as JSON, by a thread of their own: a slow receiver delays nothing."""

from __future__ import annotations

import contextlib
import queue
import threading
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vptkit.errors import VptkitError
from vptkit.strict_json import json_text

if TYPE_CHECKING:
    from .frame_answer import FrameAnswer

__all__ = ["Webhook"]

_HELD = 256  # answers that wait
_TIMEOUT = 5.0  # seconds of one request
_LAST = 5.0  # seconds for what waits at the end


class Webhook:
    """Posts each answer as `FrameAnswer.to_json` has it.

    Attributes:
        sent, failed: requests that were answered with 2xx, and others.
        dropped: answers for which there was no room, or no time at the end.
    """

    def __init__(self, url: str, *, held: int = _HELD, timeout: float = _TIMEOUT) -> None:
        """Start the thread.

        Raises:
            VptkitError: not an http(s) URL.
        """
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            good = False
        if not good:
            raise VptkitError("--webhook: expected a URL as https://example.org/events")
        self._url, self._timeout = url, timeout
        self.sent = self.failed = self.dropped = 0
        self._queue: queue.Queue[bytes | None] = queue.Queue(held)
        self._thread = threading.Thread(target=self._work, name="vptkit-webhook", daemon=True)
        self._thread.start()

    def __call__(self, answer: FrameAnswer) -> None:
        """Queue an answer; it is dropped where there is no room."""
        try:
            self._queue.put_nowait(json_text(answer.to_json()).encode())
        except queue.Full:
            self.dropped += 1

    def close(self, patience: float = _LAST) -> None:
        """Send what waits, for a few seconds at most."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=patience)
        self._thread.join(patience)
        if self._thread.is_alive():
            self.dropped += self._queue.qsize()

    def _work(self) -> None:
        while (body := self._queue.get()) is not None:
            if self._post(body):
                self.sent += 1
            else:
                self.failed += 1

    def _post(self, body: bytes) -> bool:
        try:
            request = urllib.request.Request(  # noqa: S310 -- http(s), looked at above
                self._url, data=body, headers={"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=self._timeout):  # noqa: S310
                return True
        except (OSError, ValueError, HTTPException):  # HTTPError, URLError are OSErrors
            return False
