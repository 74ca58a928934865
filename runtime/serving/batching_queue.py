"""Images of all requests in one queue, run in batches by one thread, answers back to their owners.

A request takes a ticket for its images before they are decoded, so that the queue knows what is
coming, and refuses at once when it is full. A run begins when it is full, or nothing more is coming, or
its first image has waited `max_wait`: on an idle server at once.

Tickets carry the state that they were taken under, as a bank's adapters. `change` makes a new one:
earlier tickets end first, under the old state; later ones wait for it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from .http_error import HttpError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.uint8], Sequence[str]], NDArray[np.float32]]

__all__ = ["BatchingQueue", "Ticket"]

_State = TypeVar("_State")
_RETRY = 1  # seconds


@dataclass(slots=True, eq=False)
class Ticket(Generic[_State]):
    """Room for the images of one request.

    Attributes:
        count: images.
        state: what the queue's state was when the ticket was taken.
        generation: how many changes there were before.
        coming: images that were not submitted yet.
        open: it was not given back.
    """

    count: int
    state: _State
    generation: int
    coming: int
    open: bool = True


@dataclass(slots=True, eq=False)
class _Job:
    """The images of a request: uint8 [n, H, W, 3], an adapter each, and their answers."""

    images: NDArray[np.uint8]
    adapters: Sequence[str]
    generation: int
    deadline: float
    arrived: float
    answer: Future[NDArray[np.float32]] = field(default_factory=Future)
    rows: list[NDArray[np.float32]] = field(default_factory=list)


class BatchingQueue(Generic[_State]):
    """A bounded queue and its thread; see the module."""

    def __init__(
        self,
        run: Run,
        state: _State,
        *,
        max_batch: int,
        max_wait: float,
        size: int,
        observed: Callable[[int, float, float], None] | None = None,
        name: str = "model",
    ) -> None:
        """Start the thread.

        Args:
            run: images [B, H, W, 3] and B adapters → an answer each, [B, ...]; called by that thread alone.
            state: of the first tickets.
            max_batch: images of a run.
            max_wait: seconds that an image waits for others that are coming.
            size: images that may have tickets.
            observed: told of each run: images, seconds, and seconds that the first had waited.
            name: of the thread.
        """
        self._run, self._state = run, state
        self._max_batch, self._max_wait, self._size = max_batch, max_wait, size
        self._observed = observed
        self._changed = threading.Condition()
        self._waiting: deque[tuple[_Job, int]] = deque()  # a job, and the number of its image
        self._changes: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._open: Counter[int] = Counter()  # generation → tickets
        self._coming: Counter[int] = Counter()  # generation → images
        self._held = 0  # images that have tickets
        self._generation = self._newest = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"vptkit-{name}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> _State:
        """What a ticket would get now."""
        return self._state

    @property
    def held(self) -> int:
        """Images that have tickets."""
        return self._held

    @property
    def size(self) -> int:
        """Images that may have tickets."""
        return self._size

    def ticket(self, count: int) -> Ticket[_State]:
        """Room for images; to be given back by `release`.

        Raises:
            HttpError: 413: more than ever fit; 503: the queue is full, or closed.
        """
        if count > self._size:
            raise HttpError(413, f"{count} images came, expected at most {self._size} in a request")
        with self._changed:
            if self._closed:
                raise HttpError(503, "the server is being shut down", retry_after=_RETRY)
            if self._held + count > self._size:
                raise HttpError(
                    503,
                    f"the queue is full: {self._held} of {self._size} images wait. Ask again later.",
                    retry_after=_RETRY,
                )
            self._held += count
            self._open[self._newest] += 1
            self._coming[self._newest] += count
            return Ticket(count, self._state, self._newest, count)

    def submit(
        self,
        ticket: Ticket[_State],
        images: NDArray[np.uint8],
        adapters: Sequence[str],
        deadline: float,
    ) -> Future[NDArray[np.float32]]:
        """Queue the images of a ticket; called once.

        Args:
            ticket: of as many images.
            images: uint8 [n, H, W, 3].
            adapters: one for each.
            deadline: of `time.monotonic`; what has not begun by then is refused.

        Returns:
            Of [n, ...]; HttpError 503 if the deadline passed, or what `run` raised. May be cancelled.
        """
        job = _Job(images, adapters, ticket.generation, deadline, time.monotonic())
        with self._changed:
            self._has_come(ticket)
            self._waiting.extend((job, i) for i in range(len(images)))
            self._changed.notify_all()
        return job.answer

    def release(self, ticket: Ticket[_State]) -> None:
        """Give a ticket back; its answers are there, or nobody waits for them."""
        with self._changed:
            if ticket.open:
                ticket.open = False
                self._has_come(ticket)
                self._held -= ticket.count
                self._open[ticket.generation] -= 1
                self._changed.notify_all()

    def change(self, state: _State, action: Callable[[], None]) -> Future[None]:
        """Give later tickets another state.

        Args:
            state: of the tickets from now on.
            action: what the queue's thread does between the last answer to an earlier ticket and the
                first run for a later one.
        """
        done: Future[None] = Future()
        with self._changed:
            self._changes.append((action, done))
            self._state = state
            self._newest += 1
            self._changed.notify_all()
        return done

    def close(self, timeout: float | None = None) -> None:
        """Refuse further tickets, answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _has_come(self, ticket: Ticket[_State]) -> None:
        self._coming[ticket.generation] -= ticket.coming
        ticket.coming = 0

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if callable(batch):
                batch()
            elif batch:
                self._answer(batch)

    def _next(self) -> Callable[[], None] | list[tuple[_Job, int]] | None:
        """A change that is due, or the images of the next run; None at the end."""
        with self._changed:
            while True:
                if self._changes and not self._open[self._generation]:
                    return self._due_change()
                first = self._first()
                if first is not None:
                    left = first.arrived + self._max_wait - time.monotonic()
                    if self._is_full() or not self._coming[self._generation] or left <= 0:
                        return self._take()
                    self._changed.wait(left)
                elif self._closed and not self._held and not self._changes:
                    return None
                else:
                    self._changed.wait(1.0 if self._closed else None)

    def _due_change(self) -> Callable[[], None]:
        action, done = self._changes.popleft()
        for counts in (self._open, self._coming):
            del counts[self._generation]
        self._generation += 1

        def act() -> None:
            try:
                action()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        return act

    def _first(self) -> _Job | None:
        """The job of the next run's first image; those of later generations stand behind it."""
        for job, _ in self._waiting:
            if job.generation == self._generation:
                return job
        return None

    def _is_full(self) -> bool:
        count = 0
        for job, _ in self._waiting:
            count += job.generation == self._generation
            if count >= self._max_batch:
                return True
        return False

    def _take(self) -> list[tuple[_Job, int]]:
        """Remove the images of the next run from the queue; late and forgotten ones, too."""
        taken: list[tuple[_Job, int]] = []
        later: list[tuple[_Job, int]] = []
        now = time.monotonic()
        while self._waiting and len(taken) < self._max_batch:
            job, i = self._waiting.popleft()
            if job.generation != self._generation:
                later.append((job, i))
            elif job.answer.done():
                continue
            elif job.deadline < now and not job.rows:
                _fail(job, HttpError(503, _late(now - job.arrived), retry_after=_RETRY))
            else:
                taken.append((job, i))
        self._waiting.extendleft(reversed(later))
        return taken

    def _answer(self, batch: list[tuple[_Job, int]]) -> None:
        begun = time.monotonic()
        waited = begun - batch[0][0].arrived
        try:
            images = np.stack([job.images[i] for job, i in batch])
            rows = self._run(images, [job.adapters[i] for job, i in batch])
            answered = list(zip(batch, rows, strict=True))
        except BaseException as error:
            for job, _ in batch:
                _fail(job, error)
            return
        for (job, _), row in answered:
            job.rows.append(row)
            if len(job.rows) == len(job.images):
                _finish(job)
        if self._observed is not None:
            self._observed(len(batch), time.monotonic() - begun, waited)


def _late(seconds: float) -> str:
    return f"the request has waited {1000 * seconds:.0f} ms in the queue, its deadline passed"


def _fail(job: _Job, error: BaseException) -> None:
    if not job.answer.done():
        _settle(lambda: job.answer.set_exception(error))


def _finish(job: _Job) -> None:
    _settle(lambda: job.answer.set_result(np.stack(job.rows)))


def _settle(settle: Callable[[], Any]) -> None:
    try:
        settle()
    except (InvalidStateError, CancelledError):  # whoever asked has left meanwhile
        return
