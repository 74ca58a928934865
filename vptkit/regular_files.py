"""Files that a stranger may have made: regular ones only, opened without waiting, read with a bound.

A name proves nothing: it may be a link to anywhere, a FIFO that blocks for ever, a device without an
end, and may become one between a check and the opening. So the opened descriptor is asked.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vptkit.errors import VptkitError

__all__ = [
    "Stamp",
    "head_of",
    "is_file",
    "is_folder",
    "is_plain_name",
    "names_in",
    "open_inside",
    "open_regular",
    "opened_folder",
    "read_bounded",
    "read_regular",
    "require_regular",
    "stamp_of",
]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}
# Without O_NONBLOCK a FIFO without a writer would block; on a regular file it has no effect.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ORDINARY = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY


class Stamp(NamedTuple):
    """What changes whenever the content of a file does."""

    device: int
    number: int
    size: int  # bytes
    modified: int  # ns
    changed: int  # ns

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        """As the operating system tells it."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def stamp_of(stream: BinaryIO) -> Stamp:
    """The stamp of an open file."""
    return Stamp.of(os.fstat(stream.fileno()))


def is_plain_name(name: str, *, levels: int = 1) -> bool:
    """Whether a name of a format is relative, has at most that many levels, and no way up or out."""
    if len(name) < 256 and name.count("/") < levels and _ORDINARY.fullmatch(name):
        return True  # nearly all of them, and found out ten times as fast
    parts = name.split("/")  # of an absolute one the first is empty
    return (
        len(parts) <= levels
        and all(part not in ("", ".", "..") and len(os.fsencode(part)) < 256 for part in parts)
        and name.isprintable()
        and "\\" not in name
    )


def is_file(path: Path) -> bool:
    """Whether a regular file is there, or a link to one; no for a name that no file can have.

    Path.is_file raises an OSError for a name that is too long.
    """
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether a folder is there, or a link to one; no for a name that no folder can have."""
    return os.path.isdir(path)  # noqa: PTH112


def open_regular(
    path: Path, error: type[VptkitError], *, limit: int | None = None, inside: str | None = None
) -> BinaryIO:
    """Open a file that the user named; a link to it is followed, as the user made it.

    Args:
        path: the file.
        error: what to raise.
        limit: the most bytes that such a file has.
        inside: a folder, without links and with a slash at its end: where it must lie, whatever
            links lead to it. The opened file is asked.

    Raises:
        error: there is no such file, it may not be read, it is not a regular file, it is larger, or
            it lies elsewhere.
    """
    with _named(path, error):
        _require(path, path.stat(), error)  # a device may act when it is opened
        stream = _checked(os.open(path, _READ), path, error)
    wrong = ""
    if limit is not None and os.fstat(stream.fileno()).st_size > limit:
        wrong = _too_large(path, limit)
    elif inside is not None and not (place := _place(stream, path)).startswith(inside):
        wrong = f"{path}: lies at {place}, expected it in {inside}"
    if wrong:
        stream.close()
        raise error(wrong)
    return stream


@contextlib.contextmanager
def opened_folder(
    path: Path, error: type[VptkitError], *, within: int | None = None, name: str | None = None
) -> Iterator[int]:
    """Yield the descriptor of a folder: what is done by it stays in that one, whatever its name is.

    Args:
        path: the folder, for messages; and what is opened unless `within` is given.
        error: what to raise.
        within: the descriptor of a folder; then `name` in it is opened, and is no link.
        name: see there.

    Raises:
        error: there is no such folder, it may not be read, or a link stands in its place.
    """
    with _named(path, error):
        if within is None:
            handle = os.open(path, _FOLDER)
        else:
            _require_no_link(path, str(name), within, error)
            handle = os.open(str(name), _FOLDER | os.O_NOFOLLOW, dir_fd=within)
    try:
        yield handle
    finally:
        os.close(handle)


def names_in(handle: int) -> list[str]:
    """What an open folder holds, in order."""
    with os.scandir(handle) as entries:
        return sorted(entry.name for entry in entries)


def open_inside(
    folder: Path, name: str, error: type[VptkitError], *, handle: int | None = None
) -> BinaryIO:
    """Open a file by its name within a folder, without following a link below that folder.

    Args:
        folder: which the user named; it may be a link itself.
        name: relative, such as `adapters/birds.safetensors`.
        error: what to raise.
        handle: the folder's descriptor, where it is open already (`opened_folder`).

    Raises:
        error: the name leads out of the folder or through a link, there is no such file, it may not
            be read, or it is not a regular file.
    """
    path = folder / name
    if not is_plain_name(name, levels=name.count("/") + 1):
        raise error(f"{folder}: the name {name!r} does not stay below the folder")
    *folders, last = name.split("/")
    with contextlib.ExitStack() as stack:
        if handle is None:
            handle = stack.enter_context(opened_folder(folder, error))
        for part in folders:
            handle = stack.enter_context(opened_folder(path, error, within=handle, name=part))
        with _named(path, error):
            _require(path, os.stat(last, dir_fd=handle, follow_symlinks=False), error)
            return _checked(os.open(last, _READ | os.O_NOFOLLOW, dir_fd=handle), path, error)


def head_of(path: Path, size: int) -> bytes:
    """The first bytes of a regular file, in the fewest calls: for the many files of a folder.

    Returns:
        Up to `size` bytes; none where there is no such file, or it is not regular or may not be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 -- a device may act when it is opened
            return b""
        handle = os.open(path, _READ)
    except (OSError, ValueError):
        return b""
    try:
        regular = stat.S_ISREG(os.fstat(handle).st_mode)
        return os.read(handle, size) if regular else b""
    except OSError:
        return b""
    finally:
        os.close(handle)


