"""Where an output is made before it has its name, and how what killed runs left is told from it.

While NAME is made, beside it lie, with the same eight random letters,

.NAME.xxxxxxxx.lock    held by whoever makes NAME, by flock(2): the kernel lets go of it when the
                       process ends, however that ends. Whoever gets it without waiting knows that
                       the owner is gone. Made first, removed last.
.NAME.xxxxxxxx.part    the file or folder that is made; renamed to NAME when it is whole.

The lock is a file of its own: libraries may replace the file that they write, a folder is renamed,
and a network file system passes locks on files to other machines, but not those on folders. A part
without a lock is of somebody who could not lock, or of an older vptkit: nobody can tell that it is
dead, so it stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["part_of", "remove", "remove_dead_parts"]

_LOCK = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.lock", re.DOTALL)  # as tempfile makes them
_TRIES = 100  # each is lost only to a neighbour that sweeps in the same microseconds


@contextlib.contextmanager
def part_of(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield where to make `path`: an empty file or folder beside it that nobody else may read.

    What has that name in the end goes.

    Args:
        path: the output; its folder must exist.
        folder: it shall be a folder.

    Raises:
        OSError: nothing can be made there.
    """
    lock, handle = _locked(path)
    part = lock.with_suffix(".part")
    try:
        if folder:
            part.mkdir(mode=0o700)
        else:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        yield part
    finally:
        _remove(lock)
        os.close(handle)


def remove_dead_parts(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what processes left that are gone; never a living one's, or another user's.

    What cannot be removed stays: whoever calls has done what was asked.

    Args:
        folder: where the outputs are.
        names: of the outputs; None for all.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 -- names are enough
            found = _LOCK.fullmatch(name)
            if found and (names is None or found["name"] in names):
                with contextlib.suppress(OSError):
                    _remove_if_dead(folder / name)


def _locked(path: Path) -> tuple[Path, int]:
    """Make a lock and take it, before a neighbour takes it for a dead one's.

    Returns:
        Its path, and its descriptor. Where there are no locks there is no such file.
    """
    for _ in range(_TRIES):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".lock")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a neighbour has it, and removes it
            os.close(handle)
            continue
        except OSError:
            Path(name).unlink()
            return Path(name), handle
        if os.fstat(handle).st_nlink:
            return Path(name), handle
        os.close(handle)  # a neighbour had it, and removed it
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))


def _remove_if_dead(lock: Path) -> None:
    """Remove a part and its lock, if nobody holds that.

    Raises:
        OSError: somebody does, or it is a link.
    """
    handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owners = {os.fstat(handle).st_uid}
        with contextlib.suppress(FileNotFoundError):
            owners.add(lock.with_suffix(".part").lstat().st_uid)
        if owners == {os.geteuid()}:
            _remove(lock)
    finally:
        os.close(handle)


def _remove(lock: Path) -> None:
    """Remove a part and then its lock: killed in between, the next one goes on."""
    part = lock.with_suffix(".part")
    remove(part)
    if not os.path.lexists(part):
        with contextlib.suppress(OSError):
            lock.unlink()


def remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or of a link the link; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
