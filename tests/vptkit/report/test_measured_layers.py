"""Time by layer in a page: measured now, or of a file."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from tests.runtime.layers.test_layer_time import layer, profile
from tests.runtime.layers.test_layers_file import NOT_RUN, RAN
from vptkit.errors import VptkitError
from vptkit.progress import SILENT
from vptkit.report.measured_layers import Layers, layer_facts, measured_layers
from vptkit.report.report_settings import ReportSettings


def test_pictures_tables_and_changes():
    other = profile(layer("q", "head", 2), name="b")
    facts = layer_facts(Layers("here", [RAN, other]))
    first, second = facts["bundles"]
    assert first["flame"].startswith("<svg")
    assert first["slim_flame"] != first["flame"]
    assert "<title>blocks.3.attention: " in first["bars"]
    assert [label for label, *_ in first["tables"]] == ["Time by block, ms", "The slowest layers"]
    assert first["words"].startswith("cpu, batch 1, adapter birds, cars: 3 runs")
    assert second["name"] == "b"
    assert second["operators"][1] == [["head", "MatMul", "1", "2.000", "100.0 %", "-"]]
    (change,) = facts["changes"]
    assert change["title"] == "a → b"
    assert [row[0] for row in change["rows"]] == ["patch_embed", "blocks.3.attention"]
    assert change["told"][-1].startswith("all layers: ")


def test_without_times_the_types_are_told():
    (shown,) = layer_facts(Layers("here", [NOT_RUN]))["bundles"]
    assert (shown["bars"], shown["flame"]) == (None, None)
    assert shown["tables"] == [
        ("Types that the layers compute in", ["part", "layers", "types"], [["head", "1", "float"]])
    ]


def test_measured_now(make_bundle):
    pytest.importorskip("onnxruntime")
    settings = ReportSettings(layers=0.05, backend="cpu", threads=1)
    found = measured_layers([make_bundle(), make_bundle()], settings, SILENT)
    assert len({one.name for one in found.profiles}) == 2
    assert all(one.runs for one in found.profiles)
    (four,) = measured_layers([make_bundle(batch=4)], settings, SILENT).profiles
    assert four.batch == 4
    with pytest.raises(VptkitError, match="launches"):
        measured_layers([make_bundle()], ReportSettings(layers=0.05, backend="cuda"), SILENT)
