"""Progress on standard error: a bar on a terminal, a plain line now and then elsewhere.

    with progress("tune", total=100) as bar:
        begin_phase(bar, "training")
        bar.update(1, "loss 0.31")
        keep_line(bar, "epoch 1: val 88.0 %")
        keep_score(bar, "val loss 0.29")

Library code takes a `Progress` and never asks where it goes; `SILENT` is the default. A `Progress`
that only counts needs no more than `update`: phases and kept lines are for displays.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from vptkit.shown_text import fitted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import Task, TaskID
    from rich.text import Text

__all__ = ["SILENT", "Phases", "Progress", "begin_phase", "keep_line", "keep_score", "no_phases"]
__all__ += ["progress"]

_NARROW, _SHORTEST_BAR, _LONGEST_BAR = 72, 8, 40  # columns


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

# A phase of the work, by name and number of steps → who wants to know how far it is: `progress`, or
# `no_phases` where nobody does.
Phases = Callable[[str, "int | None"], AbstractContextManager[Progress]]


@contextlib.contextmanager
def no_phases(title: str, total: int | None = None) -> Iterator[Progress]:
    """Phases that nobody watches."""
    yield SILENT


def begin_phase(progress: Progress, name: str) -> None:
    """What follows is called so, as "features" or "testing", and a display counts it anew."""
    begin = getattr(progress, "begin_phase", None)
    if begin is not None:
        begin(name)


def keep_line(progress: Progress, line: str) -> None:
    """Show a line that stays, above the bar: what was read, or an epoch that is over."""
    keep = getattr(progress, "keep_line", None)
    if keep is not None:
        keep(line)


def keep_score(progress: Progress, score: str) -> None:
    """Show a few words on a bar until others come, as "val loss 0.31"; lines have said them."""
    keep = getattr(progress, "keep_score", None)
    if keep is not None:
        keep(score)


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
    if stream.isatty() and os.environ.get("TERM") != "dumb":
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

    def begin_phase(self, name: str) -> None:
        """The lines that follow begin with that name."""
        self._title, self._begun, self.total = name, self._clock(), None
        self._done, self._text, self._pending = 0, "", False

    def keep_line(self, line: str) -> None:
        """Write the line; it says what the last state would."""
        self._stream.write(f"{shown(line)}\n")
        self._stream.flush()
        self._last, self._pending = self._clock(), False

    def close(self) -> None:
        """Write the last state, unless it is written already."""
        if self._pending:
            self._write()

    def _write(self) -> None:
        of = f"{self._done}" + ("" if self.total is None else f"/{self.total}")
        text = f"  {shown(self._text)}" if self._text else ""
        if not self._done and self.total is None:  # a phase that says itself how far it is
            of, text = "", text.strip()
        if self.total is not None and 0 < self._done < self.total:
            spent = self._clock() - self._begun
            text += f"  {spent * (self.total / self._done - 1):.0f} s left"
        self._stream.write(f"{shown(self._title)}: {of}{text}\n")
        self._stream.flush()
        self._last, self._pending = self._clock(), False


@contextlib.contextmanager
def _bar(title: str, total: int | None, stream: TextIO) -> Iterator[Progress]:
    # rich is slow to import, and only a terminal needs it. It obeys NO_COLOR.
    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import ProgressColumn

    console = Console(file=stream)

    class Line(ProgressColumn):
        def render(self, task: Task) -> Text:
            return _line(task, console)

    with Display(Line(), console=console, transient=True) as display:
        yield _Bar(display, display.add_task(shown(title), total=total, text=""), total)


def _line(task: Task, console: Console) -> Text:
    """Name, bar, count, time left, text; a narrow window drops the bar, then the text's last words."""
    from rich.text import Text

    counted = task.total or task.completed
    count = f"{task.completed:.0f}/{'?' if task.total is None else f'{task.total:.0f}'}"
    left = task.time_remaining
    time_left = (
        "" if left is None else f"{left // 3600:.0f}:{left // 60 % 60:02.0f}:{left % 60:02.0f}"
    )
    head, tail = task.description, " ".join(filter(None, [count if counted else "", time_left]))
    room = console.width - 1 - len(head) - len(tail) - 2
    words = task.fields["text"].split("  ")  # the most important first
    while len(words) > 1 and len("  ".join(words)) > room:
        words.pop()
    text = "  ".join(words)
    whole = text == task.fields["text"] and console.width >= _NARROW
    line = Text(head, no_wrap=len(text) <= room)
    columns = min(room - len(text) - 2, _LONGEST_BAR)
    if whole and columns >= _SHORTEST_BAR and task.total:
        utf8 = (console.encoding or "").lower().startswith("utf")
        done, ahead = ("━", "─") if utf8 else ("#", "-")
        full = round(columns * min(task.completed / task.total, 1))
        line.append(" ").append(done * full, "bar.complete").append(ahead * (columns - full), "dim")
    for part, style in ((tail, "progress.remaining"), (text, "")):
        line.append(f" {part}" if part else "", style)
    return line


class _Bar:
    """A rich task as a `Progress`."""

    def __init__(self, display: Display, task: TaskID, total: int | None) -> None:
        self.total = total
        self._display, self._task, self._text, self._score = display, task, "", ""

    def update(self, advance: int = 1, text: str = "") -> None:
        self._text = text or self._text
        first, *rest = self._text.split("  ")
        told = "  ".join(filter(None, [first, self._score, *rest]))
        self._display.update(self._task, advance=advance, total=self.total, text=shown(told))

    def keep_score(self, score: str) -> None:
        self._score = score

    def begin_phase(self, name: str) -> None:
        self.total, self._text, self._score = None, "", ""
        self._display.reset(self._task, total=0, description=shown(name), text="")
        self._display.tasks[0].total = None  # reset takes None for "as it was"

    def keep_line(self, line: str) -> None:
        from rich.text import Text

        console = self._display.console
        console.print(Text(fitted(shown(line), console.file)), highlight=False, soft_wrap=True)
