"""The template: what it lets through, and what it escapes."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("jinja2")

from vptkit.errors import MissingExtraError
from vptkit.report import page
from vptkit.report.page import filled, require_jinja


@pytest.fixture
def template(tmp_path, monkeypatch):
    """A function that fills a text as a template."""
    monkeypatch.setattr(page, "_TEMPLATES", tmp_path)

    def fill(text, **document):
        (tmp_path / "t.html.jinja").write_text(text)
        return filled("t.html.jinja", document)

    return fill


def test_texts_are_escaped_and_shown(template):
    assert template("<p>{{ a }}</p>", a='<b title="x">&\u202e\n') == (
        "<p>&lt;b title=&#34;x&#34;&gt;&amp;\\u202e\\n</p>"
    )
    assert template("{% for x in a %}{{ x }}{% endfor %}", a=["<", "\x00"]) == "&lt;\\x00"


def test_pictures_go_in_as_they_are(template):
    assert template("{{ a|drawn }}", a="<svg/>\n") == "<svg/>\n"


def test_what_is_missing_is_an_error(template):
    with pytest.raises(Exception, match="'a' is undefined"):
        template("{{ a }}")


def test_without_jinja_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"jinja2.*vptkit\[report\]"):
        require_jinja()
