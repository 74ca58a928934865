"""Object stores through fsspec: which library reads an address, bounded reads, and errors without secrets.

Credentials, endpoints and regions are those libraries' own business: their files and variables.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError, MissingError, VptkitError
from vptkit.images.image_file import MAX_BYTES
from vptkit.paths.hidden_secrets import without_secrets

from .store_address import SCHEMES, shown_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["read_object", "read_range", "reading", "store_errors", "store_of"]

# A large object is asked for by ranges, each of which the library tries again if it must
_IN_BLOCKS = {"block_size": 8 << 20, "cache_type": "readahead"}
_LONGEST_REASON = 300
# Stores whose listings the library would keep, all of them
_KEPT = ("s3", "s3a", "gs", "gcs")
_ANYBODY = {
    "s3": "; of a public bucket FSSPEC_S3_ANON=true needs none",
    "gs": "; of a public bucket FSSPEC_GS_TOKEN=anon needs none",
}


def store_of(address: str) -> tuple[Any, str]:
    """The file system that holds an object, and the object's path in it.

    Args:
        address: of `store_address.address_of`.

    Raises:
        MissingError: the package that reads it is not installed; the message says which.
        DataError: the library refuses the address, or finds no credentials.
    """
    scheme = address.partition("://")[0]
    package = SCHEMES[scheme].package
    try:
        import fsspec

        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        packages = " ".join(filter(None, ("fsspec", package)))
        raise MissingError(
            f"{shown_address(address)}: reading {scheme}:// needs {package or 'fsspec'}, which is not "
            f"installed: pip install {packages}"
        ) from error
    with store_errors(address):
        options = kind._get_kwargs_from_urls(address)  # noqa: SLF001 -- what url_to_fs calls; that takes chains, too
        options |= {"use_listings_cache": False} if scheme in _KEPT else {}
        return fsspec.filesystem(scheme, **options), str(kind._strip_protocol(address))  # noqa: SLF001


def read_object(address: str) -> bytes:
    """A whole object that may be an image.

    Raises:
        DataError: it is not there, may not be read, or has more than `image_file.MAX_BYTES`.
        MissingError: see `store_of`.
    """
    store, path = store_of(address)
    with store_errors(address):
        if address.startswith("http"):  # servers need not know ranges
            with store.open(path, "rb", block_size=0) as stream:
                content = _read_up_to(stream, MAX_BYTES + 1)
        else:
            content = store.cat_file(path, start=0, end=MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(
            f"{shown_address(address)}: more than {MAX_BYTES} bytes, which no image has"
        )
    return bytes(content)


def read_range(address: str, offset: int, size: int) -> bytes:
    """Some bytes of an object, fewer at its end.

    Raises:
        DataError, MissingError: see `read_object`.
    """
    if not size:
        return b""
    store, path = store_of(address)
    with store_errors(address):
        return bytes(store.cat_file(path, start=offset, end=offset + size))


@contextlib.contextmanager
def reading(address: str) -> Iterator[BinaryIO]:
    """Yield an object as a stream, read piece by piece.

    Raises:
        DataError, MissingError: see `read_object`; also for what reading raises.
    """
    store, path = store_of(address)
    # Of HTTP a plain download: servers need not know ranges.
    how = {"block_size": 0} if address.startswith("http") else _IN_BLOCKS
    with store_errors(address), store.open(path, "rb", **how) as stream:
        yield stream


@contextlib.contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Whatever a store's library raises, as a DataError that names the object and no secret.

    Raises:
        DataError: for what is raised inside.
    """
    try:
        yield
    except (VptkitError, MemoryError):
        raise
    except Exception as error:  # libraries of several networks below: no common class
        raise DataError(f"{shown_address(address)}: {_reason(error, address)}") from error


def _read_up_to(stream: BinaryIO, most: int) -> bytes:
    parts, left = [], most
    while left > 0 and (part := stream.read(min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _reason(error: BaseException, address: str) -> str:
    text = " ".join(without_secrets(str(error), address).split())
    text = re.sub(r"\w+://\S+", "…", text)[:_LONGEST_REASON]
    if isinstance(error, FileNotFoundError):
        behind = _behind(error)
        if behind is not None:
            return _reason(behind, address)
        bucket = "bucket" in text.lower() and "exist" in text.lower()
        return text if bucket else "no such object"
    status = getattr(error, "status", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        return f"access denied ({text})" if text else "access denied"
    if "Credentials" in type(error).__name__:
        scheme = address.partition("://")[0]
        return f"no credentials were found ({text}){_ANYBODY.get(scheme, '')}"
    return f"cannot be read: {text or type(error).__name__}"


def _behind(error: BaseException) -> BaseException | None:
    """What fsspec takes for an object that is not there, and is none: a server that does not answer."""
    cause = error.__cause__
    while cause is not None:
        network = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
        if network or getattr(cause, "status", 404) != 404:
            return cause
        cause = cause.__cause__
    return None
