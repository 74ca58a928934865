"""Bodies of requests: how large, how slow, and how much of all of them together."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from vptkit.runtime.serving.http_error import HttpError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["BodyLimits", "media_type", "require_type"]

_AT_ONCE = 8  # bodies of the largest size that may be held


class BodyLimits:
    """Reads bodies within bounds."""

    def __init__(self, most: int, seconds: float, total: int | None = None) -> None:
        """Set the bounds.

        Args:
            most: bytes of one body.
            seconds: until the last of its bytes.
            total: bytes of all bodies that are held; eight of the largest unless given.
        """
        self._most, self._seconds = most, seconds
        self._total = _AT_ONCE * most if total is None else total
        self.held = 0

    @contextlib.asynccontextmanager
    async def body(
        self, stream: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """Yield a body, and count it until the block ends.

        Args:
            stream: its parts.
            headers: of the request, names in small letters.

        Raises:
            HttpError: 408: too slow; 413: too large; 415: compressed; 503: too many others.
        """
        encoding = headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise HttpError(415, f"Content-Encoding is {encoding[:40]!r}, expected none")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > self._most):
            raise self._too_large()
        counted = [0]
        try:
            yield await self._in_time(stream, counted)
        finally:
            self.held -= counted[0]

    async def _in_time(self, stream: AsyncIterator[bytes], counted: list[int]) -> bytes:
        try:
            return await asyncio.wait_for(self._read(stream, counted), self._seconds)
        except asyncio.TimeoutError as error:
            raise HttpError(
                408, f"the body was not complete after {self._seconds:g} s; {counted[0]} bytes came"
            ) from error

    async def _read(self, stream: AsyncIterator[bytes], counted: list[int]) -> bytes:
        parts = []
        async for part in stream:
            counted[0] += len(part)
            self.held += len(part)
            if counted[0] > self._most:
                raise self._too_large()
            if self.held > self._total:
                raise HttpError(503, "too many large requests at once. Ask again.", retry_after=1)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is too large, expected at most {self._most:,} bytes")


def media_type(headers: Mapping[str, str]) -> str:
    """The type of a body without its parameters, in small letters; "" where none is given."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def require_type(headers: Mapping[str, str], known: tuple[str, ...]) -> str:
    """The type of a body if it is one of these, or none is given.

    Args:
        headers: of the request.
        known: types; "image/*" is all of them.

    Raises:
        HttpError: 415.
    """
    found = media_type(headers)
    if found and not any(
        found == one or (one.endswith("/*") and found.startswith(one[:-1])) for one in known
    ):
        raise HttpError(415, f"Content-Type is {found[:80]!r}, expected {' or '.join(known)}")
    return found
