"""A page is written whole or not at all."""

from __future__ import annotations

from vptkit.pages.page_file import write_page


def test_it_replaces_what_is_there_and_is_utf8(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("old")
    write_page("<p>日本", path)
    assert path.read_bytes() == "<p>日本".encode()
    assert [one.name for one in tmp_path.iterdir()] == ["a.html"]
