"""Progress on standard error: a bar on a terminal, a plain line now and then elsewhere.

    with progress("tune", total=100) as bar:
        bar.update(1, "loss 0.31")

Library code takes a `Progress` and never asks where it goes; `SILENT` is the default.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Protocol

from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from rich.progress import Progress as Display
    from rich.progress import TaskID

__all__ = ["SILENT", "Progress", "progress"]


class Progress(Protocol):
    """Someone who wants to know how far the work is."""

    total: int | None  # steps in all, None while unknown; may be set as the work learns it

    def update(self, advance: int = 1, text: str = "") -> None:
        """Take note of finished steps and of a few words about the last one."""


class _Silent:
    """Nobody wants to know."""

    @property
    def total(self) -> int | None:
        return None

    @total.setter
    def total(self, value: int | None) -> None:
        pass

    def update(self, advance: int = 1, text: str = "") -> None:
        pass


SILENT: Progress = _Silent()


@contextlib.contextmanager
def progress(
    title: str, total: int | None = None, *, stream: TextIO | None = None
) -> Iterator[Progress]:
    """Show progress while the block runs.

    Args:
        title: one word, at the head of the bar or line.
        total: number of steps, None if unknown.
        stream: standard error unless given.
    """
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        with _bar(title, total, stream) as bar:
            yield bar
        return
    lines = Lines(title, total, stream)
    yield lines
    lines.close()


class Lines:
    """Plain lines: at most one in `every` seconds, and the last state."""

    def __init__(
        self,
        title: str,
        total: int | None,
        stream: TextIO,
        *,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self._title, self._stream, self._every, self._clock = title, stream, every, clock
        self._begun = clock()
        self._done, self._text, self._last, self._pending = 0, "", self._begun, False

    def update(self, advance: int = 1, text: str = "") -> None:
        """Count steps; write a line if the last one is old enough."""
        self._done += advance
        self._text = text or self._text
        self._pending = True
        if self._clock() - self._last >= self._every:
            self._write()

    def close(self) -> None:
        """Write the last state, unless it is written already."""
        if self._pending:
            self._write()

    def _write(self) -> None:
        of = "" if self.total is None else f"/{self.total}"
        text = f"  {shown(self._text)}" if self._text else ""
        if self.total is not None and 0 < self._done < self.total:
            spent = self._clock() - self._begun
            text += f"  {spent * (self.total / self._done - 1):.0f} s left"
        self._stream.write(f"{shown(self._title)}: {self._done}{of}{text}\n")
        self._stream.flush()
        self._last, self._pending = self._clock(), False


@contextlib.contextmanager
def _bar(title: str, total: int | None, stream: TextIO) -> Iterator[Progress]:
    # rich is slow to import, and only a terminal needs it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Display(*columns, console=Console(file=stream), transient=True) as display:
        yield _Bar(display, display.add_task(shown(title), total=total, text=""), total)


class _Bar:
    """A rich task as a `Progress`."""

    def __init__(self, display: Display, task: TaskID, total: int | None) -> None:
        self.total = total
        self._display, self._task, self._text = display, task, ""

    def update(self, advance: int = 1, text: str = "") -> None:
        self._text = text or self._text
        self._display.update(self._task, advance=advance, total=self.total, text=shown(self._text))
