"""LoadGen's words below our table."""

from __future__ import annotations

from vptkit.cli.texts.loadgen_text import loadgen_text

FOUND = {
    "scenario": "Server",
    "mode": "performance",
    "logs": "logs",
    "verdict": "INVALID",
    "reasons": ["Performance constraints satisfied : NO"],
    "ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "mean": 1.5},
    "images_per_s": 98.54,
    "submission": False,
}


def test_the_verdict_is_loadgens_own():
    lines = loadgen_text(FOUND).splitlines()
    assert lines[0] == "MLPerf LoadGen, Server, performance mode"
    assert "98.5" in lines[2]
    at = lines.index("LoadGen's verdict: INVALID")
    assert lines[at + 1] == "  Performance constraints satisfied : NO"
    assert lines[at + 2].startswith("not a submission")
    long = loadgen_text(FOUND | {"submission": True, "verdict": "VALID", "reasons": []})
    assert "not a submission" not in long


def test_accuracy():
    found = {key: FOUND[key] for key in ("scenario", "logs")} | {"mode": "accuracy"}
    text = loadgen_text(found | {"top1": 0.75, "top5": 1.0, "count": 4})
    assert text == (
        "MLPerf LoadGen, Server, accuracy mode: top-1 0.7500 of 4 images\nits files: logs"
    )
