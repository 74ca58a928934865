"""Answers to frames as JSONL, CSV or text: whole lines, there at once.

A stream may have no end, so its file is not one that appears whole: it grows in place, and each line
is written by one call, so that `tail -f` follows, and Ctrl-C or a kill leaves whole lines.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING

from vptkit.atomic_files import require_absent, require_writable
from vptkit.errors import OutputError
from vptkit.runtime.bulk.prediction_writers import given_cells
from vptkit.shown_text import spreadsheet_rows, tell
from vptkit.strict_json import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TextIO

    from .frame_answer import FrameAnswer

    Write = Callable[[FrameAnswer], None]

__all__ = ["growing_file", "json_lines", "text_lines"]

_COLUMNS = "source", "frame", "timestamp", "time", "age_ms", "adapter", "error", "label", "score"


def json_lines(stream: TextIO) -> Write:
    """One JSON object a line, sent on at once."""

    def write(answer: FrameAnswer) -> None:
        stream.write(json_text(answer.to_json()) + "\n")
        stream.flush()

    return write


def text_lines(stream: TextIO) -> Write:
    """One line a frame for people: source, time, the best labels, the age."""

    def write(answer: FrameAnswer) -> None:
        frame, prediction = answer.frame, answer.prediction
        when = f"#{frame.number}" if frame.timestamp is None else f"{frame.timestamp:.2f} s"
        best = prediction.top[:1] if prediction.labels is None else prediction.labels
        labels = "  ".join(f"{label} {score:.3f}" for label, score in best) or "no label"
        if prediction.error is not None:
            labels = f"error: {prediction.error}"
        held = "" if answer.held is None else f", the one before held {answer.held:.2f} s"
        tell(f"{frame.source}  {when}  {labels}  ({1000 * answer.age:.0f} ms old{held})", stream)

    return write


@contextlib.contextmanager
def growing_file(path: Path, *, several: bool = False, force: bool = False) -> Iterator[Write]:
    """Yield a writer for a .jsonl or .csv file that grows line by line.

    Args:
        path: the file; its suffix decides the format.
        several: whether frames may have several labels; CSV then has `labels` and `scores`.
        force: replace a file that exists.

    Raises:
        OutputError: another suffix, the file exists, or it cannot be written.
    """
    if path.suffix not in (".jsonl", ".csv"):
        raise OutputError(
            f"{path}: answers to frames are saved as .jsonl or .csv, not {path.suffix!r}"
        )
    require_absent(path, force=force)
    require_writable(path)
    with path.open("wb", buffering=0) as file:
        lines = _Lines(file.fileno(), path)
        if path.suffix == ".jsonl":
            yield lambda answer: lines.write(json_text(answer.to_json()) + "\n")
        else:
            yield _csv(lines.write, several=several)


class _Lines:
    """Lines of an open file, each written as a whole or not at all."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle, self._path = handle, path
        self._size = 0  # bytes of whole lines

    def write(self, text: str) -> None:
        """Write whole lines.

        Raises:
            OutputError: the disk is full, or the file is gone.
        """
        data = text.encode("utf-8", "backslashreplace")
        try:
            done = os.write(self._handle, data)
            while done < len(data):
                done += os.write(self._handle, data[done:])
        except OSError as error:
            with contextlib.suppress(OSError):  # a pipe has no size
                os.ftruncate(self._handle, self._size)
            raise OutputError(
                f"{self._path}: cannot be written: {error.strerror}. It holds whole lines up to here."
            ) from error
        self._size += len(data)


def _csv(send: Callable[[str], None], *, several: bool) -> Write:
    """Rows; texts so that no spreadsheet computes them (`vptkit.shown_text.spreadsheet_rows`)."""
    buffer = io.StringIO(newline="")
    rows = spreadsheet_rows(buffer)

    def row(cells: list[object]) -> None:
        rows(cells)
        send(buffer.getvalue())
        buffer.seek(0)
        buffer.truncate()

    row([*_COLUMNS, *(("labels", "scores") if several else ())])

    def write(answer: FrameAnswer) -> None:
        document = answer.to_json()
        cells = [document.get(column) for column in _COLUMNS]
        more = given_cells(answer.prediction) if several else ()
        row(["" if cell is None else cell for cell in (*cells, *more)])

    return write
