"""Which images came already: kept in a temporary database, so that millions take no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from vptkit.images.image_file import ImageFile

__all__ = ["SeenPaths"]


class SeenPaths:
    """A set of images, by what they are called, on the disk; it goes when it is closed. Of one thread."""

    def __init__(self) -> None:
        self._database: sqlite3.Connection | None = None

    def add(self, path: ImageFile | str) -> bool:
        """Whether an image is new; from now on it is not."""
        row = self._opened().execute("insert or ignore into seen values (?)", (_key(path),))
        return row.rowcount == 1

    def __contains__(self, path: object) -> bool:
        """Whether it was added."""
        if self._database is None:
            return False
        found = self._database.execute("select 1 from seen where path = ?", (_key(path),))
        return found.fetchone() is not None

    def close(self) -> None:
        """Remove what is on the disk."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _opened(self) -> sqlite3.Connection:
        import sqlite3

        if self._database is None:
            # Without a name it lies in a temporary file, of which SQLite keeps 2 MB in memory.
            self._database = sqlite3.connect("", isolation_level=None)
            self._database.execute("pragma journal_mode = off")
            self._database.execute("begin")
            self._database.execute("create table seen (path blob primary key) without rowid")
        return self._database


def _key(path: object) -> bytes:
    # Of halves of surrogates, too, as which Python reads names that are not UTF-8.
    return str(path).encode("utf-8", "surrogatepass")
