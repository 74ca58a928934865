"""Which images came already: of many in a temporary database, so that millions take no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from vptkit.images.image_file import ImageFile

__all__ = ["SeenPaths"]


_FEW = 1000  # that are kept in memory


class SeenPaths:
    """A set of images, by what they are called; of many it lies on the disk, and goes when it is closed.

    Of one thread.
    """

    def __init__(self) -> None:
        self._few: set[bytes] = set()
        self._database: sqlite3.Connection | None = None

    def add(self, path: ImageFile | str) -> bool:
        """Whether an image is new; from now on it is not."""
        if path in self:
            return False
        if self._database is None and len(self._few) < _FEW:
            self._few.add(_key(path))
        else:
            self._opened().execute("insert into seen values (?)", (_key(path),))
        return True

    def __contains__(self, path: object) -> bool:
        """Whether it was added."""
        key = _key(path)
        if key in self._few or self._database is None:
            return key in self._few
        found = self._database.execute("select 1 from seen where path = ?", (key,))
        return found.fetchone() is not None

    def close(self) -> None:
        """Forget them, and remove what is on the disk."""
        self._few.clear()
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
