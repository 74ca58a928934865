"""`vptkit report` on tiny bundles: a page that stands alone, whatever names say."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from tests.support.report_pages import read_page
from vptkit.errors import OutputError
from vptkit.report.make_report import make_report, require_page
from vptkit.report.report_settings import ReportSettings

EVIL = (
    '<script>alert("1")</script><img src=http://x.invalid/a onerror=a()> $\\frac$ \u202e{{ 7*7 }}'
)


def test_a_page_about_one_bundle(make_bundle, tmp_path):
    make_report([make_bundle()], tmp_path / "r.html")
    page = read_page(tmp_path / "r.html")
    assert "3: red, green, blue" in page.text
    assert "SHA-256" in page.text
    assert "default-src 'none'" in (tmp_path / "r.html").read_text()


def test_a_strangers_words_are_only_words(make_bundle, tmp_path):
    labels = (EVIL, "green", "blue")
    backbone_args = {"args": {EVIL: EVIL}}
    path = make_bundle(labels=labels, folds=[EVIL[:200]])
    document = json.loads((path / "manifest.json").read_text())
    document["backbone"] |= backbone_args
    document["name"] = document["adapters"][0]["name"] = EVIL
    (path / "manifest.json").write_text(json.dumps(document))
    make_report([path], tmp_path / "r.html")
    page = read_page(tmp_path / "r.html")
    assert '<script>alert("1")</script>' in page.text
    assert "49" not in page.text.replace("49.", "")
    assert "\\u202e" in page.text


def test_where_a_page_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        require_page(tmp_path / "no" / "r.html", force=False)


@pytest.mark.slow
def test_a_page_that_judges_stays_small(make_bundle, colour_folders, tmp_path):
    pytest.importorskip("onnxruntime")
    bundles = [make_bundle(), make_bundle("other", shift=3.0)]
    make_report(bundles, tmp_path / "r.html", ReportSettings(data=colour_folders, backend="cpu"))
    page = read_page(tmp_path / "r.html")
    assert page.text.count("91.7 %") > 1
    assert "green answered as blue" in page.text
    assert page.tags.count("img") > 0
    assert (tmp_path / "r.html").stat().st_size < 1_000_000
