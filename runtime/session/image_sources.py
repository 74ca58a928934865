"""What the user named → image files: files, folders (recursive) and globs."""

from __future__ import annotations

import glob
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.decoding.image_formats import IMAGE_SUFFIXES, is_image, readable_formats
from vptkit.errors import DataError
from vptkit.images.image_file import kind_of_file, walk_images
from vptkit.paths.path_advice import advice
from vptkit.paths.path_kind import kind_of
from vptkit.regular_files import is_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["find_images", "images_of", "walk_source"]

# A file of another suffix may be an image all the same; these are known to be none.
_NO_IMAGES = ("adapter", "weights", "graph", "torch", "engine", "archive", "video", "part")


def find_images(sources: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the images of files, folders and globs, each once, in the order they were named.

    A file that is named itself is taken whatever it is; folders and globs give the files that are images
    by their ending or their first bytes (`vptkit.decoding.image_formats`), sorted by path.

    Raises:
        DataError: a source does not exist, or holds no images.
    """
    paths: dict[Path, None] = {}
    for source in sources:
        paths.update(dict.fromkeys(images_of(source)))
    if not paths:
        raise DataError("no sources: name at least one image, folder or glob")
    return list(paths)


def images_of(source: str | os.PathLike[str]) -> list[Path]:
    """The images of one file, folder or glob; see `find_images`.

    Raises:
        DataError: it does not exist, or holds no images.
    """
    return list(walk_source(source, Counter()))


def walk_source(source: str | os.PathLike[str], skipped: Counter[str]) -> Iterator[Path]:
    """The images of one file, folder or glob, one by one.

    Args:
        source: as the user named it.
        skipped: what of a folder or glob is passed over is counted there on the way.

    Raises:
        DataError: on the way: it does not exist, or holds no images.
    """
    if not os.fspath(source):
        raise DataError("a source is the empty text: expected an image, a folder or a glob")
    path = Path(source)
    if is_folder(path):
        found = walk_images(path, skipped)
    elif os.path.lexists(path):  # a link to nothing, too: whoever opens it says so
        if path.suffix.lower() not in IMAGE_SUFFIXES and kind_of(path).kind in _NO_IMAGES:
            raise DataError(advice(path, "images"))
        yield path
        return
    elif glob.has_magic(str(source)):
        found = _of_matches(str(source), skipped)
    else:
        raise DataError(advice(path, "images") or f"{source}: no such file or folder")
    first = next(found, None)
    if first is None:
        plain = f"{source}: no images there (looked for {', '.join(readable_formats())})"
        raise DataError((is_folder(path) and advice(path, "images")) or plain)
    yield first
    yield from found


def _of_matches(pattern: str, skipped: Counter[str]) -> Iterator[Path]:
    for match in sorted(map(Path, glob.iglob(pattern, recursive=True))):  # noqa: PTH207 -- Path.glob takes no absolute pattern
        if is_folder(match):
            yield from walk_images(match, skipped)
        elif is_image(match):
            yield match
        else:
            skipped[kind_of_file(match)] += 1
