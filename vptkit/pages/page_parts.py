"""A page as sections of sentences, pictures and tables, and what a template needs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.plot_text import inline_svg
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "Section", "Table", "section_document"]


class Picture(NamedTuple):
    """A figure, its name, and what it shows, in a sentence."""

    name: str
    figure: Figure
    words: str


class Table(NamedTuple):
    """Rows of texts; a folded one is shown when somebody asks for it."""

    label: str
    head: list[str]
    rows: list[list[str]]
    folded: bool = False


class Section(NamedTuple):
    """A part of a page; its key is the name of its place."""

    key: str
    title: str
    notes: list[str]
    pictures: list[Picture]
    tables: list[Table]


def section_document(section: Section, subject: str) -> dict[str, Any]:
    """A section as plain data, its pictures drawn.

    Args:
        section: one.
        subject: what the page is about, for those who do not see the pictures.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return {
        "key": section.key,
        "title": section.title,
        "notes": section.notes,
        "pictures": [
            {"svg": inline_svg(one.figure, f"{shown(subject)}: {one.words}"), "words": one.words}
            for one in section.pictures
        ],
        "tables": [table._asdict() for table in section.tables],
    }
