"""Modules that are needed soon, imported while the processor waits for something else."""

from __future__ import annotations

import contextlib
import threading
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["importing"]


@contextlib.contextmanager
def importing(*names: str) -> Iterator[None]:
    """Import modules while the block runs, best one that loads a graph: it leaves Python alone.

    What cannot be imported is left to whoever needs it, and hears why.

    Args:
        names: modules that are part of no circle of imports; the block may import them, too.
    """
    thread = threading.Thread(target=_import, args=(names,), name="vptkit-imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _import(names: tuple[str, ...]) -> None:
    for name in names:
        with contextlib.suppress(Exception):
            import_module(name)
