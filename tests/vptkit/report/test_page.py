"""The report's templates have their filters."""

from __future__ import annotations

import pytest

pytest.importorskip("jinja2")

from vptkit.report import page
from vptkit.report.page import filled


def test_numbers_are_written_as_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_TEMPLATES", tmp_path)
    (tmp_path / "t.html.jinja").write_text("{{ a|percent }} {{ b|interval }}")
    assert filled("t.html.jinja", {"a": 0.5, "b": [0.25, 0.75]}) == "50.0 % 25.0 to 75.0 %"
