"""The files of a bundle: a closed set of regular ones, and bytes that are those of the manifest.

A name may mean another file a moment later: an export with --force exchanges the whole folder, a
stranger may put a link in its place. So a folder is opened once and its files by its descriptor; a
digest is taken of an opened file, and holds for what is read of that file as long as its stamp
(device, number, size, times of change) stays; else it is taken again.

Besides the listed files a folder may hold manifest.json, engines/ (a cache), and what a killed run
of ours leaves: hidden temporary files `.NAME.….part`, and rows of a bank that no manifest names,
which say their own digest. None of these is ever read; everything else is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.atomic_files import sha256_of_stream
from vptkit.errors import BundleError
from vptkit.regular_files import Stamp, names_in, open_inside, opened_folder, stamp_of

from .graph_scan import require_closed_graph
from .manifest_schema import ADAPTERS, ENGINES, MANIFEST, MODEL, MODEL_DATA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

__all__ = [
    "checked_file",
    "folder_name",
    "graph_path",
    "is_leftover",
    "is_row_file",
    "require_closed",
    "verify_files",
]

_LEFTOVER = re.compile(r"\..+\.(?:part|lock)")  # of `part_files`
_NFS = re.compile(r"\.nfs[0-9a-f]+")  # of a file that was removed while it was open
_ROWS = re.compile(r"[A-Za-z0-9._-]{1,64}-([0-9a-f]{8})\.safetensors")  # of `bank_tables`


def folder_name(path: Path) -> str:
    """What a bundle is called among others: its folder's name without .vptk."""
    name = path.absolute().name
    return name.removesuffix(".vptk") or name


def is_leftover(handle: int, name: str) -> bool:
    """Whether a folder holds under a name a temporary file, which no reader opens."""
    if not (_LEFTOVER.fullmatch(name) or _NFS.fullmatch(name)):
        return False
    found = _kind(handle, name)
    return found is None or stat.S_ISREG(found)


def is_row_file(path: Path, handle: int, name: str) -> bool:
    """Whether a bank's folder of rows holds under a name what `write_rows` wrote: by its digest.

    Args:
        path: that folder, for messages.
        handle: its descriptor.
        name: of the file.
    """
    found = _ROWS.fullmatch(name)
    if found is None:
        return False
    try:
        with open_inside(path, name, BundleError, handle=handle) as stream:
            return sha256_of_stream(stream).startswith(found[1])
    except BundleError:  # a link, or an editor has just removed it
        return _kind(handle, name) is None


def verify_files(
    path: Path, handle: int, files: Mapping[str, str], *, graph: bool = True
) -> dict[str, Stamp]:
    """Compare a folder with what its manifest lists: no file more, none less, each as it was.

    Args:
        path: the bundle, for messages.
        handle: its descriptor.
        files: name → digest.
        graph: take the digests of the graph, too; else `graph_path` does, while it is loaded.

    Returns:
        Name → stamp of the file whose digest was taken.

    Raises:
        BundleError: something is there that is not listed, or is no regular file; a file is missing
            or changed; the graph wants files of other places.
    """
    require_closed(path, handle, files)
    stamps = {}
    with contextlib.ExitStack() as stack:
        folders = {"": handle}  # each is opened once: a bank has many files in one
        for name, digest in files.items():
            if not graph and name in (MODEL, MODEL_DATA):
                continue
            folder, _, file = name.rpartition("/")
            if folder not in folders:
                opened = opened_folder(path / folder, BundleError, within=handle, name=folder)
                folders[folder] = stack.enter_context(opened)
            with _regular(path / folder, folders[folder], file) as stream:
                stamps[name] = _verify(path, name, stream, digest, files)
    return stamps


def require_closed(path: Path, handle: int, files: Mapping[str, str]) -> None:
    """Refuse a folder that holds what is not listed.

    Raises:
        BundleError: see `verify_files`.
    """
    odd = []
    for name in names_in(handle):
        if name == ADAPTERS and any(file.startswith(f"{ADAPTERS}/") for file in files):
            with opened_folder(path / name, BundleError, within=handle, name=name) as inner:
                odd += [
                    f"{ADAPTERS}/{file}"
                    for file in names_in(inner)
                    if f"{ADAPTERS}/{file}" not in files
                    and not is_leftover(inner, file)
                    and not is_row_file(path / ADAPTERS, inner, file)
                ]
        elif name == ENGINES:
            _require_folder(path, handle, name)
        elif name not in files and name != MANIFEST and not is_leftover(handle, name):
            odd.append(name)
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise BundleError(
            f"{path}: holds {', '.join(map(repr, odd[:3]))}{more}, which {MANIFEST} does not list. "
            "Remove what is not part of the bundle, or export it again."
        )


