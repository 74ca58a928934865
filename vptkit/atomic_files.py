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

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "atomic_file",
    "atomic_folder",
    "require_absent",
    "sha256_of_file",
]


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
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist. Create it first.")
    if (path.exists() or path.is_symlink()) and not force:
        raise OutputError(f"{path}: exists already. Pass --force to replace it, or another name.")


@contextlib.contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary path beside the target; rename it on success, remove it on any failure.

    Args:
        path: where the file shall appear; an existing file is replaced.
        mode: of the file, less the umask.

    Raises:
        OutputError: the disk is full, read-only, or the folder is not writable.
    """
    if path.is_dir():
        raise OutputError(f"{path}: a folder. Remove it, or choose another name.")
    with _disk_errors(path, errno.EACCES):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    part = Path(name)
    with _disk_errors(path):
        try:
            yield part
            part.chmod(mode & ~_umask())
            _sync(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside the target; rename it on success, remove it otherwise.

    With force an existing folder is replaced, and is put back if the last rename fails.

    Raises:
        OutputError: the path exists and force is off, or the disk does not let us write.
    """
    require_absent(path, force=force)
    with _disk_errors(path, errno.EACCES):
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    with _disk_errors(path):
        try:
            yield part
            part.chmod(0o777 & ~_umask())
            for file in part.rglob("*"):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())
                    _sync(file)
            _swap(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


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
def _disk_errors(path: Path, *more: int) -> Iterator[None]:
    """Turn what the disk refuses into an OutputError; errors that are not its own pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, *more):
            raise
        raise OutputError(
            f"{path}: cannot be written: {error.strerror}. Nothing was left behind; "
            "free some space or choose another place."
        ) from error


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
