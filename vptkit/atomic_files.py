"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import OutputError
from vptkit.part_files import part_of, remove_dead_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "atomic_file",
    "atomic_folder",
    "require_absent",
    "require_writable",
    "sha256_of_file",
]

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_PROBE_BYTES = 1 << 16  # more than fits into what a file system keeps beside its files


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
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
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, an empty file; give it its name on success, remove it on any failure.

    On success what killed runs left of the same output goes too (`vptkit.part_files`).

    Args:
        path: where the file shall appear; an existing file is replaced.

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
            part.chmod(0o666 & ~_umask())
            _sync(part)
            part.replace(path)
            _sync_folder(path.parent)
    remove_dead_parts(path.parent, [path.name])


@contextlib.contextmanager
def atomic_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; give it its name on success, remove it otherwise.

    With force an existing folder is replaced, and is put back if the last rename fails. On success
    what killed runs left of the same output goes too (`vptkit.part_files`).

    Raises:
        OutputError: the path exists and force is off, or the disk does not let us write.
    """
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
            _swap(part, path)
            _sync_folder(path.parent)
    remove_dead_parts(path.parent, [path.name])


def _swap(part: Path, path: Path) -> None:
    if not path.exists():
        part.rename(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
    aside = old / path.name
    path.rename(aside)
    try:
        part.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


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
