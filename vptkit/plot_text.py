"""Pictures by matplotlib: how ours look, whatever somebody else wrote in texts and in files that lie around.

A text with `$` is a formula to matplotlib. A `matplotlibrc` in the current folder is obeyed as soon as
matplotlib is imported: it may ask for LaTeX, which runs what stands in a label, or for another style.
So matplotlib is imported by this module only; `tests/test_imports.py` sees to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
import sys
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file, require_absent, require_writable
from vptkit.errors import MissingExtraError, OutputError
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "COLOURS",
    "FAINT",
    "GREY",
    "INK",
    "LINE",
    "ORANGE",
    "PAGE",
    "PLOT_SUFFIXES",
    "TIMES",
    "can_draw",
    "hover",
    "in_plot",
    "inline_svg",
    "light_axes",
    "line_style",
    "new_figure",
    "plain_pictures",
    "require_matplotlib",
    "require_plot",
    "write_figure",
]

PLOT_SUFFIXES = (".pdf", ".png", ".svg")
INK, FAINT, GREY, LINE = "#22262b", "#6b7078", "#b8bcc2", "#e6e8eb"
BLUE, ORANGE = "#2a6f97", "#c8551b"
# Okabe and Ito's, told apart by the colour-blind; dashes tell them apart in grey
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("-", "--", "-.", ":")
PAGE = 4.6  # inches: as wide as a picture can be whose letters are still read on a telephone
TIMES = "\N{MULTIPLICATION SIGN}"
_HOVER = "hover"  # the gid of what has a text; then one of its own, hover-0, hover-1, …
# Our ink → the page's, light or dark; white and the colours of data stay
_INKS = {
    "#000000": "var(--ink)",
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GREY: "var(--grey)",
    LINE: "var(--line)",
}
_FRACTION = re.compile(r"-?\d+\.\d{3,}")
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
    require_matplotlib("plot", "a plot")


def require_matplotlib(extra: str, purpose: str) -> None:
    """Find out, without importing it, whether matplotlib is there.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", extra, purpose)


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


def line_style(i: int) -> dict[str, Any]:
    """Of the i-th line of a picture: a colour, and dashes."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": _DASHES[i % len(_DASHES)],
        "linewidth": 1.6,
    }


def light_axes(axes: Axes, *, grid: str | None = "both") -> None:
    """Axes in faint ink, open above and on the right, with a grid behind the data.

    Args:
        axes: whose.
        grid: lines across "x", "y" or "both"; None draws none.
    """
    axes.tick_params(colors=FAINT)
    if grid is not None:
        axes.grid(axis=grid, color=LINE, linewidth=0.7)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(FAINT)


def write_figure(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write a picture whole or not at all; a file that is there is replaced.

    Args:
        figure: what was drawn.
        path: one of `vptkit.plot_text.PLOT_SUFFIXES`.
        dpi: pixels an inch.

    Raises:
        OutputError: another suffix, or the file cannot be written.
    """
    require_plot(path, force=True)
    options: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if path.suffix == ".png" else {}
    with atomic_file(path) as part, plain_pictures():
        figure.savefig(part, format=path.suffix[1:], dpi=dpi, **options)


def hover(artist: Artist, text: str) -> None:
    """What `inline_svg` shows while the pointer is over a part of a figure."""
    artist.set_gid(_HOVER)
    artist.set_label(f"_{shown(text)}")  # with _ no legend has it


@plain_pictures()
def inline_svg(figure: Figure, title: str) -> str:
    """A figure as an `<svg>` element for an HTML page: no size of its own, no id of another's.

    Letters are text, in the page's font; ink and paper are the page's variables --ink, --faint, --grey
    and --line. The page's own rule for `svg` sets the colour that matplotlib leaves out, black.

    Args:
        figure: what was drawn.
        title: what the picture is, for those who do not see it.

    Returns:
        Well-formed XML, every text in it escaped.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    title = shown(title)
    texts: dict[str, str] = {}
    for number, artist in enumerate(figure.findobj(lambda a: a.get_gid() == _HOVER)):
        artist.set_gid(f"{_HOVER}-{number}")
        texts[f"{_HOVER}-{number}"] = str(artist.get_label())[1:]
    written = io.StringIO()
    plain = {"svg.fonttype": "none", "svg.hashsalt": title, "image.composite_image": False}
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _import("matplotlib").rc_context(plain):
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(written.getvalue(), title, texts)


def _for_a_page(written: str, title: str, texts: dict[str, str]) -> str:
    """A file of matplotlib's as an element; `texts` has the hover texts by id."""
    from xml.etree import ElementTree as ET

    space, link = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
    meant = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', written))
    root = ET.fromstring(written)  # noqa: S314 -- of what was written just now
    own = hashlib.sha256(written.encode()).hexdigest()[:8]
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": title}
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{space}}}")
        name = element.attrib.pop("id", None)
        if name in texts:
            ET.SubElement(element, "title").text = texts[name]
            element.set("pointer-events", "all")  # what is not painted, too
        elif name in meant:
            element.set("id", f"{own}-{name}")
        target = element.attrib.pop(f"{{{link}}}href", None)
        if target is not None:
            element.set("href", f"#{own}-{target[1:]}" if target.startswith("#") else target)
        for key in ("style", "clip-path"):
            if key in element.attrib:
                value = element.attrib[key].replace("url(#", f"url(#{own}-")
                element.set(key, re.sub("#[0-9a-f]{6}\\b", _ink, value))
        _shorten(element)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith("metadata")]:
            parent.remove(child)
    return ET.tostring(root, encoding="unicode")


def _shorten(element: Any) -> None:
    """Leave out what nobody sees: layout, fonts (the page has its own), hundredths of a pixel, turns by 0°."""
    if not (element.text or "").strip():
        element.text = None
    element.tail = None
    for key in ("d", "x", "y", "width", "height", "points", "transform", "viewBox"):
        if key in element.attrib:
            value = _FRACTION.sub(
                lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), element.get(key)
            )
            element.set(key, " ".join(value.split()))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "style" in element.attrib:
        element.set("style", re.sub(r"font-family: [^;]*; ?|(?<=[:;]) ", "", element.get("style")))


def _ink(colour: re.Match[str]) -> str:
    return _INKS.get(colour[0], colour[0])


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
