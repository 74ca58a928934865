"""Profiles in a page: measured now, or given as files."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("matplotlib")

from tests.runtime.profile.test_profile_file import DOCUMENT, MACHINE, ROW
from vptkit.errors import VptkitError
from vptkit.report.measured_speed import (
    given_profiles,
    measured_profile,
    require_names,
    rows_of,
    speed_facts,
)
from vptkit.report.report_settings import ReportSettings


def test_a_file_is_shown(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(DOCUMENT))
    ((title, document),) = given_profiles([tmp_path / "p.json"])
    facts = speed_facts(title, document)
    assert title == "p.json"
    assert facts["rows"][0][:2] == ["a", "1"]
    assert "6 threads" in facts["machine"]
    assert facts["medians"].startswith("<svg")
    assert facts["batches"] is None


def test_rows_are_found_by_their_graph():
    rows = [ROW, ROW | {"kind": "adapter", "graph_sha256": "ab"}]
    document = DOCUMENT | {"rows": rows, "machine": MACHINE | {"cpu": None}}
    (found,) = rows_of([("p", document)], "ab")
    assert found[1] is rows[1]
    assert rows_of([("p", document)], "cd") == []


def test_two_of_one_name_are_refused():
    require_names(["a", "b"])
    with pytest.raises(VptkitError, match="'a'"):
        require_names(["a", "b", "a"])


@pytest.mark.slow
def test_measured_now(make_bundle, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("vptkit.report.measured_speed.find_spec", lambda name: None)
    from vptkit.progress import SILENT

    settings = ReportSettings(measure=0.1, batches=(1, 2), backend="cpu", threads=1)
    title, document = measured_profile([make_bundle()], settings, SILENT)
    assert [row["batch"] for row in document["rows"]] == [1, 2]
    facts = speed_facts(title, document)
    assert facts["batches"].startswith("<svg")
    percents = [percent for percent, _ in document["rows"][0]["distribution"]]
    assert percents[0] == 0
    assert percents[-1] == 100
    assert document["rows"][0]["distribution"][percents.index(50)][1] == pytest.approx(
        document["rows"][0]["ms"]["p50"]
    )
