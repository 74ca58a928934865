"""What the user named → images: files, folders (recursive), globs, lists, archives, objects in stores."""

from __future__ import annotations

import glob
import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.decoding.image_formats import IMAGE_SUFFIXES, is_image, readable_formats
from vptkit.errors import DataError
from vptkit.images.image_file import kind_of_file, walk_images
from vptkit.paths.path_advice import advice
from vptkit.paths.path_kind import kind_of
from vptkit.regular_files import is_folder
from vptkit.runtime.stores.store_address import address_of

from .braces import expanded, has_braces
from .data_files import ARCHIVES, DATA_SUFFIXES, walk_data_files
from .lookup import Lookup, NotFetchedError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator

    from vptkit.images.image_file import ImageFile

__all__ = ["find_images", "images_of", "is_several", "walk_source"]

# A file of another suffix may be an image all the same; these are known to be none.
_NO_IMAGES = ("adapter", "weights", "graph", "torch", "engine", "archive", "video", "part")


def find_images(sources: Iterable[str | os.PathLike[str]]) -> list[ImageFile]:
    """List the images of sources, each once, in the order they were named.

    A file that is named itself is taken whatever it is; folders and globs give the files that are images
    by their ending or their first bytes (`vptkit.decoding.image_formats`), sorted by path.

    Args:
        sources: see `walk_source`.

    Raises:
        DataError: a source does not exist, or holds no images.
    """
    paths: dict[ImageFile, None] = {}
    for source in sources:
        paths.update(dict.fromkeys(images_of(source)))
    if not paths:
        raise DataError("no sources: name at least one image, folder or glob")
    return list(paths)


def images_of(source: str | os.PathLike[str]) -> list[ImageFile]:
    """The images of one source; see `find_images`.

    Raises:
        DataError: it does not exist, or holds no images.
    """
    lookup = Lookup()
    found = list(walk_source(source, lookup))
    if lookup.broken:
        raise DataError("; ".join(lookup.broken[:3]))
    return found


def is_several(source: str) -> bool:
    """Whether a source may well give nothing: a folder or a glob, and not a file that was named."""
    return is_folder(Path(source)) or glob.has_magic(source)


def walk_source(source: str | os.PathLike[str], lookup: Lookup) -> Iterator[ImageFile]:
    """The images of one source, one by one.

    Args:
        source: as the user named it: an image, a folder, a glob; a list, a tar or Parquet file, a
            folder of such or of a saved data set, several with braces (`braces`); an address in a store
            (`vptkit.runtime.stores.store_address`) of any of these.
        lookup: how; what is passed over or broken is told there on the way.

    Raises:
        DataError: on the way: it does not exist, or holds no images.
        MissingError: a package that reads it is not installed.
    """
    text = os.fspath(source)
    if not text:
        raise DataError("a source is the empty text: expected an image, a folder or a glob")
    if has_braces(text) and not os.path.lexists(text):
        yield from _of_braces(text, lookup)
    elif (address := address_of(text)) is not None and not os.path.lexists(text):
        from .store_listing import walk_store

        yield from walk_store(address, lookup)
    else:
        yield from _of_path(text, lookup)


def _of_path(text: str, lookup: Lookup) -> Iterator[ImageFile]:
    path = Path(text)
    if is_folder(path):
        found = _of_folder(path, lookup)
    elif os.path.lexists(path):  # a link to nothing, too: whoever opens it says so
        yield from _of_file(path, lookup)
        return
    elif glob.has_magic(text):
        found = _of_matches(text, lookup)
    else:
        raise DataError(advice(path, "images") or f"{text}: no such file or folder")
    before = len(lookup.broken)
    first = next(found, None)
    if first is None:
        if len(lookup.broken) > before:  # archives, and not one of them is whole
            return
        plain = f"{text}: no images there (looked for {', '.join(readable_formats())})"
        raise DataError((is_folder(path) and advice(path, "images")) or plain)
    yield first
    yield from found


def _of_file(path: Path, lookup: Lookup) -> Iterator[ImageFile]:
    suffix = path.suffix.lower()
    if suffix in DATA_SUFFIXES:
        yield from walk_data_files([path], lookup, alone=True)
        return
    if suffix not in IMAGE_SUFFIXES and kind_of(path).kind in _NO_IMAGES:
        raise DataError(advice(path, "images"))
    yield path


def _of_folder(folder: Path, lookup: Lookup) -> Iterator[ImageFile]:
    """Its images; if it has none, those of a saved data set, or of the archives in there."""
    from vptkit.arrow_files.saved_folders import is_saved

    if is_saved(folder):
        from .row_images import walk_saved

        yield from walk_saved(folder, lookup)
        return
    first = next(images := walk_images(folder, lookup.skipped), None)
    if first is not None:
        yield first
        yield from images
    elif any(lookup.skipped[suffix] for suffix in ARCHIVES):
        yield from walk_data_files(_archives(folder, lookup.skipped), lookup)


def _archives(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Archives below a folder, sorted; they are not skipped after all."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in ARCHIVES and not name.startswith("."):
                skipped[path.suffix.lower()] -= 1
                yield path


def _of_braces(text: str, lookup: Lookup) -> Iterator[ImageFile]:
    """Each of the names in turn; one that gives nothing is told, and the others go on."""
    several = len(list(islice(expanded(text), 2))) > 1
    for name in expanded(text):
        try:
            yield from walk_source(name, lookup)
        except DataError as error:  # noqa: PERF203 -- each may fail
            if not several or isinstance(error, NotFetchedError):
                raise
            lookup.broken.append(str(error))


def _of_matches(pattern: str, lookup: Lookup) -> Iterator[ImageFile]:
    matches = sorted(map(Path, glob.iglob(pattern, recursive=True)))  # noqa: PTH207 -- Path.glob takes no absolute pattern
    wanted = Path(pattern).suffix.lower()
    if wanted in DATA_SUFFIXES:
        files = [match for match in matches if not is_folder(match)]
        yield from walk_data_files(files, lookup)
        return
    for match in matches:
        if is_folder(match):
            yield from walk_images(match, lookup.skipped)
        elif is_image(match):
            yield match
        else:
            lookup.skipped[kind_of_file(match)] += 1
