"""Names of images, as lists write them, → files: with or without the ending, relative to the list or below it.

A name means one file or none: the path itself, else the only image of that name below the list's folder.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vptkit.errors import DataError
from vptkit.images.image_file import list_images
from vptkit.regular_files import is_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ListedImages"]


class ListedImages:
    """The images that a list names, each once."""

    def __init__(self, file: Path) -> None:
        """Nothing is looked up yet.

        Args:
            file: the list.
        """
        self._folder = file.parent
        self._seen: dict[str, str] = {}
        self._below: dict[str, list[Path]] | None = None

    def find(self, where: str, name: str, place: str) -> Path:
        """The image of a name.

        Args:
            where: list and line, for messages.
            name: a path, relative to the list's folder, or an image's name with or without ending.
            place: what later messages call this line, as "line 3".

        Raises:
            DataError: there is none, there are several, or it is listed already.
        """
        image = self._folder / name
        if not is_file(image):
            image = self._only(where, name)
        key = os.path.normpath(image)
        if key in self._seen:
            raise DataError(f"{where}: {name} stands in {self._seen[key]} already")
        self._seen[key] = place
        return image

    def named(self, name: str) -> list[Path]:
        """The images below the list's folder that a name may mean: with or without ending and folders."""
        return sorted(set(self._images().get(os.path.normpath(name), [])))

    def _only(self, where: str, name: str) -> Path:
        found = self.named(name)
        if len(found) == 1:
            return found[0]
        if not found:
            raise DataError(f"{where}: {name}: no such file below {self._folder}")
        raise DataError(f"{where}: {self.choice(name, found)}")

    def choice(self, name: str, found: Sequence[Path]) -> str:
        """As "7 may be one of 2 images: a/7.jpg, b/7.jpg"."""
        named = ", ".join(str(path.relative_to(self._folder)) for path in found[:3])
        return f"{name} may be one of {len(found)} images: {named}"

    def _images(self) -> dict[str, list[Path]]:
        """Each image below the list by its name and by its path, both also without the ending."""
        if self._below is None:
            self._below = defaultdict(list)
            for path in list_images(self._folder).images:
                for key in _keys(PurePosixPath(path.relative_to(self._folder))):
                    self._below[key].append(path)
        return self._below


def _keys(path: PurePosixPath) -> Iterable[str]:
    return {path.name, path.stem, str(path), str(path.with_suffix(""))}
