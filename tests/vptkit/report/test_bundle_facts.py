"""What a page says of a bundle, without running it."""

from __future__ import annotations

import pytest

from vptkit.errors import BundleError, VptkitError
from vptkit.report.bundle_facts import bundle_facts


def test_facts_of_a_bundle(make_bundle):
    path = make_bundle(macs={"backbone": 100, "unfolded": 200, "graph": 50})
    facts = bundle_facts(path, "mine")
    assert facts["name"] == "mine"
    assert facts["lines"]["classes"] == "3: red, green, blue"
    assert facts["lines"]["backbone"].startswith("paper_vit, images 24 x 16")
    assert [(bar["name"], bar["text"], bar["share"]) for bar in facts["work"]] == [
        ("bare backbone", "100", 0.5),
        ("adapter, not folded", "200", 1.0),
        ("this graph", "50", 0.25),
    ]
    assert {file["name"] for file in facts["files"]} == {"model.onnx", "golden.safetensors"}
    assert all(len(file["sha256"]) == 64 for file in facts["files"])
    assert facts["adapters"] == []


def test_a_bundle_that_was_changed(make_bundle):
    path = make_bundle()
    with (path / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        bundle_facts(path, "")


def test_no_bundle(tmp_path):
    with pytest.raises(VptkitError, match=r"nothing\.vptk"):
        bundle_facts(tmp_path / "nothing.vptk", "")
