"""Prefix keys and values against their equation: LN of the prompts, linear, norm of each head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.tolerances import CLEARLY, FOLD, largest_difference
from vptkit.export.fold.block_tensors import Linear, Norm
from vptkit.export.fold.equations import fold_layer_norm, normalized
from vptkit.export.fold.prefix_keys_values import prefix_keys_values, prompt_queries, prompts_seen

M, D = 3, 8  # tiny_spec: 2 heads of 4 channels


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def prompt(rng):
    return 10 * rng.standard_normal((M, D)) + 2


def linear(rng, inner, outer):
    return Linear(rng.standard_normal((inner, outer)), rng.standard_normal(outer))


def norm(rng, width):
    return Norm(rng.standard_normal(width), rng.standard_normal(width))


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_block_sees_its_prompts_behind_the_norm(tiny_spec, rng, prompt, kind):
    spec, affine = replace(tiny_spec, norm=kind), norm(rng, D)
    mean = prompt.mean(axis=-1, keepdims=True) if kind == "layer" else 0.0
    rows = (prompt - mean) / np.sqrt(((prompt - mean) ** 2).mean(axis=-1, keepdims=True) + 1e-6)
    assert largest_difference(prompts_seen(spec, prompt), rows) < FOLD
    expected = rows * affine.gamma + affine.beta
    assert largest_difference(prompts_seen(spec, prompt, affine), expected) < FOLD
    other = replace(spec, norm={"layer": "rms", "rms": "layer"}[kind])
    assert largest_difference(prompts_seen(other, prompt), rows) > CLEARLY * FOLD


def test_a_post_norm_block_sees_the_prompts_themselves(tiny_spec, prompt):
    assert prompts_seen(replace(tiny_spec, block="post"), prompt) is prompt


def test_the_affine_may_stand_in_the_linears(tiny_spec, rng, prompt):
    """(P̂ γ + β) W + b = P̂ (γ W) + (β W + b)."""
    affine, k, v = norm(rng, D), linear(rng, D, D), linear(rng, D, D)
    expected = prefix_keys_values(tiny_spec, prompts_seen(tiny_spec, prompt, affine), k, v)
    folded = fold_layer_norm(*affine, k), fold_layer_norm(*affine, v)
    found = prefix_keys_values(tiny_spec, prompts_seen(tiny_spec, prompt), *folded)
    for one, other in zip(found, expected, strict=True):
        assert largest_difference(one, other) < FOLD


@pytest.mark.parametrize("kv", [4, 8])
def test_keys_are_normalised_for_each_head_and_values_are_not(tiny_spec, rng, prompt, kv):
    """With fewer key than query heads too (kv = 4: one of two)."""
    k, v, k_norm = linear(rng, D, kv), linear(rng, D, kv), norm(rng, 4)
    keys, values = prefix_keys_values(tiny_spec, prompt, k, v, k_norm)
    heads = (prompt @ k.w + k.b).reshape(M, kv // 4, 4)
    expected = normalized(heads, 1e-6) * k_norm.gamma + k_norm.beta
    assert largest_difference(keys, expected.reshape(M, kv)) < FOLD
    assert largest_difference(values, prompt @ v.w + v.b) < FOLD
    plain, _ = prefix_keys_values(tiny_spec, prompt, k, v)
    assert largest_difference(plain, keys) > CLEARLY * FOLD


@pytest.mark.parametrize("q_norm", [True, False])
def test_queries_of_prompts_keep_their_bias(tiny_spec, rng, prompt, q_norm):
    q, by_head = linear(rng, D, D), norm(rng, 4)
    expected = prompt @ q.w + q.b
    if q_norm:
        heads = normalized(expected.reshape(M, 2, 4), 1e-6) * by_head.gamma + by_head.beta
        expected = heads.reshape(M, D)
    found = prompt_queries(tiny_spec, prompt, q, by_head if q_norm else None)
    assert largest_difference(found, expected) < FOLD


def test_no_prompts_are_no_keys(tiny_spec, rng):
    rows = prompts_seen(tiny_spec, np.zeros((0, D)))
    k, v = linear(rng, D, D), linear(rng, D, D)
    found = prefix_keys_values(tiny_spec, rows, k, v, norm(rng, 4))
    assert [x.shape for x in found] == [(0, D), (0, D)]
