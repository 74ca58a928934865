"""An image in an object store, and many of them fetched before they are wanted.

What waits for a network needs more threads than cores; decoding has its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from vptkit.errors import DataError

from .store_address import shown_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["StoredImage", "fetched_ahead"]

_THREADS = 32
_AHEAD = 64  # images
_ROOM = 256 << 20  # bytes of them; one that is larger comes alone
_GUESS = 4 << 20  # bytes of an image of which nothing says how large it is

Image = TypeVar("Image")


class StoredImage:
    """An image in a store.

    Attributes:
        address: of `store_address.address_of`.
        size: its bytes, as they were listed; None if nothing said.
    """

    __slots__ = ("_content", "address", "size")

    def __init__(self, address: str, size: int | None = None) -> None:
        self.address, self.size = address, size
        self._content: Future[bytes] | None = None

    def __str__(self) -> str:
        return shown_address(self.address)

    def __repr__(self) -> str:
        return f"StoredImage({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredImage) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __reduce__(self) -> tuple[type[StoredImage], tuple[str, int | None]]:
        return StoredImage, (self.address, self.size)

    @property
    def name(self) -> str:
        """Its name without folders."""
        return str(self).partition("?")[0].rstrip("/").rpartition("/")[2]

    def fetch(self, fetchers: _Fetchers) -> None:
        """Begin to read it; what came is given once, to the first who asks."""
        self._content = fetchers.submit(self.address)

    def read_bytes(self) -> bytes:
        """The encoded image.

        Raises:
            DataError: it is not there, or cannot be read.
            MissingError: a package that reads this store is not installed.
        """
        content, self._content = self._content, None
        return _read(self.address) if content is None else content.result()


def fetched_ahead(images: Iterable[Image]) -> Iterator[Image]:
    """The same images in order; of those in stores some more are being read than were taken.

    Args:
        images: of any kind, taken one by one. Where none is in a store nothing waits.
    """
    fetchers = _Fetchers()
    waiting: deque[tuple[Image, int]] = deque()
    held = 0
    try:
        for image in images:
            size = 0
            if isinstance(image, StoredImage):
                image.fetch(fetchers)
                size = _GUESS if image.size is None else image.size
            waiting.append((image, size))
            held += size
            while waiting and (not held or len(waiting) > _AHEAD or held > _ROOM):
                ready, size = waiting.popleft()
                held -= size
                yield ready
        while waiting:
            yield waiting.popleft()[0]
    except BaseException:  # whoever stops early
        fetchers.abandon()
        raise
    finally:
        fetchers.end()


class _Fetchers:
    """Threads that read objects, and do not hold up the end of a process whose network is gone.

    Those of concurrent.futures would: whoever exits waits for each, up to a library's last retry.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[str, Future[bytes]] | None] = SimpleQueue()
        self._threads = 0
        self._wanted: WeakSet[Future[bytes]] = WeakSet()

    def submit(self, address: str) -> Future[bytes]:
        """Begin to read an object."""
        found: Future[bytes] = Future()
        self._wanted.add(found)
        self._jobs.put((address, found))
        if self._threads < _THREADS:
            self._threads += 1
            threading.Thread(target=self._work, name="vptkit-fetch", daemon=True).start()
        return found

    def abandon(self) -> None:
        """Whoever waits need not any more."""
        for found in list(self._wanted):
            with contextlib.suppress(InvalidStateError):
                found.set_exception(DataError("the run was stopped"))

    def end(self) -> None:
        """No more objects come: the threads end with what they have."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            address, found = job
            if found.done():
                continue
            try:
                content = _read(address)
            except BaseException as error:
                with contextlib.suppress(InvalidStateError):
                    found.set_exception(error)
            else:
                with contextlib.suppress(InvalidStateError):
                    found.set_result(content)


def _read(address: str) -> bytes:
    from .object_stores import read_object

    return read_object(address)
