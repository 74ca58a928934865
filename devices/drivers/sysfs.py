"""Short files of /proc, /sys and /etc; what cannot be read is None."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_number", "read_text"]


def read_text(path: Path) -> str | None:
    """The text without the NULs, blanks and newlines around it; None if empty or unreadable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except (OSError, TypeError):
        # TypeError: how Python's readers report EAGAIN, with which a Jetson's thermal zones answer
        # while what they measure is switched off.
        return None


def read_number(path: Path) -> int | None:
    """A whole number; None if the file holds anything else."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None
