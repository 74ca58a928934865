"""How a command ends: what it wrote, and the command that one types next.

Verdicts are sentences on standard output, after the result; `--json` has none of them.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from vptkit.shown_text import shown

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["next_command", "wrote"]


def next_command(*words: object) -> str:
    """As "next: vptkit run 'my flowers.vptk' photos/", ready to be pasted into a shell."""
    return f"next: {' '.join(['vptkit', *(shown(shlex.quote(str(word))) for word in words)])}"


def wrote(*paths: Path) -> str:
    """As "wrote flowers.safetensors (353 kB), flowers.html"; a folder is all of its files."""
    sized = f"{shown(paths[0])} ({_size(paths[0])})"
    return "wrote " + ", ".join([sized, *map(shown, paths[1:])])


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}"
    return f"{size} B"