def require_regular(path: Path, error: type[VptkitError]) -> None:
    """For what a library opens by its name: the file is there, is regular, and may be read.

    Raises:
        error: see `open_regular`.
    """
    open_regular(path, error).close()


def read_regular(
    path: Path, error: type[VptkitError], *, limit: int, inside: str | None = None
) -> bytes:
    """All of a file that the user named.

    Args:
        path: the file.
        error: what to raise.
        limit: the most bytes that such a file has.
        inside: of `open_regular`.

    Raises:
        error: see `open_regular`; or the file is larger.
    """
    with open_regular(path, error, limit=limit, inside=inside) as stream:
        size = os.fstat(stream.fileno()).st_size
        return read_bounded(stream, path, error, limit=limit, expected=size)


def read_bounded(
    stream: BinaryIO,
    source: object,
    error: type[VptkitError],
    *,
    limit: int,
    expected: int = 1 << 20,
) -> bytes:
    """All that a stream holds, if that is not more than `limit` bytes.

    Args:
        stream: from where it stands.
        source: for the message.
        error: what to raise.
        limit: the most bytes.
        expected: how many there probably are; room for so many is made at once.

    Raises:
        error: it holds more.
    """
    parts, left = [], limit + 1
    while left > 0 and (part := stream.read(min(left, expected + 1))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise error(_too_large(source, limit))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _place(stream: BinaryIO, path: Path) -> str:
    """Where an open file lies, without links; by its name where nothing tells (no /proc)."""
    try:
        return os.readlink(f"/proc/self/fd/{stream.fileno()}")  # noqa: PTH115 -- for each image
    except OSError:
        return os.path.realpath(path)


def _too_large(source: object, limit: int) -> str:
    return f"{source}: more than {limit} bytes, which no such file has"


def _checked(handle: int, path: Path, error: type[VptkitError]) -> BinaryIO:
    try:
        _require(path, os.fstat(handle), error)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _require(path: Path, found: os.stat_result, error: type[VptkitError]) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise error(f"{path}: {kind}, expected a regular file")


def _require_no_link(path: Path, part: str, handle: int, error: type[VptkitError]) -> None:
    if stat.S_ISLNK(os.stat(part, dir_fd=handle, follow_symlinks=False).st_mode):
        raise error(f"{path}: {part} is a symbolic link, which is not followed here")


@contextlib.contextmanager
def _named(path: Path, error: type[VptkitError]) -> Iterator[Any]:
    """What the operating system says, with the name that the user knows."""
    try:
        yield
    except FileNotFoundError as cause:
        raise error(f"{path}: no such file") from cause
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}") from cause
    except ValueError as cause:  # a NUL in the name
        raise error(f"{str(path)!r}: not a name of a file ({cause})") from cause