@contextlib.contextmanager
def checked_file(
    path: Path,
    name: str,
    files: Mapping[str, str],
    stamp: Stamp | None = None,
    handle: int | None = None,
) -> Iterator[BinaryIO]:
    """Yield an open file whose bytes are those of the manifest, as long as the block lasts.

    Args:
        path: the bundle.
        name: one of its files.
        files: name → digest, of its manifest.
        stamp: of the file whose digest was taken; one of the same stamp is not read again.
        handle: the bundle's descriptor, if it is open.

    Raises:
        BundleError: not a listed file, not a regular one, or changed: before, or meanwhile.
    """
    if name not in files:
        raise BundleError(f"{path}: {MANIFEST} lists no {name}. Export the bundle again.")
    with _regular(path, handle, name) as stream:
        if stamp_of(stream) != stamp:
            stamp = _verify(path, name, stream, files[name], files)
        yield stream
        if stamp_of(stream) != stamp:
            _verify(path, name, stream, files[name], files)


@contextlib.contextmanager
def graph_path(path: Path, files: Mapping[str, str], stamps: dict[str, Stamp]) -> Iterator[Path]:
    """Yield a path of the graph for libraries that open by name, as long as the block lasts.

    A digest that was not taken yet is taken while the block runs: a graph of some hundred megabytes
    takes as long to hash as to load. It is compared at the end, also where the block failed, so
    nothing of the graph may be used before; then its stamp is added.

    It leads through the folder's descriptor, so it is the same folder's file though that be
    exchanged meanwhile; processes of the same user can take it too. Its name is model.onnx, and its
    constants lie beside it.

    Raises:
        BundleError: the graph is not that of the manifest, or was exchanged within the block.
    """
    with contextlib.ExitStack() as stack:
        handle = stack.enter_context(opened_folder(path, BundleError))
        proc = Path(f"/proc/{os.getpid()}/fd/{handle}")
        through = proc if proc.is_dir() else path  # without /proc by name, and compared
        for name in (MODEL, MODEL_DATA):
            if name in files:
                known = stamps.get(name)
                checked = (
                    _checked_meanwhile(path, name, files, stamps, handle)
                    if known is None
                    else checked_file(path, name, files, known, handle)
                )
                stack.enter_context(_pinned(path, through / name, checked))
        yield through / MODEL


@contextlib.contextmanager
def _checked_meanwhile(
    path: Path, name: str, files: Mapping[str, str], stamps: dict[str, Stamp], handle: int
) -> Iterator[BinaryIO]:
    """As `checked_file`, of a file of the graph whose digest is taken by a thread meanwhile.

    What it wants of other places is looked at before the block; the digest is compared behind it.
    """
    from concurrent.futures import ThreadPoolExecutor  # only where a graph is loaded

    with _regular(path, handle, name) as stream, ThreadPoolExecutor(1, "vptkit-digest") as pool:
        before = stamp_of(stream)
        taken = None
        try:
            _require_closed(path, name, stream, files)
            taken = pool.submit(sha256_of_stream, stream)  # its thread would hold the walk up
            yield stream
        finally:  # a graph that was damaged need not load: the digest says why
            found = sha256_of_stream(stream) if taken is None else taken.result()
            _require_digest(path, name, found, files[name])
        if stamp_of(stream) != before:
            before = _verify(path, name, stream, files[name], files)
        stamps[name] = before


@contextlib.contextmanager
def _pinned(
    path: Path, file: Path, checked: contextlib.AbstractContextManager[BinaryIO]
) -> Iterator[None]:
    """Hold a file, and look at the end whether its name still means it."""
    with checked as stream:
        before = stamp_of(stream)
        yield
        if not file.exists() or Stamp.of(file.lstat())[:2] != before[:2]:
            raise BundleError(f"{path}: {file.name} was exchanged while it was read. Try again.")


def _verify(
    path: Path, name: str, stream: BinaryIO, digest: str, files: Mapping[str, str]
) -> Stamp:
    before = stamp_of(stream)
    _require_digest(path, name, sha256_of_stream(stream), digest)
    _require_closed(path, name, stream, files)
    return before


def _require_digest(path: Path, name: str, found: str, digest: str) -> None:
    if found != digest:
        raise BundleError(
            f"{path}: {name} differs from its digest in {MANIFEST}: it was changed or "
            "damaged. Export the bundle again."
        )


def _require_closed(path: Path, name: str, stream: BinaryIO, files: Mapping[str, str]) -> None:
    """Refuse a graph that wants files of other places."""
    if name == MODEL:
        require_closed_graph(stream, path / name, MODEL_DATA if MODEL_DATA in files else None)


def _regular(path: Path, handle: int | None, name: str) -> BinaryIO:
    try:
        return open_inside(path, name, BundleError, handle=handle)
    except BundleError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise BundleError(f"{path}: {name} is missing. Export the bundle again.") from error
        raise


def _require_folder(path: Path, handle: int, name: str) -> None:
    if not stat.S_ISDIR(_kind(handle, name) or stat.S_IFDIR):
        raise BundleError(f"{path}: {name} is not a folder of its own (a link?). Remove it.")


def _kind(handle: int, name: str) -> int | None:
    """Mode of what a folder holds under a name, None if there is nothing any more."""
    try:
        return os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
