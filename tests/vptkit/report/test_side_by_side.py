"""Bundles side by side: who is on the front, and what is drawn."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from vptkit.report.measured_speed import Profile
from vptkit.report.side_by_side import front, side_by_side


def one(name, digest, top1=None, size=1000, noted=()):
    facts = {
        "name": name,
        "precision": "fp32",
        "bytes": size,
        "work": [{"text": "1 G"}],
        "files": [{"name": "model.onnx", "sha256": digest}],
    }
    quality = None if top1 is None else {"top1": [top1, top1 - 0.1, top1 + 0.1]}
    return {"facts": facts, "quality": quality, "noted": list(noted)}


def row(digest, ms, kind="adapter", name="x", batch=1):
    return {
        "name": name,
        "kind": kind,
        "batch": batch,
        "graph_sha256": digest,
        "ms": {"p50": ms},
        "ratio": None
        if kind == "baseline"
        else {"to": "backbone (no adapter)", "low": 0.9, "high": 1.1},
    }


MACHINE = {"cpu": "A78", "session_threads": 6, "load": 0.1, "versions": {}}


def document(*rows):
    return {"rows": list(rows), "machine": MACHINE}


def test_the_front():
    assert front([(0.9, 2.0, 10), (0.8, 1.0, 10), (0.8, 2.0, 10), (0.9, None, 1)]) == [
        True,
        True,
        False,
        None,
    ]
    assert front([(0.9, 1.0, 1), (0.9, 1.0, 1)]) == [True, True], "equals do not beat each other"


def test_a_table_and_a_picture():
    bundles = [one("<a>", "1", 0.9), one("b", "2", 0.8, size=10)]
    profile = document(row("1", 2.0), row("2", 1.0), row("9", 3.0, "baseline", "backbone"))
    found = side_by_side(bundles, [Profile("here", profile)])
    assert [r[0] for r in found["rows"]] == ["<a>", "b"]
    assert found["rows"][0][2:4] == ["90.0 %", "2.00 ms"]
    assert [r[-1] for r in found["rows"]] == ["yes", "yes"]
    (picture,) = found["pictures"]
    assert "&lt;a&gt;: 90.0 %, 2 ms" in picture["svg"]


def test_without_a_baseline():
    bundles = [one("a", "1", 0.9), one("b", "2", 0.8)]
    found = side_by_side(bundles, [Profile("here", document(row("1", 2.0), row("2", 1.0)))])
    assert len(found["pictures"]) == 1


def test_what_is_not_known():
    bundles = [one("a", "1", noted=[["test (ID)", "70.0 %"]]), one("b", "2")]
    found = side_by_side(bundles, [Profile("here", document(row("1", 2.0, batch=4)))])
    assert [r[2:4] for r in found["rows"]] == [["70.0 % (noted)", "2.00 ms"], ["-", "-"]]
    assert [r[-1] for r in found["rows"]] == ["not known", "not known"]
    assert found["pictures"] == []


def test_one_bundle_has_nobody_beside_it():
    assert side_by_side([one("a", "1")], []) is None
