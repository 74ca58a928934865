"""Numbered images, or a folder of them, as a video that has no clock."""

from __future__ import annotations

import functools
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vptkit.images.image_file import image_files, open_image
from vptkit.regular_files import is_folder

from .frame import StreamError
from .source_protocol import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["ImageSequenceSource"]

_NUMBER = re.compile(r"%(0?)(\d*)d")


class ImageSequenceSource:
    """Images in the order of their numbers: `frames/%05d.png`, or a folder in the order of its names.

    The numbers may begin anywhere and have gaps. A broken image is one broken frame.
    """

    live = False

    def __init__(self, target: str, name: str) -> None:
        self.name = name
        self._target = target
        self._closed = False

    def frames(self) -> Iterator[Picture]:
        """Its pictures; see `Source`."""
        folder = Path(self._target)
        paths = image_files(folder) if is_folder(folder) else _numbered(folder)
        if not paths:
            raise StreamError(f"{self.name}: no such images", lasting=True)
        for path in paths:
            if self._closed:
                return
            yield Picture(time.monotonic(), None, functools.partial(_pixels, path))

    def close(self) -> None:
        """No further picture; see `Source`."""
        self._closed = True


def _numbered(pattern: Path) -> list[Path]:
    """The files that `%d`, `%5d` or `%05d` in the last part of a path stands for, by number."""
    if not is_folder(pattern.parent):
        return []
    numbered = _expression(pattern.name)
    found = [(numbered.fullmatch(path.name), path) for path in pattern.parent.iterdir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def _expression(name: str) -> re.Pattern[str]:
    """The pattern of printf as a regular expression; `%%` is a percent sign."""
    parts = re.split(r"(%%|%\d*d)", name)
    return re.compile("".join(map(_part, parts)), re.ASCII)


def _part(text: str) -> str:
    number = _NUMBER.fullmatch(text)
    if number is None:
        return re.escape("%" if text == "%%" else text)
    width = int(number[2] or "1")
    longer = rf"[1-9]\d{{{width},}}"
    return (
        rf"(\d{{{width}}}|{longer})"
        if number[1] or width == 1
        else rf"( *\d{{1,{width}}}|{longer})"
    )


def _pixels(path: Path) -> NDArray[np.uint8]:
    with open_image(path) as image:
        return np.asarray(image)
