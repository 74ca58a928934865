"""A profile in every power mode of a Jetson, after which the board is as it was before.

The first mode and the clocks' limits are put back by ourselves on errors, on Ctrl-C, on SIGTERM,
and when the connection to the board breaks (SIGHUP); if this process crashes or is killed, by a
second one (`vptkit.devices.power.watchdog`). What ends both, as a power cut does, is beyond us, so the
command that goes back is announced beforehand.

Unverified on a board; tested against stand-ins for nvpmodel and jetson_clocks.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.power.nvpmodel import (
    RebootNeededError,
    current_mode,
    has_jetson_clocks,
    pin_clocks,
    require_root,
    run_command,
    set_mode,
)
from vptkit.devices.power.operating_state import compare_states
from vptkit.devices.power.restore_point import remember
from vptkit.devices.power.watchdog import guarded
from vptkit.devices.probes.clocks import read_clocks
from vptkit.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from vptkit.devices.power.nvpmodel import Run
    from vptkit.devices.power.restore_point import RestorePoint
    from vptkit.devices.probes.jetson import PowerMode

    _Limits = tuple[float | None, float | None]

__all__ = ["BoardAccess", "pinned", "sweep_power_modes"]

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardAccess:
    """How a sweep reaches the board; tests put something else here.

    Attributes:
        run: runs nvpmodel and jetson_clocks.
        root: where /etc and /sys are looked for.
        sleep: waits.
        announce: told what people must know at once.
    """

    run: Run = run_command
    root: Path = Path("/")
    sleep: Callable[[float], None] = time.sleep
    announce: Callable[[str], None] = _log.warning

    def say(self, text: str) -> None:
        """Announce; a terminal that is gone stops nothing."""
        with contextlib.suppress(OSError, ValueError):
            self.announce(text)


def sweep_power_modes(
    modes: Sequence[PowerMode],
    measure: Callable[..., dict[str, Any]],
    *,
    pin: bool = False,
    board: BoardAccess | None = None,
) -> dict[str, Any]:
    """Measure in each mode, and go back to the first.

    Args:
        modes: those to enter, one after the other. A mode that needs a reboot is skipped.
        measure: makes a profile's document; `memory` says whether to measure memory.
        pin: pin the clocks in each mode.
        board: how to reach it.

    Returns:
        One document: the rows of all modes, each with its mode's name in "power_mode", and
        "sweep": {"first": mode, "modes": [{"id", "name", "state", "settled"}], "skipped": [{"id",
        "name", "reason"}]}.

    Raises:
        MissingError: not root, or no nvpmodel.
        TargetError: no mode could be entered, or the first one could not be restored.
    """
    board = board or BoardAccess()
    require_root("--power")
    documents: list[dict[str, Any]] = []
    entered: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    with _kept(board, mode=True, clocks=pin or has_jetson_clocks()) as first:
        for i, mode in enumerate(modes, 1):
            named = {"id": mode.id, "name": mode.name}
            try:
                set_mode(mode, board.run)
            except RebootNeededError as error:
                board.say(f"skipped: {error}")
                skipped.append({**named, "reason": str(error)})
                continue
            if pin:
                _pin(board)
            settled = _settle(board)
            board.say(f"power mode {mode.name} (number {mode.id}), {i} of {len(modes)}")
            document = measure(memory=not documents)
            for row in document["rows"]:
                row["power_mode"] = mode.name
            documents.append(document)
            entered.append({**named, "settled": settled, "state": document["state"]})
    if not documents:
        reasons = "; ".join(entry["reason"] for entry in skipped)
        raise TargetError(f"no power mode could be entered: {reasons}")
    return _merged(documents) | {
        "sweep": {
            "first": {"id": first.id, "name": first.name},
            "modes": entered,
            "skipped": skipped,
        }
    }


@contextlib.contextmanager
def pinned(board: BoardAccess | None = None) -> Iterator[None]:
    """Pin the clocks to the highest of the present mode while a block runs.

    Raises:
        MissingError: not root, or no jetson_clocks.
        TargetError: the clocks could not be restored.
    """
    board = board or BoardAccess()
    require_root("--pin-clocks")
    with _kept(board, mode=False, clocks=True):
        _pin(board)
        _settle(board)
        yield


def _pin(board: BoardAccess) -> None:
    for complaint in pin_clocks(board.run):
        board.say(f"jetson_clocks: {complaint}")


def _merged(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    states = [document["state"] for document in documents]
    before, after = states[0]["before"], states[-1]["after"]
    return documents[0] | {
        "rows": [row for document in documents for row in document["rows"]],
        "state": {
            "before": before,
            "after": after,
            "throttled": list(dict.fromkeys(t for state in states for t in state["throttled"])),
            "changed": compare_states(before, after)[1],
        },
    }


@contextlib.contextmanager
def _kept(board: BoardAccess, *, mode: bool, clocks: bool) -> Iterator[PowerMode]:
    """Yield the power mode the board is in, and put mode and clocks back at the end.

    Raises:
        TargetError: that failed.
    """
    first = current_mode(board.run)
    limits = _limits(board)
    with _interrupted_once():
        before = remember(first if mode else None, clocks=clocks, run=board.run)
        restored = True  # nothing was changed yet
        try:
            with guarded(before):
                board.say(
                    f"{before.name} will be restored, also if this process crashes; by hand: "
                    f"{before.by_hand}"
                )
                restored = False
                try:
                    try:
                        yield first
                    finally:
                        _restore(before, limits, board)
                        restored = True
                finally:
                    # The one interrupt may have come in the midst of restoring.
                    if not restored:
                        _restore(before, limits, board)
                        restored = True
        finally:
            if restored:
                before.forget()


def _restore(before: RestorePoint, limits: dict[str, _Limits], board: BoardAccess) -> None:
    try:
        complaints = before.restore(board.run)
    except TargetError as error:
        board.say(str(error))
        raise
    # jetson_clocks keeps lower limits only: an upper one that somebody had set is lost.
    if _limits(board) != limits:
        _settle(board)
    for name, now in _limits(board).items():
        if name in limits and now != limits[name]:
            complaints.append(f"{name} may take {_range(now)}, before {_range(limits[name])}")
    board.say(f"{before.name} restored" + "".join(f"; but {text}" for text in complaints))


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """The first signal raises KeyboardInterrupt, further ones are swallowed.

    So restoring is interrupted once at most.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals
        return
    seen = False

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal seen
        if not seen:
            seen = True
            raise KeyboardInterrupt

    # What is ignored stays so: nohup wants the connection to break without harm.
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _settle(board: BoardAccess, *, seconds: float = 10.0, interval: float = 0.5) -> bool:
    """Wait until the limits of the clocks stay as they are; False if they never do."""
    last = None
    for _ in range(int(seconds / interval)):
        limits = _limits(board)
        if limits == last:
            return True
        last = limits
        board.sleep(interval)
    return False


def _limits(board: BoardAccess) -> dict[str, _Limits]:
    """Clock → the lowest and the highest MHz that its governor may choose."""
    clocks = read_clocks(board.root).items()
    return {name: (clock["min_mhz"], clock["max_mhz"]) for name, clock in clocks}


def _range(limits: _Limits) -> str:
    return " to ".join("?" if mhz is None else f"{mhz:g}" for mhz in limits) + " MHz"
