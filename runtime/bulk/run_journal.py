"""A run that may be killed at any moment: what is finished stands in a journal beside its output.

`x.jsonl.partial` holds a line an image, each with its checksum, behind a first line that says which
run it is. Whoever gives the same command again reads the whole lines, cuts off the rest, and goes on.
The output itself is written from the journal when all is done, and appears whole. The journal goes
last. Lines are handed to the system at once, so a killed process loses none of them, and forced to
the disk every few seconds, so a power cut loses those.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
import zlib
from typing import TYPE_CHECKING, Any

from vptkit.errors import OutputError

from .prediction_record import line_of, prediction_of, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from vptkit.runtime.session.session_protocol import Prediction

__all__ = ["RunJournal", "journal_of", "opened_journal", "other_run"]

_MAGIC = b"vptkit.run/1 "
_END = {"end": True}
_SYNC_S = 5.0  # seconds between two times that the disk is waited for


def journal_of(output: Path) -> Path:
    """Where the journal of an output lies."""
    return output.with_name(f"{output.name}.partial")


class RunJournal:
    """The finished images of one run; see `opened_journal`.

    Attributes:
        path: the file.
        count: finished images, those of earlier tries too.
        ended: no image is left; only the output is.
    """

    def __init__(self, path: Path, stream: BinaryIO, *, features: bool) -> None:
        self.path, self.count, self.ended = path, 0, False
        self._stream, self._features, self._synced = stream, features, time.monotonic()
        self._first = 0  # bytes before the first record

    def begin(self, run: Mapping[str, Any], batch: int, *, resume: bool, force: bool) -> None:
        """Read what is there, and cut off what is no whole batch; or begin anew.

        Args, Raises: see `opened_journal`.
        """
        head = _MAGIC + _line(dict(run))
        self._stream.seek(0)
        there = self._stream.readline()
        if there and not _MAGIC.startswith(there[: len(_MAGIC)]):
            raise OutputError(f"{self.path}: not a journal of vptkit run. Move it away.")
        old = _parsed(there.removeprefix(_MAGIC))
        if old is not None and resume:
            other = [name for name, value in run.items() if old.get(name) != value]
            if not other:
                self._recover(len(there), batch)
                return
            if not force:
                raise OutputError(other_run(self.path, old, run, other))
        self._stream.truncate(0)
        self._stream.seek(0)
        self._write(head)
        self._first = len(head)

    def _recover(self, first: int, batch: int) -> None:
        self._first = place = whole = first
        for count, line in enumerate(self._stream, 1):
            record = _parsed(line)
            if record is None:
                break
            place += len(line)
            if record == _END:
                self.ended, self.count, whole = True, count - 1, place
                break
            if count % batch == 0:
                self.count, whole = count, place
        self._stream.truncate(whole)
        self._stream.seek(whole)

    def add(self, prediction: Prediction) -> None:
        """Keep a finished image.

        Raises:
            OutputError: the disk is full; what was kept before is whole.
        """
        self._write(_line(record_of(prediction, features=self._features)))
        self.count += 1
        if time.monotonic() - self._synced > _SYNC_S:
            os.fsync(self._stream.fileno())
            self._synced = time.monotonic()

    def end(self) -> None:
        """No image is left."""
        if not self.ended:
            self._write(_line(_END))
            os.fsync(self._stream.fileno())
            self.ended = True

    def finished(self) -> Iterator[Prediction]:
        """The finished images, in order. Another look at the file, so more may be added meanwhile."""
        count = self.count
        with self.path.open("rb") as stream:
            stream.seek(self._first)
            for _ in range(count):
                record = _parsed(stream.readline())
                if record is None:
                    raise OutputError(f"{self.path}: it was changed while the run went on")
                yield prediction_of(record)

    def remove(self) -> None:
        """The output is there, or there is nothing to keep."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _write(self, line: bytes) -> None:
        try:
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written: {error.strerror}. Free some space, then give the "
                f"same command again: it goes on behind the {self.count:,} images that are done."
            ) from error


@contextlib.contextmanager
def opened_journal(
    output: Path,
    run: Mapping[str, Any],
    *,
    batch: int,
    features: bool = False,
    resume: bool = True,
    force: bool = False,
) -> Iterator[RunJournal]:
    """Yield the journal of an output, with what an earlier run of the same kind finished.

    It stays if the block is left before `remove`, unless there is nothing in it.

    Args:
        output: what is written in the end; its folder exists.
        run: what the answers depend on; values of JSON. An earlier run must agree in all of it.
        batch: images that are answered together: only whole batches are kept, so that those which
            follow are put together as if nothing had happened, and give the same numbers.
        features: whether they are kept.
        resume: go on with what is there; otherwise it is thrown away.
        force: throw away the journal of another run.

    Raises:
        OutputError: another run writes it now, the journal is of another run or of no run, or it
            cannot be written.
    """
    path = journal_of(output)
    stream = _locked(path)
    try:
        journal = RunJournal(path, stream, features=features)
        try:
            journal.begin(run, batch, resume=resume, force=force)
            yield journal
        finally:
            if journal._first and not journal.count and not journal.ended:  # noqa: SLF001
                journal.remove()
    finally:
        with contextlib.suppress(OSError):  # of a full disk; what could be written is
            stream.close()


def _locked(path: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            stream = os.fdopen(os.open(path, flags, 0o600), "r+b")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise OutputError(f"{path}: not a regular file. Move it away.")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            raise OutputError(f"{path}: another run writes it now. Wait for its end.") from error
        except OSError:
            return stream  # a file system without locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.lstat()):
                return stream
        stream.close()  # its owner removed it in between


def _line(record: dict[str, Any]) -> bytes:
    text = line_of(record)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None of one that is not whole."""
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    record = json.loads(text)
    return record if isinstance(record, dict) else None


def other_run(path: Path, old: Mapping[str, Any], run: Mapping[str, Any], other: list[str]) -> str:
    """What to say where what is kept is of another run.

    Args:
        path: where it is kept.
        old, run: what the answers of either depend on.
        other: what of it they do not agree in.
    """
    name = other[0]
    was, now = (json.dumps(each.get(name)) for each in (old, run))
    was, now = (text if len(text) <= 60 else f"{text[:57]}..." for text in (was, now))
    more = f" (and {', '.join(other[1:])})" if other[1:] else ""
    return (
        f"{path}: holds an unfinished run with {name} {was}, this one has {now}{more}. Give that "
        "command again to finish it, save under another name, or pass --force to begin anew."
    )
