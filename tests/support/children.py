"""How the tests start other programs: signals are heard, and everything ends.

Whoever starts the tests may have signals ignored: a script with `&` ignores SIGINT, nohup SIGHUP,
and programs inherit that. A child that is started here has them as from a terminal, stands in a
process group of its own, reads an empty standard input unless told otherwise, and is killed with
all its descendants when its time is up. test_children.py holds that nothing is started
elsewhere.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import shlex
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "DEVNULL",
    "LIMIT",
    "PIPE",
    "Child",
    "Failed",
    "Late",
    "descendants",
    "hearing",
    "run_child",
]

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL
LIMIT = 120.0  # seconds; many times what a child needs on a busy machine

_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


class Late(AssertionError):  # noqa: N818 -- as the test reads it
    """A child whose time was up."""


class Failed(AssertionError):  # noqa: N818 -- the same
    """A child that ended with another status than 0."""


@contextlib.contextmanager
def hearing() -> Iterator[None]:
    """No signal that asks for an end is ignored or held back, here and in children started here."""
    ignored = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        for number in ignored:
            own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, own)
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Child(subprocess.Popen[Any]):
    """A child that hears signals and ends.

    Args:
        command: the program and its arguments, of whatever types.
        limit: seconds; then it and its descendants are killed, and `wait`, `communicate` and the
            end of the `with` block raise `Late`.
        settings: of `subprocess.Popen`; text and no standard input are the defaults.
    """

    def __init__(self, command: Sequence[object], *, limit: float = LIMIT, **settings: Any) -> None:
        self._limit, self._late = limit, False
        words = [str(word) for word in command]
        with hearing():
            super().__init__(
                words, **{"text": True, "stdin": DEVNULL, "start_new_session": True} | settings
            )
        # Should the tests themselves be killed, nobody watches: then processor time is the limit.
        seconds = math.ceil(limit) * (os.cpu_count() or 1)
        with contextlib.suppress(OSError, ValueError):  # it has ended, or has a lower limit already
            resource.prlimit(self.pid, resource.RLIMIT_CPU, (seconds, seconds))
        self._watch = threading.Timer(limit, self._end_late)
        self._watch.daemon = True
        self._watch.start()

    def end(self) -> None:
        """Kill it and all its descendants."""
        if self.returncode is None:  # else its number may be another's
            for pid in (self.pid, *descendants(self.pid)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # whose parents are gone
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; `Late` if it had to be killed."""
        status = super().wait(timeout)
        self._watch.cancel()
        if self._late:
            raise Late(f"killed after {self._limit:g} s: {shlex.join(self.args)}")
        return status

    def communicate(self, *arguments: Any, **settings: Any) -> tuple[Any, Any]:
        """Standard output and error; `Late` if it had to be killed."""
        found = super().communicate(*arguments, **settings)
        if self._late:
            raise Late(f"killed after {self._limit:g} s: {shlex.join(self.args)}\n{found[1] or ''}")
        return found

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and not self._late:
            self.end()
        super().__exit__(kind, error, trace)

    def _end_late(self) -> None:
        self._late = True
        self.end()


def run_child(
    command: Sequence[object],
    *,
    input: str | None = None,  # noqa: A002 -- as subprocess.run has it
    limit: float = LIMIT,
    check: bool = True,
    **settings: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with its output as text.

    Args:
        command: the program and its arguments, of whatever types.
        input: what it reads.
        limit: seconds it may take.
        check: it must end with 0.
        settings: of `subprocess.Popen`.

    Raises:
        Late: its time was up.
        Failed: it ended with another status, with its last words.
    """
    streams = {"stdin": DEVNULL if input is None else PIPE, "stdout": PIPE, "stderr": PIPE}
    with Child(command, limit=limit, **streams | settings) as child:
        out, err = child.communicate(input)
    done = subprocess.CompletedProcess(child.args, child.returncode, out, err)
    if check and done.returncode:
        words = (err or out or "")[-2000:]
        raise Failed(f"ended with {done.returncode}: {shlex.join(child.args)}\n{words}")
    return done


def descendants(pid: int) -> list[int]:
    """The processes below a process, children before their children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdigit():
                after = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(after[1]), []).append(int(entry.name))
    found = list(children.get(pid, ()))
    for number in found:  # which grows
        found += children.get(number, ())
    return found
