"""The images in WebDataset shards and other plain tar files: found member by member, labels not needed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING

from vptkit.datasets.tar_members import key_and_suffix, tar_members
from vptkit.decoding.image_formats import IMAGE_SUFFIXES
from vptkit.errors import DataError
from vptkit.images.image_file import MAX_BYTES
from vptkit.runtime.stores.local_files import on_this_machine, part_of
from vptkit.runtime.stores.store_address import shown_address

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vptkit.runtime.stores.local_files import LocalFile

    from .lookup import Lookup

__all__ = ["TarImage", "walk_tar"]

_OF_SAMPLES = {".cls", ".json", ".txt"}  # what stands beside images; of the rest it is told
_MOST_MEMBERS = 100  # of a sample


@dataclass(frozen=True, slots=True)
class TarImage:
    """An image in a tar file.

    Attributes:
        file: the archive, or its address in a store.
        member: its whole name in there.
        offset, size: its bytes.
    """

    file: Path | str
    member: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{shown_address(self.file)}: {self.member}"

    @property
    def name(self) -> str:
        """Its name without folders."""
        return self.member.rpartition("/")[2]

    def read_bytes(self) -> bytes:
        """The encoded image.

        Raises:
            DataError: the archive is not there, or shorter than it was.
        """
        if self.size > MAX_BYTES:
            raise DataError(f"{self}: more than {MAX_BYTES} bytes, which no image has")
        content = part_of(self.file, self.offset, self.size)
        if len(content) < self.size:
            raise DataError(f"{self}: the archive ends within this image")
        return content


def walk_tar(file: Path | str, lookup: Lookup) -> Iterator[TarImage]:
    """The images of an archive, in its order.

    Of a sample (members with one name before the first dot) those count whose whole ending is an
    image's: a.jpg, and not a.seg.png beside it. If it has none, as photographs called 2024.05.01.jpg,
    all that end in one do.

    Args:
        file: the archive, or its address in a store.
        lookup: what is passed over is counted there.

    Raises:
        DataError: on the way: it is no whole plain tar file, or cannot be fetched.
    """
    local = on_this_machine(file)
    faults: list[DataError] = []
    members = _members(local, faults)
    for _, sample in groupby(members, key=lambda one: key_and_suffix(one.name)[0]):
        while some := list(islice(sample, _MOST_MEMBERS)):
            for member in _images_of(some, lookup):
                name = member.name.removeprefix("./")
                yield TarImage(file, name, member.offset_data, member.size)
    if faults:
        raise faults[0]


def _members(local: LocalFile, faults: list[DataError]) -> Iterator[tarfile.TarInfo]:
    """Members that are not hidden; a fault is kept, so that what came before it is answered first."""
    try:
        with local.errors():
            for member, _ in tar_members(local.path):
                if _is_shown(member.name):
                    yield member
    except DataError as error:
        faults.append(error)


def _is_shown(name: str) -> bool:
    """Not what is hidden, as macOS's ._a.jpg."""
    return not any(part.startswith(".") and part != "." for part in name.split("/"))


def _images_of(sample: Iterable[tarfile.TarInfo], lookup: Lookup) -> list[tarfile.TarInfo]:
    whole, last = [], []
    others = []
    for member in sample:
        suffix = key_and_suffix(member.name)[1]
        ending = suffix[suffix.rfind(".") :] if suffix else "no suffix"
        if suffix in IMAGE_SUFFIXES:
            whole.append(member)
        elif ending in IMAGE_SUFFIXES:
            last.append(member)
        elif suffix not in _OF_SAMPLES:
            others.append(ending if len(ending) <= 12 else "other")
    lookup.skipped.update(others)
    return whole or last
