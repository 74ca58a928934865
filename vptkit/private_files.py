"""Files that only this user may have written: locks, keys, engines.

A name in a folder that others may write can be a link to a file of ours, or a file of theirs. So
everything here is opened without following links, and the opened descriptor is asked whose it is
before a byte is written or believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.part_files import part_of
from vptkit.regular_files import open_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from vptkit.errors import VptkitError

__all__ = [
    "create_private",
    "locked",
    "not_private",
    "open_private",
    "private_folder",
    "require_unshared_parents",
    "sudo_user",
    "user_folder",
]

_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def user_folder(variable: str, usual: str) -> Path:
    """A folder of this user's own, as the XDG base directories have it; it need not exist.

    A process of root that was started with `sudo -E` has another's HOME; that is not root's own.

    Args:
        variable: "XDG_CONFIG_HOME" or "XDG_CACHE_HOME"; counts if it is absolute.
        usual: below the home folder, as ".config".
    """
    named = os.environ.get(variable, "")
    if named.startswith("/"):
        return Path(named)
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 -- Path.home() raises where there is none
    with contextlib.suppress(KeyError, OSError):
        if home.stat().st_uid != os.geteuid():
            home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    return home / usual


def sudo_user() -> int | None:
    """Who became root by sudo to run this; whoever may do that is trusted by root already."""
    named = os.environ.get("SUDO_UID", "")
    return int(named) if os.geteuid() == 0 and named.isascii() and named.isdecimal() else None


def not_private(found: os.stat_result) -> str | None:
    """Why a file or folder may be another user's work, or None: it is this user's or root's."""
    if found.st_uid not in (0, os.geteuid(), sudo_user()):
        return f"belongs to user {found.st_uid}, not to this user"
    if found.st_mode & 0o022:
        return f"others may write it (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def private_folder(path: Path, error: type[VptkitError], *, remedy: str) -> None:
    """Make a folder that only this user may enter, or mend the mode of one that is this user's.

    Args:
        path: it and its parents are made if need be; itself it is no link.
        error: what to raise.
        remedy: a sentence for the message.

    Raises:
        error: it cannot be made, is a link or no folder, is another's, or its file system keeps no
            modes.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        handle = os.open(path, _FOLDER)
    except OSError as cause:
        kind = "a symbolic link, " if path.is_symlink() else ""
        raise error(f"{path}: {kind}cannot be written: {cause.strerror}. {remedy}") from cause
    try:
        if os.fstat(handle).st_uid == os.geteuid():
            with contextlib.suppress(OSError):
                os.fchmod(handle, 0o700)
        reason = not_private(os.fstat(handle))
    finally:
        os.close(handle)
    if reason is not None:
        raise error(f"{path}: {reason}. {remedy}")


def require_unshared_parents(path: Path, error: type[VptkitError]) -> None:
    """For a folder that a library opens by its name: nobody else can put another in its place.

    Raises:
        error: a folder above it may be written by everybody, and is not sticky as /tmp is.
    """
    for parent in path.absolute().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise error(f"{parent}: everybody may write it, so what lies below is not safe")


def open_private(folder: Path, name: str, error: type[VptkitError]) -> BinaryIO:
    """Open a file in a folder, if both can only be this user's or root's work.

    Raises:
        error: as of `open_inside`, or others own or may write the file.
    """
    stream = open_inside(folder, name, error)
    reason = not_private(os.fstat(stream.fileno()))
    if reason is None:
        return stream
    stream.close()
    raise error(f"{folder / name}: {reason}")


def create_private(path: Path, content: bytes) -> None:
    """Make a file of mode 0600 that is there whole or not at all; one that is there stays.

    Raises:
        OSError: the disk does not let us.
    """
    with part_of(path) as part:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(part, path)


@contextlib.contextmanager
def locked(
    path: Path, error: type[VptkitError], *, waiting: Callable[[], None], remedy: str
) -> Iterator[None]:
    """Hold a lock while the block runs; it ends with the process, however that ends.

    The lock's file is made if need be, and is never written: whatever stands at its name stays.

    Args:
        path: the file, in a folder that exists.
        error: what to raise.
        waiting: called once if another process holds the lock; what it raises ends the waiting.
        remedy: a sentence for the message.

    Raises:
        error: the file cannot be made or opened, is a link or no file, or is another user's.
    """
    try:
        handle = os.open(path, _LOCK, 0o600)
    except OSError as cause:
        kind = "a symbolic link, " if path.is_symlink() else ""
        raise error(f"{path}: {kind}cannot be locked: {cause.strerror}. {remedy}") from cause
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{path}: no regular file, so it is no lock. Remove it. {remedy}")
        if found.st_uid not in (0, os.geteuid(), sudo_user()):
            raise error(f"{path}: belongs to user {found.st_uid}, not to this user. {remedy}")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
