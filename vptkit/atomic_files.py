"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import platform
import time
from typing import TYPE_CHECKING

from vptkit.errors import OutputError
from vptkit.part_files import part_of, remove, remove_dead_parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = [
    "atomic_file",
    "atomic_folder",
    "locked_folder",
    "recover_folder",
    "require_absent",
    "require_writable",
    "sha256_of_file",
    "sha256_of_stream",
]

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_SMALL = 1 << 17  # bytes
_PROBE_BYTES = 1 << 16  # more than fits into what a file system keeps beside its files


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: BinaryIO) -> str:
    """SHA-256 of all of an open regular file, in hexadecimal; its position stays.

    What the stream has in its buffer is not asked: the file may have changed since.
    """
    first = os.pread(stream.fileno(), _SMALL, 0)
    digest, offset = hashlib.sha256(first), len(first)
    if offset < _SMALL:  # all of it: a bank has many small files
        return digest.hexdigest()
    view = memoryview(bytearray(1 << 18))
    while size := os.preadv(stream.fileno(), [view], offset):
        digest.update(view[:size])
        offset += size
    return digest.hexdigest()


def require_absent(path: Path, *, force: bool) -> None:
    """Refuse to overwrite what exists, unless forced; and refuse a missing parent folder.

    Raises:
        OutputError: the path exists and force is off, or its folder does not exist.
    """
    try:
        there, folder = os.path.lexists(path), path.parent.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error
    if not folder:
        raise OutputError(f"{path}: the folder {path.parent} does not exist. Create it first.")
    if there and not force:
        raise OutputError(f"{path}: exists already. Pass --force to replace it, or another name.")


def require_writable(path: Path) -> None:
    """Find out before a long computation whether its output can be written.

    Raises:
        OutputError: the folder is not writable, the file system read-only or full.
    """
    with _disk_errors(path, every=True), part_of(path) as part:
        part.write_bytes(bytes(_PROBE_BYTES))
        _sync(part)


@contextlib.contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary path, an empty file; give it its name on success, remove it on any failure.

    On success what killed runs left of the same output goes too (`vptkit.part_files`).

    Args:
        path: where the file shall appear; an existing file is replaced.
        mode: of the file, less the umask.

    Raises:
        OutputError: the disk is full, read-only, or the folder is not writable.
    """
    if path.is_dir():
        raise OutputError(f"{path}: a folder. Remove it, or choose another name.")
    with contextlib.ExitStack() as stack:
        with _disk_errors(path, every=True):
            part = stack.enter_context(part_of(path))
        with _disk_errors(path):
            yield part
            part.chmod(mode & ~_umask())
            _sync(part)
            part.replace(path)
            _sync_folder(path.parent)
    remove_dead_parts(path.parent, [path.name])


@contextlib.contextmanager
def atomic_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; give it its name on success, remove it otherwise.

    With force an existing folder is exchanged for the new one in one step, so its name always means
    one of them, whole; and only then removed. Where the file system cannot exchange, the old one is
    moved aside first (`recover_folder`): at any time both are there, under one name or another. On
    success what killed runs left of the same output goes too (`vptkit.part_files`).

    Raises:
        OutputError: the path exists and force is off, or the disk does not let us write.
    """
    recover_folder(path)
    require_absent(path, force=force)
    require_writable(path)
    with contextlib.ExitStack() as stack:
        with _disk_errors(path, every=True):
            part = stack.enter_context(part_of(path, folder=True))
        with _disk_errors(path):
            yield part
            part.chmod(0o777 & ~_umask())
            for file in part.rglob("*"):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())
                    _sync(file)
            for folder in (*(file for file in part.rglob("*") if file.is_dir()), part):
                _sync_folder(folder)
            _put(part, path, force=force)  # what had the name is now the part, and goes as one
    remove_dead_parts(path.parent, [path.name])


