"""Frames of many sources → batches of prepared pixels, one batch ahead of the graph.

A batch is what is there: nobody waits for the slowest source. While the graph runs, the next batch is
taken and prepared; a live frame that became too old meanwhile is dropped and counted.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from vptkit.devices.probes.machine import usable_cores
from vptkit.errors import DataError
from vptkit.images.preprocess import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.images.preprocess import Preprocess
    from vptkit.runtime.streams.capture import Counts
    from vptkit.runtime.streams.capture_policy import CapturePolicy
    from vptkit.runtime.streams.frame import Frame
    from vptkit.runtime.streams.source_protocol import Source

__all__ = ["Feed", "FrameBatches", "gather"]

_LOOK = 0.1  # seconds between two looks at sources that say nothing


class Feed(Protocol):
    """What is needed of a `vptkit.runtime.streams.capture.Capture`."""

    name: str
    source: Source
    policy: CapturePolicy
    error: Exception | None

    @property
    def ready(self) -> bool:
        """Whether a frame waits."""

    @property
    def ended(self) -> bool:
        """No more frames will come, and none is left."""

    @property
    def counts(self) -> Counts:
        """Frames so far."""

    def open(self) -> None:
        """Begin to capture."""

    def take(self, now: float) -> Frame | None:
        """The next frame, if one is there."""

    def close(self) -> bool:
        """End capturing."""


# A frame, and its pixels uint8 [H, W, 3] or the reason why there are none.
Prepared = tuple["Frame", "NDArray[np.uint8] | DataError"]


def gather(
    feeds: Sequence[Feed],
    changed: threading.Condition,
    count: int,
    max_wait: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Frame]:
    """The frames that are there now: at least one, at most `count`; none when all have ended.

    Sources take turns, so that a file that is read fast leaves room for the others. From the first
    frame on, others are waited for up to `max_wait` seconds, and only while there is a source that
    has given none.

    Args:
        feeds: the sources; the one that came first is not always asked first.
        changed: notified when one of them has a frame, or ends.
        count: frames of a batch.
        max_wait: seconds.
        clock: as `time.monotonic`.
        stopped: whether nobody wants them any more.
    """
    frames: list[Frame] = []
    given: set[str] = set()
    until: float | None = None
    while not stopped():
        _sweep(feeds, count, frames, given, clock)  # outside of the lock: pixels are converted here
        if len(frames) >= count:
            break
        with changed:
            going = [feed for feed in feeds if not feed.ended]
            if not going:
                break
            left = _LOOK
            if frames:
                until = clock() + max_wait if until is None else until
                left = until - clock()
                if left <= 0 or all(feed.name in given for feed in going):
                    break
            if not any(feed.ready for feed in going):
                changed.wait(left)
    return frames


def _sweep(
    feeds: Sequence[Feed],
    count: int,
    frames: list[Frame],
    given: set[str],
    clock: Callable[[], float],
) -> None:
    """Take in turns what is there, from those that have given nothing yet at first."""
    order = sorted(feeds, key=lambda feed: feed.name in given)
    found = True
    while found and len(frames) < count:
        found = False
        for feed in order:
            if len(frames) >= count or not feed.ready:
                continue
            if (frame := feed.take(clock())) is not None:
                frames.append(frame)
                given.add(feed.name)
                found = True


class FrameBatches:
    """Batches, each taken and prepared while the one before is answered; to be closed."""

    def __init__(
        self,
        feeds: Sequence[Feed],
        changed: threading.Condition,
        preprocess: Preprocess,
        *,
        batch: int,
        max_wait: float,
        workers: int | None = None,
    ) -> None:
        """Start the threads; the feeds are started by whoever made them.

        Args:
            feeds: the sources.
            changed: notified by them.
            preprocess: the target size, filter and crop share.
            batch: frames of a batch, at most.
            max_wait: see `gather`.
            workers: threads that prepare, one for each usable core unless given.
        """
        self._feeds, self._changed, self._preprocess = list(feeds), changed, preprocess
        self._batch, self._max_wait = batch, max_wait
        self._pool = ThreadPoolExecutor(
            workers or usable_cores(), thread_name_prefix="vptkit-prepare"
        )
        self._stop = threading.Event()
        self._wanted = threading.Semaphore(1)  # one batch ahead
        self._ready: queue.SimpleQueue[list[Prepared] | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="vptkit-batches", daemon=True)
        self._thread.start()

    def next(self, timeout: float | None = None) -> list[Prepared] | None:
        """The next batch, empty at the end; None when it is not there in time.

        Args:
            timeout: seconds to wait; for ever unless given.
        """
        try:
            found = self._ready.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        self._wanted.release()
        return found

    def close(self) -> None:
        """End the threads."""
        self._stop.set()
        self._wanted.release()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(self) -> None:
        try:
            batch: list[Prepared] | None = None
            while batch != []:
                self._wanted.acquire()
                batch = self._next()
                self._ready.put(batch)
        except BaseException as error:
            self._ready.put(error)

    def _next(self) -> list[Prepared]:
        frames = gather(
            self._feeds, self._changed, self._batch, self._max_wait, stopped=self._stop.is_set
        )
        self._feeds.append(self._feeds.pop(0))  # another one is asked first
        return [] if self._stop.is_set() else list(self._pool.map(self._prepare, frames))

    def _prepare(self, frame: Frame) -> Prepared:
        from PIL import Image

        name = f"{frame.source} frame {frame.number}"
        try:
            return frame, prepare(Image.fromarray(frame.pixels), self._preprocess, name)
        except DataError as error:
            return frame, error
        except MemoryError:
            return frame, DataError(f"{name}: not enough memory to resize it")
