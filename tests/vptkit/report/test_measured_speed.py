"""Profiles in a page: measured now, or given as files."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("matplotlib")

from tests.runtime.layers.test_layer_time import layer
from tests.runtime.layers.test_layer_time import profile as layers_of
from tests.runtime.profile.test_profile_file import DOCUMENT, MACHINE, ROW
from vptkit.progress import SILENT
from vptkit.report.measured_speed import (
    Profile,
    given_profiles,
    measured_profile,
    rows_of,
    speed_facts,
)
from vptkit.report.report_settings import ReportSettings
from vptkit.runtime.layers.layer_comparison import layers_document


def test_a_file_is_shown(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(DOCUMENT))
    (profile,), layers = given_profiles([tmp_path / "p.json"])
    assert layers == []
    facts = speed_facts(profile)
    assert facts["title"] == "p.json"
    assert facts["rows"][0][:2] == ["a", "1"]
    assert "6 threads" in facts["machine"]
    assert facts["medians"].startswith("<svg")
    assert facts["batches"] is None


def test_energy_is_shown_where_it_was_measured(tmp_path):
    energy = {"joules_per_image": 0.321, "watts": 12.0, "idle_watts": 5.0, "source": "INA3221"}
    (tmp_path / "p.json").write_text(json.dumps(DOCUMENT | {"rows": [ROW | {"energy": energy}]}))
    (profile,), _ = given_profiles([tmp_path / "p.json"])
    facts = speed_facts(profile)
    assert facts["rows"][0][facts["head"].index("J/image")] == "0.321"
    assert "energy less idle (INA3221)" in facts["medians"]
    assert "joules an image" in facts["medians_words"]
    none = ROW | {"energy": {"unavailable": "no meter here"}}
    shown = speed_facts(
        Profile("p", DOCUMENT | {"rows": [none], "machine": MACHINE | {"cpu": "x"}})
    )
    assert any("no meter here" in note for note in shown["notes"])


def test_a_file_of_layers_is_told_from_others(tmp_path):
    document = layers_document([layers_of(layer("q", "head", 1, 1, 1))])
    (tmp_path / "l.json").write_text(json.dumps(document))
    (tmp_path / "p.json").write_text(json.dumps(DOCUMENT))
    profiles, (layers,) = given_profiles([tmp_path / "l.json", tmp_path / "p.json"])
    assert [profile.title for profile in profiles] == ["p.json"]
    assert (layers.title, layers.profiles[0].name) == ("l.json", "a")


def test_rows_are_found_by_their_graph():
    rows = [ROW, ROW | {"kind": "adapter", "graph_sha256": "ab"}]
    document = DOCUMENT | {"rows": rows, "machine": MACHINE | {"cpu": None}}
    (found,) = rows_of([Profile("p", document)], "ab")
    assert found is rows[1]
    assert rows_of([Profile("p", document)], "cd") == []


@pytest.mark.slow
def test_measured_now_without_what_baselines_are_made_of(make_bundle):
    """A bundle without its adapter: the backbone cannot be exported bare, the bundle is measured."""
    pytest.importorskip("onnxruntime")
    settings = ReportSettings(measure=0.1, batches=(1, 2), backend="cpu", threads=1)
    profile = measured_profile([make_bundle()], settings, SILENT)
    rows = profile.document["rows"]
    assert [row["batch"] for row in rows] == [1, 2]
    facts = speed_facts(profile)
    assert facts["batches"].startswith("<svg")
    assert facts["notes"][0].startswith("measured without the bare backbone: ")
    percents = dict(rows[0]["distribution"])
    assert min(percents) == 0
    assert max(percents) == 100
    assert percents[50] == pytest.approx(rows[0]["ms"]["p50"])
