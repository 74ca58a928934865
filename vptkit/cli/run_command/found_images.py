"""The images of what `vptkit run` was given: looked up while others are answered, and counted beside it."""

from __future__ import annotations

import contextlib
import sys
import threading
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError
from vptkit.shown_text import tell

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

__all__ = ["FoundImages"]

_FIRST = 1000  # images that are looked up before the first is answered


class FoundImages:
    """The images of the sources, one by one; the first thousand are looked up at once.

    What gave none is told on standard error as soon as all is known.
    """

    def __init__(self, sources: list[str], columns: str | None, *, allow_outside: bool) -> None:
        """Nothing is looked up yet.

        Args:
            sources: as on the command line.
            columns: of `vptkit.datasets.table_columns.parse_columns`.
            allow_outside: of `vptkit.runtime.inputs.lookup.Lookup`.

        Raises:
            DataError: standard input holds no names, or `columns` is no such text.
        """
        from vptkit.datasets.table_columns import parse_columns
        from vptkit.runtime.bulk.named_sources import NamedImages

        self._sources, self._columns, self._allow_outside = sources, columns, allow_outside
        self._named = NamedImages(
            sources,
            getattr(sys.stdin, "buffer", None),
            columns=parse_columns(columns),
            allow_outside=allow_outside,
        )
        self._told = False

    @property
    def faults(self) -> list[str]:
        """What was wrong with sources that were named themselves, in a sentence for each kind of it."""
        kinds = (("missing", self._named.missing), ("broken", self._named.broken))
        return [f"{len(whys)} of the sources is {kind}: {whys[0]}" for kind, whys in kinds if whys]

    def described(self) -> dict[str, Any]:
        """What a journal says of them, without credentials; what was not asked for is None."""
        from vptkit.runtime.stores.store_address import shown_source

        return {
            "sources": [shown_source(source) for source in self._sources],
            "columns": self._columns,
            "allow_outside": self._allow_outside or None,
        }

    def look(self, passed: Container[Any]) -> tuple[Iterator[Any], int | None]:
        """The images that are not passed over, and their number if it is known by now."""
        images = (path for path in self._named if path not in passed)
        first = list(islice(images, _FIRST))
        if len(first) < _FIRST:
            self.tell()
            return iter(first), len(first)
        return chain(first, images), None

    def count(self, bar: Any, done: int) -> None:
        """Tell a bar the number of images as soon as a look through all of them is over."""

        def look() -> None:
            with contextlib.suppress(VptkitError):
                total = self._named.count()
                bar.total = None if total is None else total - done

        threading.Thread(target=look, name="vptkit-count", daemon=True).start()

    def tell(self) -> None:
        """Say, once, what gave none."""
        from vptkit.datasets.dataset_summary import skipped_text

        if self._told:
            return
        self._told = True
        for fault in (*self._named.missing, *self._named.broken, *self._named.empty):
            tell(f"warning: {fault}; the others are done")
        if skipped := self._named.skipped:
            phones = sum(skipped[kind] for kind in (".heic", ".heif"))
            hint = "; HEIC is not read, convert it to JPEG first" if phones else ""
            tell(f"note: {skipped_text(skipped)}{hint}")
