"""`vptkit.report`: the command's page, from Python."""

from __future__ import annotations

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

import vptkit
from tests.support.report_pages import read_page
from vptkit.api import reporting
from vptkit.errors import OutputError, VptkitError


def test_a_page_of_one_and_of_several(make_bundle, tmp_path):
    one, two = make_bundle(), make_bundle("other")
    document = vptkit.report(str(one), str(tmp_path / "r.html"), boards="l4")
    assert [b["facts"]["name"] for b in document["bundles"]] == ["tiny"]
    assert [row[0] for row in document["boards"]["rows"]] in ([], ["l4"])
    with pytest.raises(OutputError, match="exists already"):
        vptkit.report(one, tmp_path / "r.html")
    reporting.report([one, two], tmp_path / "r.html", force=True)
    assert "Side by side" in read_page(tmp_path / "r.html").text


def test_settings_are_changed(make_bundle, colour_folders, tmp_path):
    pytest.importorskip("onnxruntime")
    settings = vptkit.ReportSettings(backend="cpu", mistakes=0)
    document = vptkit.report(make_bundle(), tmp_path / "r.html", settings, data=str(colour_folders))
    assert document["bundles"][0]["quality"]["headline"].startswith("top-1 91.7 %")
    assert document["bundles"][0]["quality"]["mistakes"] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seconds": 1.0}, "no setting is called 'seconds'"),
        ({"measure": -1.0}, "measure is -1.0"),
        ({"batches": (1, 0), "measure": 1.0}, "batches is 0"),
        ({"energy": 1.0}, "energy goes with measure"),
    ],
)
def test_settings_that_are_none(make_bundle, tmp_path, changes, told):
    with pytest.raises(VptkitError, match=told):
        vptkit.report(make_bundle(), tmp_path / "r.html", **changes)
    assert not (tmp_path / "r.html").exists()
