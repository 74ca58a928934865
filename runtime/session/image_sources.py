"""What the user named → image files: files, folders (recursive) and globs."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import DataError
from vptkit.images.image_file import IMAGE_SUFFIXES, image_files
from vptkit.paths.path_advice import advice
from vptkit.paths.path_kind import kind_of
from vptkit.regular_files import is_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["find_images", "images_of"]

# A file of another suffix may be an image all the same; these are known to be none.
_NO_IMAGES = ("adapter", "weights", "graph", "torch", "engine", "archive", "video", "part")


def find_images(sources: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the images of files, folders and globs, each once, in the order they were named.

    A file that is named itself is taken whatever its suffix; folders and globs give the files with
    a suffix of `vptkit.images.image_file.IMAGE_SUFFIXES`, sorted by path.

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
    if not os.fspath(source):
        raise DataError("a source is the empty text: expected an image, a folder or a glob")
    path = Path(source)
    if is_folder(path):
        found = image_files(path)
    elif os.path.lexists(path):  # a link to nothing, too: whoever opens it says so
        if path.suffix.lower() not in IMAGE_SUFFIXES and kind_of(path).kind in _NO_IMAGES:
            raise DataError(advice(path, "images"))
        return [path]
    elif glob.has_magic(str(source)):
        matches = sorted(Path(match) for match in glob.glob(str(source), recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute pattern
        found = [image for match in matches for image in _matched(match)]
    else:
        raise DataError(advice(path, "images") or f"{source}: no such file or folder")
    if not found:
        plain = f"{source}: no images there (looked for {' '.join(sorted(IMAGE_SUFFIXES))})"
        raise DataError((is_folder(path) and advice(path, "images")) or plain)
    return found


def _matched(path: Path) -> list[Path]:
    if is_folder(path):
        return image_files(path)
    return [path] if path.suffix.lower() in IMAGE_SUFFIXES else []