@contextlib.contextmanager
def locked_folder(path: Path) -> Iterator[int]:
    """Yield the descriptor of a folder while nobody else edits or replaces it (`atomic_folder`).

    The lock dies with its process. Where there are no locks (some network file systems) there is
    none.

    Raises:
        OutputError: there is no such folder, or it may not be read.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(f"{path}: cannot be locked: {error.strerror}") from error
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(path, handle):
                yield handle
                return
        finally:
            os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    """Whether a name means the folder that was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _put(part: Path, path: Path, *, force: bool) -> None:
    """Give the new folder its name; afterwards `part` is the old one, if there was one."""
    with contextlib.suppress(FileExistsError):
        _rename(part, path, _NOREPLACE)
        _sync_folder(path.parent)
        return
    require_absent(path, force=force)  # another run may have been faster
    with contextlib.ExitStack() as stack:
        if path.is_dir() and not path.is_symlink():
            stack.enter_context(locked_folder(path))
        try:
            _rename(part, path, _EXCHANGE)
        except NotImplementedError:
            _exchange_in_steps(part, path)
    _sync_folder(path.parent)


def _exchange_in_steps(part: Path, path: Path) -> None:
    """For file systems that cannot exchange; see `atomic_folder`."""
    aside = _aside(path)
    path.rename(aside)
    try:
        part.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    aside.rename(part)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced-by-vptkit")


def recover_folder(path: Path) -> None:
    """Put back what a run moved aside that was killed before the new folder had its name.

    If the new one has it, what was moved aside is removed. A living run holds a lock on it and is
    waited for, a moment; where nothing can be done nothing is.
    """
    aside = _aside(path)
    if not os.path.lexists(aside):
        return
    with contextlib.suppress(OSError):
        handle = os.open(aside, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not _locked(handle):
                return
            if os.path.lexists(path):
                remove(aside)
            else:
                aside.rename(path)
        finally:
            os.close(handle)


def _locked(handle: int) -> bool:
    """Whether the lock of a folder could be had in a moment."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.005)
    return False


_NOREPLACE, _EXCHANGE = 1, 2  # of renameat2(2), Linux 3.15
_AT_FDCWD = -100
_PATIENCE_S = 2.0  # two renames take less
_NUMBERS = {
    "x86_64": 316,
    "aarch64": 276,
}  # of the system call, where the C library has no function
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def _rename(old: Path, new: Path, flag: int) -> None:
    """Rename in one step: to a name that must be free, or in exchange for what has it.

    Raises:
        FileExistsError: the name is not free.
        NotImplementedError: kernel or file system cannot exchange.
        OSError: see rename(2).
    """
    if _renameat2(os.fsencode(old), os.fsencode(new), flag):
        return
    if flag == _EXCHANGE:
        raise NotImplementedError
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    old.rename(new)


def _renameat2(old: bytes, new: bytes, flag: int) -> bool:
    """Whether kernel and file system did it."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if hasattr(library, "renameat2"):
            failed = library.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, flag)
        else:
            number = ctypes.c_long(_NUMBERS[platform.machine()])
            failed = library.syscall(number, _AT_FDCWD, old, _AT_FDCWD, new, flag)
    except (KeyError, OSError, AttributeError):  # another system
        return False
    if not failed:
        return True
    reason = ctypes.get_errno()
    if reason in _CANNOT:
        return False
    raise OSError(reason, os.strerror(reason), os.fsdecode(old), None, os.fsdecode(new))


@contextlib.contextmanager
def _disk_errors(path: Path, *, every: bool = False) -> Iterator[None]:
    """Turn what the disk refuses into an OutputError; other errors pass, unless it is every one."""
    try:
        yield
    except OSError as error:
        if not every and error.errno not in _DISK_ERRORS:
            raise
        raise OutputError(
            f"{path}: cannot be written: {error.strerror}. Nothing was left behind; "
            "free some space or choose another place."
        ) from error


def _sync_folder(path: Path) -> None:
    """Have the names themselves survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
