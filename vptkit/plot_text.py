"""What all pictures share: somebody else's text in them, and whether they can be written.

Matplotlib takes `$` for formulas, and may start LaTeX.
"""

from __future__ import annotations

import contextlib
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vptkit.atomic_files import require_absent, require_writable
from vptkit.errors import MissingExtraError, OutputError
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PLOT_SUFFIXES", "in_plot", "plain_pictures", "require_plot"]

PLOT_SUFFIXES = (".pdf", ".png", ".svg")


def require_plot(path: Path, *, force: bool) -> None:
    """Find out before a long computation whether its plot could be written.

    Raises:
        OutputError: another suffix than PLOT_SUFFIXES, or the file exists and force is off.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix not in PLOT_SUFFIXES:
        raise OutputError(f"{path}: plots are written as {', '.join(PLOT_SUFFIXES)}")
    require_absent(path, force=force)
    require_writable(path)
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "plot", "a plot")


def in_plot(name: object, longest: int = 80) -> str:
    """A name in a picture: no formula of matplotlib's, never hidden from a legend, not too long."""
    text = shown(name)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    text = text.replace("$", r"\$")  # one that is alone is a formula that never ends
    return f" {text}" if text.startswith("_") else text or " "  # _x is not shown in a legend


@contextlib.contextmanager
def plain_pictures() -> Iterator[None]:
    """Draw without LaTeX, whatever is the user's way: names would be programs of it. A decorator.

    Characters that the font lacks become boxes, without a warning for each.
    """
    import matplotlib as mpl  # optional, and slow to import

    with mpl.rc_context({"text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield
