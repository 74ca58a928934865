"""What the user named → image files: files, folders (recursive) and globs."""

from __future__ import annotations

import glob
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.decoding.image_formats import IMAGE_SUFFIXES, is_image, readable_formats
from vptkit.errors import DataError
from vptkit.images.image_file import Listing, kind_of_file, list_images
from vptkit.paths.path_advice import advice
from vptkit.paths.path_kind import kind_of
from vptkit.regular_files import is_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["find_images", "images_of", "listing_of"]

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
    return listing_of(source).images


def listing_of(source: str | os.PathLike[str]) -> Listing:
    """The images of one file, folder or glob, and what of a folder or glob was passed over.

    Raises:
        DataError: it does not exist, or holds no images.
    """
    if not os.fspath(source):
        raise DataError("a source is the empty text: expected an image, a folder or a glob")
    path = Path(source)
    if is_folder(path):
        found = list_images(path)
    elif os.path.lexists(path):  # a link to nothing, too: whoever opens it says so
        if path.suffix.lower() not in IMAGE_SUFFIXES and kind_of(path).kind in _NO_IMAGES:
            raise DataError(advice(path, "images"))
        return Listing([path], Counter())
    elif glob.has_magic(str(source)):
        matches = sorted(Path(match) for match in glob.glob(str(source), recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute pattern
        found = _of_matches(matches)
    else:
        raise DataError(advice(path, "images") or f"{source}: no such file or folder")
    if not found.images:
        plain = f"{source}: no images there (looked for {', '.join(readable_formats())})"
        raise DataError((is_folder(path) and advice(path, "images")) or plain)
    return found


def _of_matches(matches: list[Path]) -> Listing:
    images, skipped = [], Counter[str]()
    for match in matches:
        if is_folder(match):
            found = list_images(match)
            images += found.images
            skipped += found.skipped
        elif is_image(match):
            images.append(match)
        else:
            skipped[kind_of_file(match)] += 1
    return Listing(images, skipped)
