"""The file of a page: written whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.atomic_files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_page"]


def write_page(text: str, path: Path) -> None:
    """Write a page; what stands at that name is replaced.

    Args:
        text: of `vptkit.pages.html_page.filled_page`.
        path: the file.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")
