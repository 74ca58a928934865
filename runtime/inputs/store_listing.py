"""What lies in an object store below an address: folders, globs and single objects, page by page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.decoding.image_formats import IMAGE_SUFFIXES
from vptkit.errors import DataError
from vptkit.runtime.stores.object_stores import store_errors, store_of
from vptkit.runtime.stores.store_address import SCHEMES, shown_address, suffix_of
from vptkit.runtime.stores.stored_image import StoredImage

from .data_files import ARCHIVES, DATA_SUFFIXES, walk_data_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vptkit.images.image_file import ImageFile

    from .lookup import Lookup

__all__ = ["walk_store"]

_MAGIC = re.compile(r"[*?\[]")
_MOST_ARCHIVES = 1_000_000
_LONGEST_SUFFIX = 12
_PAGE = 1000  # objects that S3 lists at once


class _Object(NamedTuple):
    """An object as it was listed: its path in the store and its bytes."""

    path: str
    size: int | None


def walk_store(address: str, lookup: Lookup) -> Iterator[ImageFile]:
    """The images of an object, of all below a folder (a prefix that ends in /), or of a glob.

    In a folder without images its archives are read. What is an image its ending says.

    Args:
        address: of `store_address.address_of`.
        lookup: what is passed over is counted there.

    Raises:
        DataError: nothing is there, it may not be read, or it holds no images.
        MissingError: a package that reads this store is not installed.
    """
    scheme, _, rest = address.partition("://")
    store, path = store_of(address)
    if not SCHEMES[scheme].lists:
        if suffix_of(address) in DATA_SUFFIXES:
            yield from walk_data_files([address], lookup, alone=True)
        else:
            yield StoredImage(address)
        return
    if _MAGIC.search(path) and not _is_object(store, path, address):
        found = _of_glob(store, path, address, lookup)
    elif rest.endswith("/") or "/" not in path.strip("/"):
        found = _of_folder(store, path, address, lookup)
    elif suffix_of(address) in DATA_SUFFIXES:
        yield from walk_data_files([address], lookup, alone=True)
        return
    elif _is_object(store, path, address):
        yield StoredImage(address)
        return
    elif suffix_of(address) in IMAGE_SUFFIXES:
        raise DataError(f"{shown_address(address)}: no such object")
    else:
        found = _of_folder(store, path, address, lookup)
    first = next(found, None)
    if first is None:
        raise DataError(f"{shown_address(address)}: no images there")
    yield first
    yield from found


def _is_object(store: Any, path: str, address: str) -> bool:
    with store_errors(address):
        try:
            return bool(store.info(path)["type"] == "file")
        except FileNotFoundError:
            return False


def _of_folder(store: Any, path: str, address: str, lookup: Lookup) -> Iterator[ImageFile]:
    """All images below; or, if there is none, those of the archives there."""
    archives: list[str] = []
    images = 0
    for one in _objects(store, path.rstrip("/") + "/", address):
        suffix = suffix_of(f"x://{one.path}")
        if suffix in IMAGE_SUFFIXES:
            images += 1
            yield StoredImage(_address(address, one.path), one.size)
        elif suffix in ARCHIVES and not images and len(archives) < _MOST_ARCHIVES:
            archives.append(_address(address, one.path))
        else:
            lookup.skipped[_kind(suffix)] += 1
    if images:
        lookup.skipped.update(map(suffix_of, archives))
    else:
        yield from walk_data_files(archives, lookup)


def _of_glob(store: Any, pattern: str, address: str, lookup: Lookup) -> Iterator[ImageFile]:
    wanted = suffix_of(f"x://{pattern}")
    matches = _matcher(pattern, address)
    fixed = pattern[: _magic_place(pattern)]
    flat = wanted in IMAGE_SUFFIXES | DATA_SUFFIXES and "/" not in pattern[len(fixed) :]
    found = (one for one in _objects(store, fixed, address, flat=flat) if matches(one.path))
    if wanted in DATA_SUFFIXES:
        files = (
            _address(address, one.path) for one in found if suffix_of(f"x://{one.path}") == wanted
        )
        yield from walk_data_files(files, lookup)
        return
    for one in found:
        suffix = suffix_of(f"x://{one.path}")
        if suffix in IMAGE_SUFFIXES:
            yield StoredImage(_address(address, one.path), one.size)
        else:
            lookup.skipped[_kind(suffix)] += 1


def _magic_place(pattern: str) -> int:
    match = _MAGIC.search(pattern)
    return match.start() if match else len(pattern)


def _matcher(pattern: str, address: str) -> Callable[[str], bool]:
    """Whether a path, or a folder that it lies in, is what a glob means."""
    from fsspec.utils import glob_translate

    try:
        known = re.compile(glob_translate(pattern))
    except (ValueError, re.error) as error:
        raise DataError(f"{shown_address(address)}: not a pattern: {error}") from error
    levels = pattern.count("/")

    def matches(path: str) -> bool:
        if known.match(path):
            return True
        parts = path.split("/")
        return any(known.match("/".join(parts[:count])) for count in range(levels + 1, len(parts)))

    return matches


def _objects(store: Any, prefix: str, address: str, *, flat: bool = False) -> Iterator[_Object]:
    """Objects whose path begins so, hidden ones left out, in the store's order.

    Args:
        store, address: of `store_of`.
        prefix: bucket and the beginning of a key.
        flat: none in folders below the last / of it.
    """
    listed = _pages_of_s3 if address.startswith(("s3:", "s3a:")) else _folders
    start = prefix.rfind("/") + 1
    for one in listed(store, prefix, address, flat=flat):
        inner = one.path[start:]
        if inner and not inner.endswith("/") and not re.search(r"(?:^|/)\.", inner):
            yield one


def _pages_of_s3(store: Any, prefix: str, address: str, *, flat: bool) -> Iterator[_Object]:
    bucket, _, key = prefix.partition("/")
    asked = {"Bucket": bucket, "Prefix": key, "MaxKeys": _PAGE}
    asked |= {"Delimiter": "/"} if flat else {}
    while True:
        with store_errors(address):
            page = store.call_s3("list_objects_v2", **asked)
        for entry in page.get("Contents", ()):
            yield _Object(f"{bucket}/{entry['Key']}", entry.get("Size"))
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _folders(store: Any, prefix: str, address: str, *, flat: bool) -> Iterator[_Object]:
    """The same of other stores, a folder at a time, each sorted."""
    waiting = [prefix.rpartition("/")[0]]
    while waiting:
        folder = waiting.pop()
        with store_errors(address):
            entries = sorted(store.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
        inner = []
        for entry in entries:
            name = str(entry["name"])
            if entry["type"] == "directory":
                inner.append(name.rstrip("/"))
            elif name.startswith(prefix):
                yield _Object(name, entry.get("size"))
        if not flat:
            waiting += reversed(inner)


def _address(source: str, path: str) -> str:
    return f"{source.partition('://')[0]}://{path.lstrip('/')}"


def _kind(suffix: str) -> str:
    return "other" if len(suffix) > _LONGEST_SUFFIX else suffix or "no suffix"
