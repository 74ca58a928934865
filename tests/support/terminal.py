"""A command in a terminal of its own: what a person would see on it."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.children import Child

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Seen", "drawn", "in_a_terminal"]

_ROWS = 50  # of the window
_KEPT = 2000  # rows that can be scrolled back


class Seen(NamedTuple):
    """What stood on the terminal when the command had ended.

    Attributes:
        text: all rows, also those that were scrolled out; without spaces at their ends.
        coloured: whether any letter has a colour.
        status: the command's exit status.
        raw: the bytes that were written.
    """

    text: str
    coloured: bool
    status: int
    raw: bytes


def in_a_terminal(command: Sequence[object], *, columns: int, **settings: Any) -> Seen:
    """Run a command on a pseudo-terminal and draw what it writes as a terminal would.

    Args:
        command: program and arguments.
        columns: width of the window.
        settings: of `Child`: cwd, env, limit.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    child = Child(command, stdin=theirs, stdout=theirs, stderr=theirs, **settings)
    os.close(theirs)
    try:
        written = b"".join(iter(lambda: _read(ours), b""))
        status = child.wait()
    finally:
        os.close(ours)
        child.end()
    return drawn(written, columns=columns, status=status)


def drawn(written: bytes, *, columns: int, status: int) -> Seen:
    """What a terminal shows of these bytes."""
    import pyte

    screen = pyte.Screen(columns, _KEPT)
    pyte.ByteStream(screen).feed(written)
    rows = [row.rstrip() for row in screen.display]
    cells = (cell for row in screen.buffer.values() for cell in row.values())
    coloured = any((cell.fg, cell.bg) != ("default", "default") for cell in cells)
    return Seen("\n".join(rows).rstrip() + "\n", coloured, status, written)


def _read(file: int) -> bytes:
    """Some bytes; none when nobody can write any more, which Linux calls an input/output error."""
    try:
        return os.read(file, 65536)
    except OSError:
        return b""
