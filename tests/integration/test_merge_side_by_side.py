"""Merged tokens in blocks with several attentions, or with attention and MLP side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.export.analysis.test_macs import counted
from tests.support.merging_models import merging_model, tiny_model
from tests.support.tolerances import CLEARLY, PARITY_FP32, largest_difference
from vptkit.backbones.merge_schedule import TokenMerging
from vptkit.export.analysis.macs import folded_macs
from vptkit.tune.backbone import reference
from vptkit.tune.backbone.token_merging import (
    MergedTokens,
    attention_by_size,
    match_tokens,
    merge_rows,
)

PARALLEL, BRANCHES = "vit_base_patch16_xp_224", "vit_base_patch16_18x2_224"
ONCE = TokenMerging(schedule=(4, 0, 0, 0))


def block_and_tokens(name):
    model = tiny_model(name)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, model.num_prefix_tokens + 16, 32, generator=generator, dtype=torch.float64)
    return model, z, MergedTokens(z.new_ones(z.shape[:2]))


def test_side_by_side_tokens_merge_behind_the_sum():
    model, z, tokens = block_and_tokens(PARALLEL)
    with attention_by_size(model.blocks[0], None) as keys:
        whole = model.blocks[0](z)
    matching = match_tokens(keys[0], model.num_prefix_tokens, 4)
    expected, size = merge_rows(whole, tokens.size, matching)
    found, after = reference.merging_block(model, 0, z, tokens, ONCE)
    torch.testing.assert_close(found, expected)
    assert torch.equal(after.size, size)


def test_of_several_attentions_all_keys_count():
    model, z, tokens = block_and_tokens(BRANCHES)
    block, k = model.blocks[0], model.num_prefix_tokens
    with attention_by_size(block, None) as keys:
        block(z)
    assert len(keys) == 2
    between = z + sum(branch(z) for branch in block.attns)
    both = match_tokens(torch.cat(keys, dim=1), k, 4)
    merged, _ = merge_rows(between, tokens.size, both)
    found, _ = reference.merging_block(model, 0, z, tokens, ONCE)
    torch.testing.assert_close(found, merged + sum(branch(merged) for branch in block.ffns))
    assert not torch.equal(
        both.merged, match_tokens(keys[0], k, 4).merged
    )  # one alone says otherwise


@pytest.mark.parametrize("name", [PARALLEL, BRANCHES])
@pytest.mark.parametrize(
    ("insert", "pool"),
    [("deep", "token"), ("deep", "avg_prompts"), ("shallow", "avg"), ("none", "token+avg")],
)
def test_graphs_say_what_the_reference_says(name, insert, pool):
    case = merging_model(name, insert=insert, pool=pool)
    form = "absorbed" if insert == "deep" else "full"
    graph = case.graph(last_block=form, batch=2)
    found = case.run(graph)
    assert largest_difference(found, case.reference()) <= PARITY_FP32
    plain = replace(case.adapter, merging=None)
    assert largest_difference(found, case.reference(plain)) > CLEARLY * PARITY_FP32
    one = case.graph(last_block=form, batch=1)
    expected = folded_macs(
        case.spec, case.adapter.prompt_length, insert, pool, form, case.adapter.merging
    )
    assert counted(one)["blocks"] == expected


@pytest.mark.parametrize("name", [PARALLEL, BRANCHES])
def test_equal_images(name):
    case = merging_model(name, insert="none", attention="plain")
    case = replace(case, images=np.full_like(case.images, 128))
    assert largest_difference(case.run(case.graph()), case.reference()) <= PARITY_FP32
