"""The members of a plain tar file that a stranger made, one by one: where each lies, and no more."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

from vptkit.errors import DataError
from vptkit.regular_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["key_and_suffix", "tar_members"]

_LONGEST_HEADER = 16 << 10  # tarfile takes the square of it in time


class _Bounded:
    """An archive as tarfile reads it: it reads headers whole, of the size that they say."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"it has a header of {size} bytes")
        return self._stream.read(size)


def tar_members(file: Path) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    """The regular files in an archive, each with the archive, which may be read at its place.

    Args:
        file: the archive.

    Raises:
        DataError: on the way: it is not a whole plain tar file; it is compressed, or has holes.
    """
    with open_regular(file, DataError) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            with tarfile.open(fileobj=_Bounded(stream), mode="r:") as archive:  # type: ignore[call-overload]
                for member in archive:
                    archive.members = []  # tarfile would keep them all
                    _require_within(file, member, size)
                    if member.isreg():
                        yield member, stream
        except (tarfile.TarError, RecursionError, ValueError, OverflowError) as error:
            raise DataError(
                f"{file}: not a whole plain tar file: {error}. If it is compressed, decompress it."
            ) from error
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}") from error


def key_and_suffix(name: str) -> tuple[str, str]:
    """a/b.c.jpg → the key a/b and .c.jpg: the suffix begins at the first dot of the last part."""
    folder, _, last = name.rpartition("/")
    key, dot, suffix = last.partition(".")
    return f"{folder}/{key}" if folder else key, dot + suffix.lower()


def _require_within(file: Path, member: tarfile.TarInfo, size: int) -> None:
    """A member is what it says, and is in the file: no holes, no negative size that leads back."""
    if member.issparse():
        raise DataError(f"{file}: {member.name} is sparse; write the archive without --sparse")
    if member.size < 0 or (member.isreg() and member.offset_data + member.size > size):
        raise tarfile.ReadError(f"{member.name} would have {member.size} bytes")
