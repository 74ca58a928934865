"""A thread for one source: it holds the newest frame, or all of them in order, and opens what was lost."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from vptkit.errors import VptkitError

from .capture_policy import BackOff, CapturePolicy, Sieve
from .frame import Frame, StreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .source_protocol import Picture, Source

__all__ = ["Capture", "Counts", "Event", "default_policy"]


class Event(NamedTuple):
    """What happened to a source.

    Attributes:
        source: its name.
        kind: "lost" once, however often it is tried; "back" at the next frame; "ended"; "failed" for good.
        text: for people, with the source's name in it; no credentials.
    """

    source: str
    kind: Literal["lost", "back", "ended", "failed"]
    text: str


@dataclass(slots=True)
class Counts:
    """What became of a source's frames so far.

    Attributes:
        captured: frames that came.
        dropped: how many for which cause: "newer" (another came before it was taken), "stale", "every",
            "rate", "broken".
        reconnects: how often a lost source came back.
    """

    captured: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0


class _Waiting(NamedTuple):
    number: int
    wall: float
    picture: Picture


def default_policy(source: Source) -> CapturePolicy:
    """The newest frame of what is live, all frames of a file."""
    return CapturePolicy(keep="newest" if source.live else "all")


class Capture:
    """Frames of one source, captured by a thread of its own.

    Several captures share one condition: a consumer holds it, looks at `ready` of each, and waits.
    `take` is for one consumer's thread.
    """

    def __init__(
        self,
        source: Source,
        *,
        changed: threading.Condition,
        policy: CapturePolicy | None = None,
        give_up: int | None = None,
        on_event: Callable[[Event], None] | None = None,
        back_off: BackOff | None = None,
    ) -> None:
        """Prepare; `open` starts it.

        Args:
            source: it is closed with the capture.
            changed: notified when a frame came or the source ended; of all captures together.
            policy: which frames are kept; `default_policy` if None.
            give_up: tries in a row after which a live source has failed; None tries for ever.
            on_event: called from the capture's thread; it must be quick.
            back_off: the pauses between tries.
        """
        self.source = source
        self.name = source.name
        self.policy = policy or default_policy(source)
        self.error: Exception | None = None
        self._changed = changed
        self._give_up = give_up
        self._on_event = on_event
        self._back_off = back_off or BackOff()
        self._sieve = Sieve(self.policy)
        self._waiting: deque[_Waiting] = deque()
        self._counts = Counts()
        self._lost = False
        self._closing = False
        self._done = False
        self._thread = threading.Thread(target=self._run, name=f"capture {self.name}", daemon=True)

    # the consumer's side --------------------------------------------------------------------------

    def open(self) -> None:
        """Start to capture. What fails is told by an event and by `error`, not raised here."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether a frame waits (which may be stale)."""
        return bool(self._waiting)

    @property
    def ended(self) -> bool:
        """Whether no frame waits and none will come: the end of a file, a failure, or `close`."""
        return self._done and not self._waiting

    @property
    def counts(self) -> Counts:
        """A copy of the counts as they stand."""
        with self._changed:
            counts = self._counts
            return Counts(counts.captured, Counter(counts.dropped), counts.reconnects)

    def take(self, now: float) -> Frame | None:
        """The frame that is next, or None; never waits.

        Args:
            now: `time.monotonic()`, by which the newest frame may be stale.
        """
        while True:
            with self._changed:
                waiting = self._next(now)
                self._changed.notify_all()  # there is room
            if waiting is None:
                return None
            try:
                pixels = waiting.picture.read()
            except VptkitError:
                self._drop("broken")
                continue
            captured, timestamp, _ = waiting.picture
            return Frame(self.name, waiting.number, captured, waiting.wall, timestamp, pixels)

    def close(self, wait: float = 2.0) -> bool:
        """Stop capturing; what waits to be taken is forgotten.

        A read that blocks inside a library ends by the source's own time limit at the latest, and the
        thread with it.

        Args:
            wait: for the thread to end, s.

        Returns:
            Whether it has ended.
        """
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        self.source.close()
        if self._thread.ident is None:
            self._done = True
        else:
            self._thread.join(wait)
        return not self._thread.is_alive()

    def _next(self, now: float) -> _Waiting | None:
        if not self._waiting:
            return None
        waiting = self._waiting.popleft()
        if (
            self.policy.keep == "newest"
            and now - waiting.picture.captured > self.policy.max_staleness
        ):
            self._counts.dropped["stale"] += 1
            return None
        return waiting

    # the thread's side ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._try_once():
                pass
        except Exception as error:  # of any library; the consumer raises what is a defect
            self.error = error
            self._tell("failed", f"{self.name}: {type(error).__name__}")
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _try_once(self) -> bool:
        """Open, capture to the end, and wait; whether to try again."""
        try:
            for picture in self.source.frames():
                if not self._keep(picture):
                    return False
            if not self._closing:
                self._tell("ended", f"{self.name}: ended")
            return False  # noqa: TRY300 -- beside what leads to it
        except StreamError as lost:
            error = lost
        except VptkitError as missing:  # a package: it won't come by itself
            error = StreamError(str(missing), lasting=True)
            error.__cause__ = missing
        if self._closing:
            return False
        return self._again(error)

    def _again(self, error: StreamError) -> bool:
        tries = self._back_off.tries
        given_up = self._give_up is not None and tries >= self._give_up
        if error.lasting or not self.source.live or given_up:
            self.error = error.__cause__ if isinstance(error.__cause__, VptkitError) else error
            self._tell("failed", str(error))
            return False
        if not self._lost:
            self._lost = True
            self._tell("lost", f"{error}; tried again until it comes back")
        self._pause(self._back_off.pause())
        return not self._closing

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._changed:
            while not self._closing and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _keep(self, picture: Picture) -> bool:
        """Put a frame where the consumer finds it; False if the capture is closed."""
        self._came_back()
        seconds = picture.captured
        if not self.source.live and picture.timestamp is not None:
            seconds = picture.timestamp
        with self._changed:
            waiting = _Waiting(self._counts.captured, _wall(picture.captured), picture)
            self._counts.captured += 1
            cause = self._sieve.cause_to_drop(seconds)
            if cause is not None:
                self._counts.dropped[cause] += 1
                return not self._closing
        if self.policy.keep == "all":
            return self._queue(waiting)
        with self._changed:
            self._counts.dropped["newer"] += len(self._waiting)
            self._waiting.clear()
            if not self._closing:
                self._waiting.append(waiting)
            self._changed.notify_all()
            return not self._closing

    def _queue(self, waiting: _Waiting) -> bool:
        """Convert it here, beside the consumer's work, and wait for room."""
        try:
            pixels = waiting.picture.read()
        except VptkitError:
            self._drop("broken")
            return not self._closing
        picture = waiting.picture._replace(read=lambda: pixels)
        with self._changed:
            while len(self._waiting) >= self.policy.queue and not self._closing:
                self._changed.wait()
            if not self._closing:
                self._waiting.append(waiting._replace(picture=picture))
            self._changed.notify_all()
            return not self._closing

    def _came_back(self) -> None:
        self._back_off.reset()
        if self._lost:
            self._lost = False
            with self._changed:
                self._counts.reconnects += bool(self._counts.captured)
            self._tell("back", f"{self.name}: is back")

    def _drop(self, cause: str) -> None:
        with self._changed:
            self._counts.dropped[cause] += 1

    def _tell(self, kind: Literal["lost", "back", "ended", "failed"], text: str) -> None:
        if self._on_event is not None:
            self._on_event(Event(self.name, kind, text))


def _wall(captured: float) -> float:
    return time.time() - (time.monotonic() - captured)
