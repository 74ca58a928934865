from __future__ import annotations

import re

import pytest

from vptkit.runtime.web.page_files import GRAPH_PAGE, SERVER_PAGE, page_file


@pytest.mark.parametrize("page", [SERVER_PAGE, GRAPH_PAGE])
def test_a_page_has_all_that_it_loads_and_loads_nothing_else(page):
    files = {name: page_file(name, page).decode() for name in page}
    loaded = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', files["index.html"])
    for text in files.values():
        loaded += re.findall(r'(?:from|import\() ?"\./([^"]+)"', text)
        loaded += re.findall(r'new URL\("\./([^"]+\.js)"', text)
        assert "//cdn" not in text
    assert set(loaded) | {"index.html"} == set(page)


def test_both_sources_of_answers_have_what_the_page_asks_of_them():
    asked = set(re.findall(r"source\.(\w+)", page_file("page.js", SERVER_PAGE).decode())) - {"js"}
    admins = {"use", "put", "remove"}  # where there is a server
    for page, needed in ((SERVER_PAGE, asked), (GRAPH_PAGE, asked - admins)):
        given = re.findall(
            r"export (?:async )?(?:function|const) (\w+)", page_file("source.js", page).decode()
        )
        assert needed <= set(given)
