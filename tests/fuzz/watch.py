"""What no file may bring about: the interpreter's own events are looked at while one is opened."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Watch"]

_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink")
_CHANGES += (
    "os.truncate",
    "os.chmod",
    "os.chown",
    "shutil.rmtree",
    "shutil.move",
    "shutil.copyfile",
)


class Watch:
    """Counts what happens outside of the folders that an input may write to.

    Attributes:
        seen: what was forbidden, in words.
    """

    def __init__(self, allowed: tuple[Path, ...], precious: Path) -> None:
        """Start to look; there is no way back, so one for each process.

        Args:
            allowed: folders below which may be written.
            precious: a folder below which nothing may even be read.
        """
        self.seen: list[str] = []
        self._allowed = tuple(str(path.resolve()) for path in allowed)
        self._precious = str(precious.resolve())
        self._on, self._reads = False, True
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def on(self, *, reads: bool = True) -> Iterator[None]:
        """Look while the block runs; with reads also at what is read of the precious folder."""
        self.seen.clear()
        self._reads = reads
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        self._on = False  # looking opens files itself
        try:
            self._look(event, arguments)
        finally:
            self._on = True

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTS or event in ("socket.connect", "socket.getaddrinfo"):
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event == "open":
            path, mode, flags = arguments
            place = self._place(path)
            if place is None:
                return
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            reads = self._reads and _is_below(place, self._precious)
            if reads or (writes and not self._is_allowed(place)):
                self.seen.append(f"open {place} {mode} {flags:#x}")
        elif event in _CHANGES:
            for path in arguments[:2]:
                place = self._entry(path)
                if place is not None and not self._is_allowed(place):
                    self.seen.append(f"{event} {place}")

    def _place(self, path: Any) -> str | None:
        """Where a path leads; names relative to a descriptor are looked at where it was opened."""
        if not isinstance(path, (str, bytes)):
            return None
        name = os.fsdecode(path)
        if "/" not in name and not os.path.lexists(name):
            return None
        try:
            return os.path.realpath(name)
        except (OSError, ValueError):
            return None

    def _entry(self, path: Any) -> str | None:
        """The entry of a folder that is changed: a link itself, not where it leads."""
        if not isinstance(path, (str, bytes)) or "/" not in os.fsdecode(path):
            return None
        folder, name = os.path.split(os.fsdecode(path))
        return f"{os.path.realpath(folder)}{os.sep}{name}"

    def _is_allowed(self, place: str) -> bool:
        return place.startswith("/dev/") or any(_is_below(place, top) for top in self._allowed)


def _is_below(place: str, top: str) -> bool:
    return place == top or place.startswith(top + os.sep)
