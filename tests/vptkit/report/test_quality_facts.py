"""How good a bundle is, as a page says it."""

from __future__ import annotations

import re
import shutil

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")

from vptkit.report import quality_facts as quality_facts_module
from vptkit.report.quality_facts import noted_scores, quality_facts
from vptkit.report.report_settings import ReportSettings
from vptkit.runtime.session.factory import open_session


def facts(bundle, data, **settings):
    with open_session(bundle, "cpu") as session:
        return quality_facts(session, data, ReportSettings(data=data, **settings))


def test_figures_are_those_of_eval(make_bundle, colour_folders):
    found = facts(make_bundle(), colour_folders)
    assert found["headline"] == "top-1 91.7 % (11 of 12; 95 % interval 64.6 to 98.5 %)"
    assert found["table"]["rows"][0][:3] == ["green", "4", "75.0 %"]
    assert found["pairs"] == [["green as blue", "1 of 4"]]
    assert "<title>green answered as blue: 1 of 4, 25.0 %</title>" in found["confusion"]
    assert re.search("<title>green: 75.0 %, 3 of 4; 95 % interval", found["classes"])
    assert "came true in" in found["calibration"]
    assert [m["name"] for m in found["mistakes"]] == ["green/3.png"]
    assert found["mistakes"][0]["image"].startswith("data:image/jpeg")
    assert "features" in found["no_nearest"]
    assert facts(make_bundle(), colour_folders, mistakes=0)["mistakes"] == []


def test_ood_and_nearest_where_they_are_known(make_bundle, colour_folders, tmp_path):
    data = tmp_path / "data"
    for name in ("train", "test", "ood"):
        shutil.copytree(colour_folders, data / name)
    shutil.rmtree(data / "ood" / "green")
    found = facts(make_bundle(gives=("logits", "features")), data)
    (first, _), (second, of) = found["splits"]
    assert (first, second) == ("test (ID)", "ood (OOD)")
    assert of.startswith("100.0 % (8 of 8;")
    assert found["mistakes"][0]["nearest"]["name"] == "train/green/3.png"
    assert found["compared"] == 12


def test_a_table_of_very_many_classes_is_cut(make_bundle, colour_folders, monkeypatch):
    monkeypatch.setattr(quality_facts_module, "_ROWS", 2)
    table = facts(make_bundle(), colour_folders)["table"]
    assert [row[0] for row in table["rows"]] == ["green", "red"]
    assert table["left_out"] == 1


def test_several_labels_have_their_figures(make_bundle, colour_folders):
    found = facts(make_bundle(thresholds=(0.5, 0.5, 0.5)), colour_folders)
    assert found["several"]
    assert found["table"]["head"][0] == "label"
    assert "F1" in found["headline"]


@pytest.mark.parametrize("strange", ["1", None, 2, -1, float("nan"), [1], {}])
def test_a_strangers_notes_are_left_out(strange):
    assert noted_scores({"test_top1": strange, "val_top1": 0.5}) == [["val", "50.0 %"]]
