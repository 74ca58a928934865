"""Runs of MLPerf's LoadGen itself, on a tiny graph, through the command."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.command_errors import assert_error
from vptkit.errors import MissingExtraError
from vptkit.runtime.loadgen.run_loadgen import require_loadgen

RUN = ("--rounds", 2, "--threads", 1, "--no-memory", "--backend", "cpu")


@pytest.fixture
def logs(tmp_path):
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")
    return tmp_path / "logs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        ("SingleStream", ("--queries", 200)),
        ("MultiStream", ("--queries", 100)),
        ("Server", ("--queries", 200, "--target-qps", 2000, "--latency-bound-ms", 1000)),
        ("Offline", ("--queries", 300, "--batch", 16)),
    ],
)
def test_every_scenario(vptkit, make_bundle, logs, scenario, options):
    command = ("profile", make_bundle(), *RUN, "--loadgen", scenario, "--loadgen-logs", logs)
    code, out, _ = vptkit(*command, *options, "--json")
    assert code == 0
    document = json.loads(out)
    found = document["loadgen"]
    assert len(document["rows"]) == 1
    assert found["scenario"] == scenario
    assert found["summary"]["Result is"] == found["verdict"]
    assert found["ms"]["p50"] > 0
    assert found["submission"] is False
    assert f"Result is : {found['verdict']}" in (logs / "mlperf_log_summary.txt").read_text()
    assert (logs / "mlperf_log_detail.txt").stat().st_size > 0
    assert_error(vptkit(*command), 2, "logs: exists already", "--force")


def test_the_text_has_the_verdict_and_why(vptkit, make_bundle, logs):
    few = ("--loadgen", "SingleStream", "--loadgen-logs", logs, "--queries", 5)
    code, out, _ = vptkit("profile", make_bundle(), *RUN, *few)
    assert code == 0
    assert "LoadGen's verdict: INVALID" in out
    assert "Need to process at least 64 queries" in out
    assert "not a submission" in out


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_accuracy_equals_eval(vptkit, make_bundle, colour_folders, logs, scenario):
    bundle = make_bundle()
    asked = ("--loadgen", scenario, "--loadgen-logs", logs, "--accuracy", "--data", colour_folders)
    session = ("--threads", 1, "--backend", "cpu")
    found = json.loads(vptkit("profile", bundle, *session, *asked, "--json")[1])["loadgen"]
    judged = json.loads(vptkit("eval", bundle, colour_folders, "--json")[1])
    assert found["top1"] == judged["top1"] == pytest.approx(11 / 12)
    assert (found["top5"], found["count"]) == (judged["top5"], judged["count"])


def test_without_the_package(vptkit, make_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(MissingExtraError, match="mlcommons-loadgen"):
        require_loadgen()
    found = vptkit("profile", make_bundle(), "--loadgen", "Offline")
    assert_error(found, 5, 'pip install "vptkit[loadgen]"')
