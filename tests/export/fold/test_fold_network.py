"""The whole network, folded: what is not in a block, and which prompts stand before which block."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.strategies import Setup, build
from tests.support.tolerances import FOLD, largest_difference
from vptkit.export.fold.equations import normalized
from vptkit.export.fold.fold_network import fold

EPS = 1e-6


def apply(x, linear):
    return x @ linear.w + linear.b


@pytest.fixture(scope="module")
def case():
    return build(Setup())


@pytest.fixture(scope="module")
def folded(case):
    return fold(case.spec, case.weights, case.adapter)


def tuned(case):
    return {**case.weights, **case.adapter.layer_norms()}


def test_head_and_final_norm(case, folded):
    x = normalized(np.random.default_rng(0).standard_normal((4, case.spec.width)), EPS)
    w, t = tuned(case), case.adapter.tensors
    expected = (x * w["norm.weight"] + w["norm.bias"]) @ t["head.weight"].T + t["head.bias"]
    assert largest_difference(apply(x, folded.head), expected) < FOLD


def test_tokens_before_the_patches_are_rows_behind_norm_pre(case, folded):
    """Against timm's own embedding of an image: they do not depend on it."""
    import torch

    from vptkit.tune.backbone.reference import apply_layer_norms, embed

    model = build(Setup()).model
    apply_layer_norms(model, case.adapter)
    with torch.no_grad():
        z = embed(model, torch.from_numpy(case.pixels)).numpy()
    k = case.spec.prefix
    assert k == 3
    for rows in z:
        assert largest_difference(folded.prefix_rows, rows[:k]) < FOLD


@pytest.mark.parametrize(("insert", "sites"), [("deep", [0, 1, 2]), ("shallow", [0]), ("none", [])])
def test_prompts_stand_where_the_adapter_says(insert, sites):
    case = build(Setup(insert=insert))
    found = fold(case.spec, case.weights, case.adapter)
    assert [i for i, block in enumerate(found.blocks) if len(block.prompt)] == sites


@pytest.mark.parametrize("rank", [None, 1, 2])
def test_prompt_factors_are_multiplied(rank):
    case = build(Setup(rank=rank))
    found = fold(case.spec, case.weights, case.adapter)
    for i, block in enumerate(found.blocks):
        assert np.array_equal(block.prompt, case.adapter.prompts(i))
        if rank is not None:
            assert np.linalg.matrix_rank(block.prompt) == rank
    broken = dict(case.adapter.tensors)
    if rank == 2:
        broken["prompt.0.a"] = broken["prompt.0.a"][:, ::-1]
        other = replace(case.adapter, tensors=broken).prompts(0)
        assert largest_difference(other, case.adapter.prompts(0)) > 0.01


def test_the_constants_around_the_blocks_are_double(folded):
    for value in (*folded.patch, *folded.patch_float, folded.prefix_rows, *folded.head):
        assert value.dtype == np.float64


def test_float32_weights_fold_in_double(case):
    """Cast once, at the end: folding float32 numbers equals folding their float64 copies."""
    single = {k: v.astype(np.float32) for k, v in case.weights.items()}
    double = {k: v.astype(np.float64) for k, v in single.items()}
    found, expected = (fold(case.spec, w, case.adapter) for w in (single, double))
    assert np.array_equal(found.head.w, expected.head.w)
    for one, other in zip(found.blocks, expected.blocks, strict=True):
        assert np.array_equal(one.mlps[0].fc2.b, other.mlps[0].fc2.b)
