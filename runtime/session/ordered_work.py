"""Work done by a few threads, its results in order, never far ahead of whoever takes them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import GeneratorType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int, name: str
) -> Generator[Result, None, None]:
    """Do some work on each item; what was begun ends before a closed generator does.

    Args:
        work: called in a thread.
        items: taken one by one, in the thread of whoever iterates, so they may be endless.
        threads: how many work.
        ahead: items that may be taken before their results are asked for; bounds the memory. With 0
            the work on an item is done before the next one is taken.
        name: of the threads.

    Yields:
        The results, in the order of the items.

    Raises:
        Exception: whatever the work raised, in its place; whatever the items raised, behind the
            results of those that came before.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    waiting: deque[Future[Result]] = deque()
    failure: Exception | None = None
    coming = iter(items)
    try:
        while True:
            try:
                item = next(coming)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        if isinstance(coming, GeneratorType):
            coming.close()  # work may wait for what it fetches ahead
        pool.shutdown(wait=True, cancel_futures=True)
