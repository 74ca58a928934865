"""Bodies: too large, too slow, too many, of another type."""

from __future__ import annotations

import asyncio

import pytest

from vptkit.runtime.http_server.request_limits import BodyLimits, require_type
from vptkit.runtime.serving.http_error import HttpError


async def parts(*contents, pause=0.0):
    for content in contents:
        yield content
        await asyncio.sleep(pause)


def read(limits, stream, headers=None):
    async def one():
        async with limits.body(stream, headers or {}) as body:
            held = limits.held
            return body, held

    return asyncio.run(one())


def test_a_body_is_read_and_counted_while_it_is_held():
    limits = BodyLimits(10, 30)
    assert read(limits, parts(b"abc", b"de")) == (b"abcde", 5)
    assert limits.held == 0


@pytest.mark.parametrize(
    ("stream", "headers", "status", "message"),
    [
        (lambda: parts(b"x" * 6, b"x" * 5), {}, 413, "at most 10 bytes"),
        (lambda: parts(b""), {"content-length": "11"}, 413, "at most 10 bytes"),
        (lambda: parts(b""), {"content-length": "9" * 40}, 413, "at most 10 bytes"),
        (lambda: parts(b"x", b"x", pause=5), {}, 408, "1 bytes came"),
        (lambda: parts(b"x"), {"content-encoding": "gzip"}, 415, "expected none"),
        (lambda: parts(b"x" * 9), {}, 503, "too many large requests"),
    ],
)
def test_bounds(stream, headers, status, message):
    limits = BodyLimits(10, 0.02, total=8 if status == 503 else None)
    with pytest.raises(HttpError, match=message) as caught:
        read(limits, stream(), headers)
    assert (caught.value.status, limits.held) == (status, 0)


def test_what_fails_behind_the_body_is_not_said_to_be_slow():
    limits = BodyLimits(10, 30)

    async def fail():
        async with limits.body(parts(b"x"), {}):
            raise asyncio.TimeoutError

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(fail())
    assert limits.held == 0


def test_types():
    known = ("image/*", "multipart/form-data")
    assert require_type({"content-type": "Image/JPEG; a=b"}, known) == "image/jpeg"
    assert require_type({}, known) == ""
    for other in ("text/plain", "image", "imagex/jpeg"):
        with pytest.raises(HttpError, match="expected image"):
            require_type({"content-type": other}, known)
