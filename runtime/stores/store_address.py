"""Addresses of objects in stores: what is one, and what it is called without its credentials."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from vptkit.errors import OutputError
from vptkit.paths.hidden_secrets import redacted

__all__ = [
    "SCHEMES",
    "Scheme",
    "address_of",
    "is_address",
    "require_local",
    "shown_address",
    "shown_source",
    "suffix_of",
]

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}([^/].*)?", re.DOTALL)


class Scheme(NamedTuple):
    """A kind of store.

    Attributes:
        package: what reads it for fsspec, "" where that needs none.
        lists: whether what lies below an address can be listed.
    """

    package: str
    lists: bool = True


SCHEMES = {
    **dict.fromkeys(("s3", "s3a"), Scheme("s3fs")),
    **dict.fromkeys(("gs", "gcs"), Scheme("gcsfs")),
    **dict.fromkeys(("az", "abfs", "abfss"), Scheme("adlfs")),
    **dict.fromkeys(("http", "https"), Scheme("aiohttp", lists=False)),
    "hf": Scheme("huggingface_hub"),
    "memory": Scheme(""),  # of this process: for tests
}


def address_of(text: str) -> str | None:
    """The address that a text is, its scheme in small letters; None if it is none that is read here.

    One slash after the colon is two: that is what pathlib makes of an address.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or match[1].lower() not in SCHEMES:
        return None
    return f"{match[1].lower()}://{match[2] or ''}"


def is_address(text: str) -> bool:
    """Whether a text is an address in a store."""
    return address_of(text) is not None


def shown_address(file: Path | str) -> str:
    """What messages and outputs call a file or an object: the same each time, without credentials."""
    if isinstance(file, Path):
        return str(file)
    scheme, _, rest = file.partition("://")
    place, slash, path = rest.partition("/")
    if scheme in ("http", "https"):
        path, mark, query = path.partition("?")
        path += mark + redacted(query)
    if "@" in place and scheme not in ("abfs", "abfss", "az", "hf"):
        place = f"***@{place.rpartition('@')[2]}"
    return f"{scheme}://{place}{slash}{path}"


def suffix_of(file: Path | str) -> str:
    """The ending in small letters, with its dot; "" if there is none."""
    if isinstance(file, Path):
        return file.suffix.lower()
    path = file.partition("://")[2]
    if file.startswith(("http://", "https://")):
        path = path.partition("?")[0].partition("#")[0]
    return posixpath.splitext(path)[1].lower() if "/" in path else ""


def require_local(output: Path) -> None:
    """Refuse to write into a store.

    Raises:
        OutputError: the path is an address, and no folder here is called so.
    """
    address = address_of(str(output))
    if address is not None and not os.path.lexists(output.parts[0]):
        raise OutputError(
            f"{shown_address(address)}: outputs are written to this machine's disk, from which a run "
            "that is killed goes on. Write there, then copy the file."
        )


def shown_source(text: str) -> str:
    """A source as the user typed it, without credentials if it is an address."""
    address = address_of(text)
    return text if address is None else shown_address(address)
