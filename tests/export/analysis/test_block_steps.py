"""One block before and after: what is gone, and what became a constant."""

from __future__ import annotations

import dataclasses

import pytest

from vptkit.export.analysis.block_steps import block_steps
from vptkit.formats.bundle import open_bundle

FOLDS = ["deep prompts → constant key/value prefixes", "LayerNorm affine → next linear"]
ENTRY = {"name": "a", "labels": ["x", "y", "z"], "insert": "deep", "prompt_length": 3}


def steps(path):
    return block_steps(open_bundle(path))


def test_prompts_become_constants(make_bundle, tiny_spec):
    found = steps(make_bundle(folds=FOLDS, adapters=[ENTRY]))
    t = tiny_spec.tokens
    before = {(s["name"], s["state"]): s["detail"] for s in found["before"]}
    after = {(s["name"], s["state"]): s["detail"] for s in found["after"]}
    assert before["attention", "kept"].startswith(f"{t + 3} queries × {t + 3} keys")
    assert after["attention", "kept"].startswith(f"{t} queries × {t} + 3 constant keys")
    assert ("prompts", "gone") in before
    assert after["constants", "new"].startswith("keys and values: 3 rows")
    assert {s["state"] for s in found["before"]} == {"kept", "gone"}


def test_no_prompts_no_constants(make_bundle):
    found = steps(make_bundle(folds=FOLDS[1:]))
    assert "constants" not in [s["name"] for s in found["after"]]
    assert "prompts" not in [s["name"] for s in found["before"]]


@pytest.mark.parametrize("what", [{"fold": "none"}, {"folds": []}])
def test_graphs_that_are_not_folded_have_none(make_bundle, what):
    assert steps(make_bundle(**{"folds": FOLDS, **what})) is None


def test_blocks_of_another_order_have_none(make_bundle, tiny_spec):
    spec = dataclasses.replace(tiny_spec, block="post").to_json()
    backbone = {"name": "v", "args": {}, "spec": spec, "sha256": None}
    assert steps(make_bundle(folds=FOLDS, backbone=backbone)) is None


def test_layer_scale_is_gone(make_bundle, tiny_spec):
    spec = dataclasses.replace(tiny_spec, layer_scale=True).to_json()
    backbone = {"name": "v", "args": {}, "spec": spec, "sha256": None}
    folds = [*FOLDS, "LayerScale → projection and MLP"]
    found = steps(make_bundle(folds=folds, backbone=backbone))
    assert [s["name"] for s in found["before"]].count("LayerScale") == 2
    assert any("λ₁ in its weights" in s["detail"] for s in found["after"])


@pytest.mark.parametrize("tuned", [True, False])
def test_merged_tokens(make_bundle, tiny_spec, tuned):
    schedule = [1] * (tiny_spec.depth - 1) + [0]
    merging = {
        "schedule": schedule,
        "attention": "plain",
        "asked": "1",
        "tuned": tuned,
        "gate": None,
    }
    found = steps(make_bundle(folds=FOLDS, adapters=[ENTRY], merging=merging))
    middle = (tiny_spec.depth - 1) // 2
    attending = tiny_spec.tokens - middle
    after = {s["name"]: s for s in found["after"]}
    assert after["attention"]["detail"].startswith(
        f"{attending} queries × {attending} + 3 constant"
    )
    if not schedule[middle]:
        assert "merge" not in after
        return
    assert after["merge"]["detail"].startswith("1 tokens into those most like them")
    assert after["merge"]["state"] == ("kept" if tuned else "new")
    assert ("merge" in [s["name"] for s in found["before"]]) == tuned
