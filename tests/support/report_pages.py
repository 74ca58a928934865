"""A report's page, read: its texts, its links, and what would leave the file."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Page", "read_page"]

_VOID = {"meta", "br", "img", "link", "input", "hr"}
_LOADS = (
    "src",
    "href",
    "xlink:href",
    "srcset",
    "action",
    "data",
    "poster",
    "background",
    "formaction",
)


class Page(HTMLParser):
    """What a page holds.

    Attributes:
        tags: every tag, in order.
        texts: every text that a reader sees, in order.
        loads: values of attributes that name something to load or to go to.
        ids: every id.
        unclosed: tags that were opened and not closed.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.unclosed: list[str] = []
        self.styles: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in _VOID:
            self.unclosed.append(tag)
        self._take(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._take(attrs)

    def _take(self, attrs):
        for name, value in attrs:
            if name in _LOADS:
                self.loads.append(value)
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value)
            if name == "style":
                self.styles.append(value)

    def handle_endtag(self, tag):
        assert self.unclosed, f"</{tag}> closes nothing"
        assert self.unclosed.pop() == tag, tag

    def handle_data(self, data):
        (self.styles if self.unclosed[-1:] == ["style"] else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read_page(path: Path) -> Page:
    """A page that holds together: tags are closed, ids are its own, and nothing is loaded or run."""
    page = Page(path.read_text(encoding="utf-8"))
    assert page.unclosed == []
    assert len(page.ids) == len(set(page.ids))
    outside = [v for v in page.loads if not v.startswith(("#", "data:image/"))]
    assert outside == []
    assert {v[1:] for v in page.loads if v.startswith("#")} <= set(page.ids)
    assert page.handlers == []
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [style for style in page.styles if "@import" in style or "url(h" in style]
    return page
