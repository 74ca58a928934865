"""Somebody else's text in a picture: matplotlib takes `$` for formulas, and may start LaTeX."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["in_plot", "plain_pictures"]


def in_plot(name: object, longest: int = 80) -> str:
    """A name in a picture: no formula of matplotlib's, never hidden from a legend, not too long."""
    text = shown(name)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    text = text.replace("$", r"\$")  # one that is alone is a formula that never ends
    return f" {text}" if text.startswith("_") else text or " "  # _x is not shown in a legend


@contextlib.contextmanager
def plain_pictures() -> Iterator[None]:
    """Draw without LaTeX, whatever is the user's way: names would be programs of it. A decorator."""
    import matplotlib as mpl  # optional, and slow to import

    with mpl.rc_context({"text.usetex": False}):
        yield
