"""An image in an object store, and many of them fetched before they are wanted.

What waits for a network needs more threads than cores; decoding has its own.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from .store_address import shown_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

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

    def fetch(self, pool: ThreadPoolExecutor) -> None:
        """Begin to read it; what came is given once, to the first who asks."""
        self._content = pool.submit(_read, self.address)

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
    pool: ThreadPoolExecutor | None = None
    waiting: deque[tuple[Image, int]] = deque()
    held = 0
    try:
        for image in images:
            size = 0
            if isinstance(image, StoredImage):
                pool = pool or ThreadPoolExecutor(_THREADS, thread_name_prefix="vptkit-fetch")
                image.fetch(pool)
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
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        raise
    if pool is not None:
        pool.shutdown(wait=False)


def _read(address: str) -> bytes:
    from .object_stores import read_object

    return read_object(address)
