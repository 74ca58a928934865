"""Ctrl-C and SIGTERM: heard from the first line on, never lost, and never a traceback.

Python raises KeyboardInterrupt wherever it happens to be. Between our own first imports nothing is
open yet, so that the process ends at once. In the middle of a library's import it would be lost (in
its `except:`) or end in the library's abort, so it waits until the import is done. Elsewhere it is
raised as always; a library that loses it then is asked again.

Loads as little as can be, as this is the first thing that a command loads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

TYPE_CHECKING = False  # loading typing takes as long as all the rest here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any, NoReturn

__all__ = ["asked", "heard", "leave", "listen", "run"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_IMPORTING = 0.02  # seconds between two looks at an import that the signal waits for
_RAISED = 1.0  # seconds until a KeyboardInterrupt that has gone nowhere counts as lost
_IMPATIENT = 3  # signals during one import after which it is not waited for


class _State:
    """Of the process: there is one main thread, and signals are its own."""

    process = 0  # the one that listens; what it forks is as Python has it
    working = False  # a command runs: files may be open, and are closed on the way out
    signals = 0  # so many came while it did


def listen() -> None:
    """Hear the signals from now on. What whoever started us has ignored stays so."""
    _State.process = os.getpid()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hear)
    sys.unraisablehook = _unraisable


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Hear the signals in this block; one who listens already goes on doing so."""
    if _State.process == os.getpid():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    hook = sys.unraisablehook
    listen()
    try:
        yield
    finally:
        _State.process, sys.unraisablehook = 0, hook
        for number, handler in before.items():
            signal.signal(number, handler)


def asked() -> bool:
    """Whether a signal came during the command that `run` runs, or ran last."""
    return _State.signals > 0


def run(command: Callable[[], Any]) -> Any:
    """Run a command; a signal is a KeyboardInterrupt in it, at a place that bears it.

    Raises:
        KeyboardInterrupt: a signal came, also one that an import at the end was waited for.
    """
    _State.signals = 0
    _State.working = True
    before = signal.signal(signal.SIGALRM, _look_again)
    try:
        result = command()
    finally:
        _State.working = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if _State.signals:
        raise KeyboardInterrupt
    return result


def leave() -> NoReturn:
    """End the process: nothing is open."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def _hear(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.process:  # a worker that a library forked
        raise KeyboardInterrupt
    if not _State.working:
        leave()
    _State.signals += 1
    if not _imports(frame):
        signal.setitimer(signal.ITIMER_REAL, _RAISED)
        raise KeyboardInterrupt
    if _State.signals >= _IMPATIENT:
        leave()
    signal.setitimer(signal.ITIMER_REAL, _IMPORTING)


def _look_again(signum: int, frame: FrameType | None) -> None:
    if not _State.working or os.getpid() != _State.process:
        return
    if _imports(frame):
        signal.setitimer(signal.ITIMER_REAL, _IMPORTING)
        return
    signal.setitimer(signal.ITIMER_REAL, _RAISED)
    if not _unwinds():
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported, by the command and not around it."""
    while frame is not None and frame.f_code is not run.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unwinds() -> bool:
    """Whether a KeyboardInterrupt is on its way out: what runs now puts things in order."""
    error: BaseException | None = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _unraisable(unraisable: Any) -> None:
    """A KeyboardInterrupt in a destructor is lost there, and raised again by `_look_again`."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
