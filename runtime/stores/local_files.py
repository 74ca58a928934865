"""A file that is read at many places: on this machine, or the copy of an object that a store holds.

A copy has no name in the file system, so it goes with the process, however that ends. As long as an
image of it may be wanted it is among the last that were used; a part of one that is gone is fetched by
itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vptkit.errors import DataError, OutputError, VptkitError
from vptkit.regular_files import open_regular

from .store_address import shown_address

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LocalFile", "fetch_ahead", "forget_copy", "on_this_machine", "part_of"]

_FEWEST, _MOST = 3, 16  # copies that are kept
_ROOM = 2 << 30  # bytes of them, if they are more than the fewest
_BLOCK = 8 << 20

_lock = threading.Lock()
_copies: OrderedDict[str, Future[LocalFile]] = OrderedDict()


@dataclass(frozen=True)  # without slots, so that a finalizer can hang on it
class LocalFile:
    """A file that can be opened by a path as long as this is held.

    Attributes:
        path: of the file, or of the copy.
        title: what messages call it.
        copy: the copy, open.
        size: bytes of it.
    """

    path: Path
    title: str
    copy: BinaryIO | None = None
    size: int = 0

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Say of the copy what it is a copy of.

        Raises:
            VptkitError: as what is raised inside.
        """
        try:
            yield
        except VptkitError as error:
            if self.copy is None or str(self.path) not in str(error):
                raise
            raise type(error)(str(error).replace(str(self.path), self.title)) from error


def on_this_machine(file: Path | str) -> LocalFile:
    """The file itself, or the copy of an object; it is fetched if that was not done yet.

    Args:
        file: a path, or an address in a store.

    Raises:
        DataError: it is not there, or cannot be read.
        OutputError: there is no space for the copy.
        MissingError: a package that reads this store is not installed.
    """
    if isinstance(file, Path):
        return LocalFile(file, str(file))
    return _copy_of(file).result()


def fetch_ahead(file: Path | str) -> None:
    """Begin to fetch, anew, what will be wanted next; a fault is told when it is wanted."""
    if isinstance(file, str):
        forget_copy(file)
        thread = threading.Thread(target=_copy_of, args=(file,), name="vptkit-fetch", daemon=True)
        thread.start()


def forget_copy(file: Path | str) -> None:
    """See to it that whoever wants an object now gets it as it is now."""
    if isinstance(file, str):
        with _lock:
            _copies.pop(file, None)


def part_of(file: Path | str, offset: int, size: int) -> bytes:
    """Some bytes of a file, or of an object: of its copy while there is one.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(file, Path):
        with open_regular(file, DataError) as stream:
            stream.seek(offset)
            return stream.read(size)
    with _lock:
        known = _copies.get(file)
    if known is not None and known.done() and known.exception() is None:
        local = known.result()  # held, so that it stays open
        assert local.copy is not None  # noqa: S101 -- of an address
        return os.pread(local.copy.fileno(), size, offset)
    from .object_stores import read_range

    return read_range(file, offset, size)


def _copy_of(address: str) -> Future[LocalFile]:
    """The copy of an object, done: one thread fetches it, the others wait."""
    with _lock:
        found = _copies.get(address)
        if found is not None:
            _copies.move_to_end(address)
        else:
            mine = _copies[address] = Future()
    if found is not None:
        with contextlib.suppress(Exception):
            found.result()
        return found
    try:
        mine.set_result(_fetched(address))
    except BaseException as error:
        mine.set_exception(error)
        with _lock:
            _copies.pop(address, None)
    with _lock:
        _drop_old()
    return mine


def _drop_old() -> None:
    """Forget the oldest copies; their files go when nobody holds them any more."""
    done = [name for name, one in _copies.items() if one.done() and one.exception() is None]
    room = _ROOM - sum(_copies[name].result().size for name in done)
    for name in done[:-_FEWEST]:
        if room >= 0 and len(_copies) <= _MOST:
            break
        room += _copies.pop(name).result().size


def _fetched(address: str) -> LocalFile:
    import tempfile

    from .object_stores import reading

    title = shown_address(address)
    stream = tempfile.TemporaryFile(prefix="vptkit-")  # noqa: SIM115 -- it is the copy
    try:
        with reading(address) as content:
            while block := content.read(_BLOCK):
                _write(stream, block, title)
        stream.flush()
    except BaseException:
        stream.close()
        raise
    path = Path(f"/proc/self/fd/{stream.fileno()}")
    found = LocalFile(path, title, stream, stream.tell())
    weakref.finalize(found, stream.close)
    return found


def _write(stream: BinaryIO, block: bytes, title: str) -> None:
    try:
        stream.write(block)
    except OSError as error:
        import tempfile

        raise OutputError(
            f"{tempfile.gettempdir()}: cannot hold a copy of {title}: {error.strerror}. Set TMPDIR to "
            "a folder with more space."
        ) from error
