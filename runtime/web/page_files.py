"""The files of the page, plain HTML, CSS and JavaScript in `page/`: in front of a server, and of a graph."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GRAPH_PAGE", "SERVER_PAGE", "page_file"]

_SHARED = {name: name for name in ("index.html", "page.css", "page.js", "words.js")}
_SOURCE = "source.js"  # what the page imports: where its answers come from
# Name in a browser → file in page/
SERVER_PAGE = {**_SHARED, _SOURCE: "ask_server.js"}
_SCRIPTS = ("graph_worker.js", "image_pixels.js", "pillow_resize.js")
GRAPH_PAGE = {**_SHARED, _SOURCE: "ask_graph.js", **{name: name for name in _SCRIPTS}}


def page_file(name: str, page: Mapping[str, str]) -> bytes:
    """The content of a file of a page, by its name in a browser."""
    return (files(__package__) / "page" / page[name]).read_bytes()
