"""The template: what it lets through, and what it escapes."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("jinja2")

from vptkit.errors import MissingExtraError
from vptkit.pages.html_page import filled_page, require_jinja


@pytest.fixture
def template(tmp_path):
    """A function that fills a text as a template."""

    def fill(text, **document):
        (tmp_path / "t.html.jinja").write_text(text)
        return filled_page(tmp_path, "t.html.jinja", document, {"twice": lambda text: 2 * text})

    return fill


def test_texts_are_escaped_and_shown(template):
    assert template("<p>{{ a }}</p>", a='<b title="x">&\u202e\n') == (
        "<p>&lt;b title=&#34;x&#34;&gt;&amp;\\u202e\\n</p>"
    )
    assert template("{% for x in a %}{{ x }}{% endfor %}", a=["<", "\x00"]) == "&lt;\\x00"


def test_pictures_go_in_as_they_are(template):
    assert template("{{ a|drawn }}", a="<svg/>\n") == "<svg/>\n"


def test_own_filters_are_escaped(template):
    assert template("{{ a|twice }}", a="<") == "&lt;&lt;"


def test_what_is_missing_is_an_error(template):
    with pytest.raises(Exception, match="'a' is undefined"):
        template("{{ a }}")


def test_the_shared_head_forbids_what_a_page_does_not_need(template):
    text = template('{% include "head.html.jinja" %}', title="t", version="1")
    assert "default-src 'none'; img-src data:" in text
    assert "prefers-color-scheme: dark" in text


def test_without_jinja_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"jinja2.*vptkit\[report\]"):
        require_jinja()
