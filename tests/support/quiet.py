"""Rounds of a measurement in which other programs kept still: the others are left out, and counted.

Where several people share a machine, most rounds meet somebody's work, and what runs in parallel
seems to gain nothing: both cores are busy anyway. Linux only (/proc/stat).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

__all__ = ["SHARE", "Others", "quiet_turns"]

SHARE = 0.12  # of a core that others may take in a round that is kept
_TICKS = os.sysconf("SC_CLK_TCK")  # a second
_PAUSE = 0.3  # seconds of stillness before a round, so that most of them are kept


class Others:
    """Cores that other programs kept busy during a block, as `cores`."""

    cores = 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """The block; what it starts must have ended by its end."""
        busy, own, begun = _busy(), _own(), time.perf_counter()
        yield
        seconds = time.perf_counter() - begun
        self.cores = max(_busy() - busy - (_own() - own), 0.0) / max(seconds, 1e-9)


def quiet_turns(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    patience: float = 600.0,
    share: float = SHARE,
) -> tuple[dict[str, list[Any]], int]:
    """What each call returned, in a random order, in rounds that nobody disturbed.

    A call that was disturbed is made again, so that all have the same number of values.

    Args:
        calls: name → what is measured.
        rounds: of each.
        patience: seconds; then it ends with fewer.
        share: of a core that others may take; more than there are keeps every round, as of a process
            that goes before all others.

    Returns:
        Name → values, and how many calls were left out.

    Raises:
        TimeoutError: nobody kept still for as long as one call of each takes.
    """
    rng, others, left_out = np.random.default_rng(1), Others(), 0
    found: dict[str, list[Any]] = {name: [] for name in calls}
    end = time.monotonic() + patience
    for _ in range(rounds):
        for name in map(str, rng.permutation(list(calls))):
            while _waits_for_stillness(end, share):
                with others.watched():
                    value = calls[name]()
                if others.cores <= share:
                    found[name].append(value)
                    break
                left_out += 1
    if not all(found.values()):
        raise TimeoutError(f"others worked for {patience:.0f} s: measure when they have ended")
    return found, left_out


def _waits_for_stillness(end: float, share: float) -> bool:
    """Whether others kept still for a moment before the end."""
    while time.monotonic() < end:
        others = Others()
        with others.watched():
            time.sleep(_PAUSE)
        if others.cores <= share:
            return True
    return False


def _busy() -> float:
    """Seconds that all cores have worked; waiting and what a guest's host took are not counted."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS


def _own() -> float:
    """Seconds that this process and children that have ended worked."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
