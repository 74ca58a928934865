"""Where a run on many machines keeps its images and answers until the output is written.

`x.jsonl.parts/` beside the output, on a disk that all nodes reach:

    run.json       which run it is, and how many images it has; written last, goes first
    images.jsonl   batches.bin    its images (`image_list`)
    answers/       Parquet files of Ray's, with batches of answers
    checkpoint/    Ray's own notes of what is answered
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file
from vptkit.errors import OutputError
from vptkit.runtime.bulk.run_journal import other_run
from vptkit.strict_json import canonical_json, parse_json

from .image_list import ImageList, ImageListWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from vptkit.images.image_file import ImageFile

__all__ = ["ANSWERS", "NOTES", "PartsFolder", "opened_parts", "parts_of"]

ANSWERS, NOTES = "answers", "checkpoint"

_FORMAT = "vptkit.parts/1"
_RUN = "run.json"
_OURS = {_RUN, "images.jsonl", "batches.bin", ANSWERS, NOTES}


def parts_of(output: Path) -> Path:
    """Where the parts of an output lie."""
    return output.with_name(f"{output.name}.parts")


class PartsFolder:
    """The parts of one run; see `opened_parts`.

    Attributes:
        path: the folder.
        batches, images: so many are listed.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path, self._run = path, dict(run)
        self.batches, self.images = 0, 0

    @property
    def answers(self) -> Path:
        """The folder of answers."""
        return self.path / ANSWERS

    @property
    def checkpoint(self) -> Path:
        """The folder of Ray's notes."""
        return self.path / NOTES

    def begin(self, *, resume: bool, force: bool) -> None:
        """Take what an earlier run left, or clear the folder; see `opened_parts`."""
        if strange := _strange(self.path):
            raise OutputError(f"{self.path}: not of vptkit run: it holds {strange}. Move it away.")
        old = self._read()
        if old is not None and resume:
            other = [name for name, value in self._run.items() if old["run"].get(name) != value]
            if not other:
                self.batches, self.images = old["batches"], old["images"]
                return
            if not force:
                raise OutputError(other_run(self.path, old["run"], self._run, other))
        self._clear()

    def take_up(self, images: Iterable[ImageFile], batch: int) -> None:
        """List further images, behind those that are listed.

        Raises:
            DataError, OutputError: see `ImageListWriter.extend`.
        """
        writer = ImageListWriter(self.path, self.batches)
        writer.extend(images, batch)
        if writer.batches == self.batches:
            return
        head = {"format": _FORMAT, "run": self._run}
        counts = {"batches": writer.batches, "images": writer.images}
        with atomic_file(self.path / _RUN) as part:
            part.write_bytes(canonical_json(head | counts).encode("ascii"))
        self.batches, self.images = writer.batches, writer.images

    def images_of(self, batches: Iterable[int]) -> int:
        """How many images some batches have."""
        return sum(map(self.listed().size, batches))

    def listed(self) -> ImageList:
        """The images that are listed."""
        return ImageList(self.path, self.batches)

    def remove(self) -> None:
        """The output is there, or there is nothing to keep."""
        self._clear()
        with contextlib.suppress(OSError):  # what a worker of a killed run wrote meanwhile stays
            self.path.rmdir()

    def _read(self) -> dict[str, Any] | None:
        """What stands in run.json; None if it never was written."""
        file = self.path / _RUN
        try:
            found = parse_json(file.read_bytes(), file, OutputError)
        except FileNotFoundError:
            return None
        if found.get("format") != _FORMAT:
            raise OutputError(f"{file}: not of this version of vptkit run. Move the folder away.")
        return found

    def _clear(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.path / _RUN).unlink()  # first: without it nothing else counts
        for entry in list(self.path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


@contextlib.contextmanager
def opened_parts(
    output: Path, run: Mapping[str, Any], *, resume: bool = True, force: bool = False
) -> Iterator[PartsFolder]:
    """Yield the parts of an output, with what an earlier run of the same kind left.

    They stay if the block is left before `remove`, unless no image is listed yet.

    Args:
        output: what is written in the end; its folder exists.
        run: what the answers depend on; values of JSON. An earlier run must agree in all of it.
        resume: go on with what is there; otherwise it is thrown away.
        force: throw away the parts of another run.

    Raises:
        OutputError: another run writes them now, they are of another run or of no run, or the folder
            cannot be written.
    """
    path = parts_of(output)
    handle = _locked(path)
    try:
        parts = PartsFolder(path, run)
        parts.begin(resume=resume, force=force)
        try:
            yield parts
        finally:
            if not parts.batches:
                parts.remove()
    finally:
        os.close(handle)


def _locked(path: Path) -> int:
    """A descriptor of the folder, which is made, and locked where there are locks."""
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)  # addresses in stores may hold what opens them
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error
    if not stat.S_ISDIR(os.fstat(handle).st_mode):
        os.close(handle)
        raise OutputError(f"{path}: not a folder. Move it away.")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OutputError(f"{path}: another run writes it now. Wait for its end.") from error
    except OSError:
        pass  # a file system without locks
    return handle


def _strange(path: Path) -> str | None:
    """What lies there and is not of a run: one name."""
    names = {entry.name for entry in path.iterdir()} - _OURS
    # What a killed run left of run.json in the making (`vptkit.part_files`) is.
    return min((name for name in names if not name.startswith(f".{_RUN}.")), default=None)
