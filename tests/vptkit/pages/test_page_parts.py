"""Sections as plain data."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from vptkit.pages.page_parts import Picture, Section, Table, section_document
from vptkit.plot_text import new_figure


def test_pictures_are_drawn_for_a_page():
    figure = new_figure(1, 1)
    section = Section("k", "t", ["n"], [Picture("p", figure, "what")], [Table("l", ["h"], [["c"]])])
    document = section_document(section, "flowers")
    assert document["tables"] == [{"label": "l", "head": ["h"], "rows": [["c"]], "folded": False}]
    (picture,) = document["pictures"]
    assert picture["svg"].startswith("<svg")
    assert 'aria-label="flowers: what"' in picture["svg"]
