"""The images of a run on many machines: listed once, in batches, on a disk that all of them reach."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import DataError, OutputError

from .image_lines import image_of, line_of_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile

__all__ = ["ImageList", "ImageListWriter"]

_NAMES, _ENDS = "images.jsonl", "batches.bin"
_ROW = 2  # of a batch: bytes and images up to its end


class ImageListWriter:
    """Adds batches to a list; see `ImageList`."""

    def __init__(self, folder: Path, batches: int) -> None:
        """Cut off what is behind the given number of batches, which a killed run may have left.

        Raises:
            OutputError: there are fewer.
        """
        self._names, self._ends = folder / _NAMES, folder / _ENDS
        for file in (self._names, self._ends):
            file.touch()
        ends = _ends_of(self._ends)
        if len(ends) < batches:
            raise OutputError(f"{self._ends}: {len(ends)} batches, expected {batches}")
        self.batches = batches
        self._size, self.images = (int(n) for n in ends[batches - 1]) if batches else (0, 0)
        for file, size in ((self._names, self._size), (self._ends, ends.itemsize * _ROW * batches)):
            with file.open("r+b") as stream:
                stream.truncate(size)

    def extend(self, images: Iterable[ImageFile], batch: int) -> None:
        """Add images, `batch` of them each time; the last batch may be smaller.

        Raises:
            DataError: an image lies nowhere that another machine could read.
            OutputError: the disk is full.
        """
        rest = iter(images)
        try:
            with self._names.open("ab") as names, self._ends.open("ab") as ends:
                while portion := list(islice(rest, batch)):
                    lines = b"".join(line_of_image(image) for image in portion)
                    names.write(lines)
                    self._size += len(lines)
                    self.images += len(portion)
                    self.batches += 1
                    ends.write(np.array([self._size, self.images], "<u8").tobytes())
        except OSError as error:
            raise OutputError(f"{self._names}: cannot be written: {error.strerror}") from error


class ImageList:
    """Batches of images by number, read on any machine.

    `images.jsonl` holds a line an image; `batches.bin` uint64 [n, 2], little-endian: of each batch
    the bytes and the images up to its end.
    """

    def __init__(self, folder: Path, batches: int) -> None:
        """Open a list.

        Raises:
            DataError: it has fewer batches here: the folder is another one on this machine.
        """
        self._names = folder / _NAMES
        self._found = np.empty((0, _ROW), np.uint64)
        if not batches:
            return
        try:
            self._found = _ends_of(folder / _ENDS)[:batches]
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror}") from error
        if len(self._found) < batches:
            raise DataError(f"{folder}: {len(self._found)} batches of images, expected {batches}")

    def first(self, batch: int) -> int:
        """The number of a batch's first image among all."""
        return int(self._found[batch - 1, 1]) if batch else 0

    def size(self, batch: int) -> int:
        """How many images a batch has."""
        return int(self._found[batch, 1]) - self.first(batch)

    def batch(self, batch: int) -> list[ImageFile]:
        """The images of a batch."""
        begin = int(self._found[batch - 1, 0]) if batch else 0
        with self._names.open("rb") as stream:
            stream.seek(begin)
            lines = stream.read(int(self._found[batch, 0]) - begin).splitlines()
        return [image_of(line) for line in lines]

    def __iter__(self) -> Iterator[ImageFile]:
        """All images, one by one."""
        count = self.first(len(self._found))
        if not count:
            return
        with self._names.open("rb") as stream:
            yield from map(image_of, islice(stream, count))


def _ends_of(file: Path) -> NDArray[Any]:
    """uint64 [n, 2] of whole rows."""
    numbers = np.fromfile(file, "<u8")
    return numbers[: len(numbers) // _ROW * _ROW].reshape(-1, _ROW)
