"""Throughput of several sessions at once, each in a thread of its own.

Latency is measured one call at a time; a GPU that is not filled by one stream, or a processor whose
cores one call leaves idle, answers more images a second when several are under way.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Throughput", "measure_throughput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Calls that ended in so many seconds, all streams together."""

    streams: int
    calls: int
    seconds: float

    def to_json(self, *, batch: int, single: float | None) -> dict[str, float | None]:
        """As the profile writes it, beside the rate of a single stream."""
        return {
            "count": self.streams,
            "images_per_s": batch * self.calls / self.seconds if self.seconds > 0 else None,
            "single_images_per_s": single,
            "seconds": self.seconds,
        }


def measure_throughput(
    calls: Sequence[Callable[[], object]],
    *,
    seconds: float,
    warm_up: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput:
    """Call all streams at once.

    Args:
        calls: one run of each stream, on a session of its own.
        seconds: time after which no stream starts another call; what is under way is waited for
            and counts, calls and time.
        warm_up: calls of each stream before that.
        clock: seconds.

    Raises:
        Exception: whatever a call raised, after all streams have ended.
    """
    start = [0.0]
    failed = threading.Event()

    def begin() -> None:
        start[0] = clock()

    barrier = threading.Barrier(len(calls), action=begin)

    def stream(call: Callable[[], object]) -> int:
        count = 0
        try:
            for _ in range(warm_up):
                call()
            barrier.wait()
            while not failed.is_set() and (count == 0 or clock() - start[0] < seconds):
                call()
                count += 1
        except BaseException:
            failed.set()
            barrier.abort()
            raise
        return count

    with ThreadPoolExecutor(len(calls), thread_name_prefix="vptkit-stream") as pool:
        futures = [pool.submit(stream, call) for call in calls]
        try:
            errors = [future.exception() for future in futures]
        except BaseException:  # Ctrl-C: have the streams end
            failed.set()
            barrier.abort()
            raise
    spent = clock() - start[0]
    # A broken barrier is what the others see of the first failure.
    real = [e for e in errors if e is not None and not isinstance(e, threading.BrokenBarrierError)]
    if real:
        raise real[0]
    return Throughput(streams=len(calls), calls=sum(f.result() for f in futures), seconds=spent)
