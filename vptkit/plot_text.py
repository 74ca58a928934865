"""Pictures by matplotlib, whatever somebody else wrote: their texts, and the files that lie around.

A text with `$` is a formula to matplotlib. A `matplotlibrc` in the current folder is obeyed as soon as
matplotlib is imported: it may ask for LaTeX, which runs what stands in a label, or for another style.
So matplotlib is imported by this module only; `tests/test_imports.py` sees to it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import require_absent, require_writable
from vptkit.errors import MissingExtraError, OutputError
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = [
    "PLOT_SUFFIXES",
    "can_draw",
    "in_plot",
    "new_figure",
    "plain_pictures",
    "require_plot",
]

PLOT_SUFFIXES = (".pdf", ".png", ".svg")
_SETTINGS = "matplotlibrc"  # relative: the first place where matplotlib looks


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


def can_draw() -> bool:
    """Whether matplotlib, an extra, is there. It is imported, which is slow."""
    try:
        _import("matplotlib")
    except MissingExtraError:
        return False
    return True


@contextlib.contextmanager
def plain_pictures() -> Iterator[None]:
    """Draw and save in matplotlib's own style, whatever the user's is. A decorator.

    Characters that the font lacks become boxes, without a warning for each.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    style = _import("matplotlib.style")
    with style.context("default"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def new_figure(width: float, height: float, *, dpi: int | None = None) -> Figure:
    """An empty figure, without a window; its parts find their places themselves.

    Args:
        width, height: inches.
        dpi: pixels an inch; None for matplotlib's own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    made: Figure = _import("matplotlib.figure").Figure(
        figsize=(width, height), dpi=dpi, layout="constrained"
    )
    return made


def _import(name: str) -> Any:
    """A module of matplotlib's, which reads its settings when it is imported first.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        if "matplotlib" not in sys.modules:
            with _unseen(_SETTINGS):
                importlib.import_module("matplotlib")
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "a plot") from error


@contextlib.contextmanager
def _unseen(name: str) -> Iterator[None]:
    """Nothing of that relative name exists, for now.

    matplotlib asks `os.path.exists` for each place of its settings, and can be told of none. To leave
    the current folder meanwhile would take it away from the other threads.
    """
    exists = os.path.exists
    os.path.exists = lambda path: path != name and exists(path)
    try:
        yield
    finally:
        os.path.exists = exists
