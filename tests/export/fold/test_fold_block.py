"""A folded block against timm's arithmetic: attention, MLP, and what the prompts became."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.strategies import Setup, build
from tests.support.tolerances import CLEARLY, FOLD, largest_difference
from vptkit.export.fold.block_tensors import Tensors
from vptkit.export.fold.equations import normalized
from vptkit.export.fold.fold_block import fold_block


def apply(x, linear):
    return x @ linear.w + linear.b


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def case():
    return build(Setup())


def tuned(case):
    return {**case.weights, **case.adapter.layer_norms()}


@pytest.fixture(scope="module")
def blocks(case):
    tensors = Tensors(tuned(case))
    return [
        fold_block(case.spec, tensors, case.adapter.prompts(i), i) for i in range(case.spec.depth)
    ]


def test_attention_of_a_folded_block_is_that_of_timms(case, blocks):
    """Scores up to what all keys share, and the mixed values behind the projection."""
    d, h, e = case.spec.width, case.spec.heads, case.spec.head_width
    x = np.random.default_rng(0).standard_normal((7, d))
    w = tuned(case)
    for i, block in enumerate(blocks):
        name = f"blocks.{i}"
        prompt = case.adapter.prompts(i)
        all_rows = np.concatenate([prompt, x])
        hat = normalized(all_rows, case.spec.norm_eps)
        plain = hat * w[f"{name}.norm1.weight"] + w[f"{name}.norm1.bias"]
        qkv = plain @ w[f"{name}.attn.qkv.weight"].T + w[f"{name}.attn.qkv.bias"]
        q, k, v = qkv.reshape(-1, 3, h, e).transpose(1, 2, 0, 3)
        mixed = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(e)) @ v
        mixed = mixed.transpose(1, 0, 2).reshape(-1, d)[len(prompt) :]
        out = mixed @ w[f"{name}.attn.proj.weight"].T + w[f"{name}.attn.proj.bias"]
        expected = out * w[f"{name}.ls1.gamma"]

        image = normalized(x, case.spec.norm_eps)
        (a,) = block.attentions
        k_p, v_p, _ = a.prefix

        def by_head(rows):
            return rows.reshape(len(rows), h, e).transpose(1, 0, 2)

        scores = by_head(apply(image, a.q)) @ by_head(np.concatenate([k_p, image @ a.k])).transpose(
            0, 2, 1
        )
        values = by_head(np.concatenate([v_p, image @ a.v]))
        mixed = (softmax(scores) @ values).transpose(1, 0, 2).reshape(-1, d)
        assert largest_difference(apply(mixed, a.proj), expected) < 100 * FOLD


def test_the_mlp_of_a_folded_block_is_that_of_timms(case, blocks):
    x = np.random.default_rng(0).standard_normal((7, case.spec.width))
    hat, w = normalized(x, case.spec.norm_eps), tuned(case)
    for i, block in enumerate(blocks):
        name = f"blocks.{i}"
        plain = hat * w[f"{name}.norm2.weight"] + w[f"{name}.norm2.bias"]
        hidden = plain @ w[f"{name}.mlp.fc1.weight"].T + w[f"{name}.mlp.fc1.bias"]
        (mlp,) = block.mlps
        assert largest_difference(apply(hat, mlp.fc1), hidden) < FOLD
        out = hidden @ w[f"{name}.mlp.fc2.weight"].T + w[f"{name}.mlp.fc2.bias"]
        assert largest_difference(apply(hidden, mlp.fc2), out * w[f"{name}.ls2.gamma"]) < FOLD


def test_prefix_and_queries_are_those_of_the_normalised_prompts(case, blocks):
    for i, block in enumerate(blocks):
        rows = normalized(case.adapter.prompts(i), case.spec.norm_eps)
        (a,) = block.attentions
        assert np.array_equal(block.prompt, case.adapter.prompts(i))
        assert np.array_equal(block.prompt_seen, rows)
        assert largest_difference(a.prefix.keys, rows @ a.k) < FOLD
        assert largest_difference(a.prefix.values, rows @ a.v) < FOLD
        assert largest_difference(a.prefix.queries, apply(rows, a.q)) < FOLD


def test_a_block_without_prompts_has_an_empty_prefix(case):
    block = fold_block(case.spec, Tensors(case.weights), np.zeros((0, case.spec.width)), 1)
    (a,) = block.attentions
    assert [x.shape for x in a.prefix] == [(0, case.spec.width)] * 3
    assert block.prompt.shape == block.prompt_seen.shape == (0, case.spec.width)


def test_prompts_change_nothing_but_the_prefix(case, blocks):
    """So that an adapter's other constants are the backbone's own."""
    empty = fold_block(case.spec, Tensors(tuned(case)), np.zeros((0, case.spec.width)), 0)
    (a,), (b,) = blocks[0].attentions, empty.attentions
    for name in ("k", "v"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
    for x, y in zip(
        (*a.q, *a.proj, *blocks[0].mlps[0].fc1), (*b.q, *b.proj, *empty.mlps[0].fc1), strict=True
    ):
        assert np.array_equal(x, y)


def with_qk_norm(case):
    rng, e = np.random.default_rng(3), case.spec.head_width
    norms = {
        f"blocks.0.attn.{letter}_norm.{kind}": 1 + 0.3 * rng.standard_normal(e)
        for letter in "qk"
        for kind in ("weight", "bias")
    }
    return replace(case.spec, qk_norm=True), {**tuned(case), **norms}


def test_behind_a_qk_norm_keys_keep_their_bias_and_are_normalised_by_head(case):
    """Against the plain arithmetic LN → linear → norm of each head."""
    spec, w = with_qk_norm(case)
    prompt, d, e = case.adapter.prompts(0), case.spec.width, case.spec.head_width
    plain = normalized(prompt, spec.norm_eps) * w["blocks.0.norm1.weight"]
    plain = plain + w["blocks.0.norm1.bias"]
    qkv = plain @ w["blocks.0.attn.qkv.weight"].T + w["blocks.0.attn.qkv.bias"]
    (a,) = fold_block(spec, Tensors(w), prompt, 0).attentions
    assert a.k_bias is not None

    def by_head(rows, letter, scale=1.0):
        heads = normalized(rows.reshape(len(rows), -1, e), spec.norm_eps)
        name = f"blocks.0.attn.{letter}_norm"
        heads = heads * w[f"{name}.weight"] + w[f"{name}.bias"]
        return (scale * heads).reshape(rows.shape)

    keys = by_head(qkv[:, d : 2 * d], "k")
    assert largest_difference(a.prefix.keys, keys) < 100 * FOLD
    queries = by_head(qkv[:, :d], "q", e**-0.5)
    assert largest_difference(a.prefix.queries, queries) < 100 * FOLD
    unnormalised = qkv[:, d : 2 * d]
    assert largest_difference(unnormalised, keys) > CLEARLY * FOLD


def test_a_post_norm_block_sees_the_prompts_themselves(case):
    spec, prompt = replace(case.spec, block="post"), case.adapter.prompts(0)
    block = fold_block(spec, Tensors(tuned(case)), prompt, 0)
    (a,) = block.attentions
    assert not block.normed
    assert np.array_equal(block.prompt_seen, prompt)
    assert largest_difference(a.prefix.keys, prompt @ a.k) < FOLD
    assert np.array_equal(a.post.gamma, tuned(case)["blocks.0.norm1.weight"])


def test_all_constants_are_double(blocks):
    for block in blocks:
        (a,), (mlp,) = block.attentions, block.mlps
        arrays = (block.prompt, block.prompt_seen, *a.q, a.k, a.v, *a.proj, *a.prefix)
        for value in (*arrays, *mlp.fc1, *mlp.fc2):
            assert value.dtype == np.float64


def test_folding_a_block_changes_none_of_its_arguments(case):
    """Arrays that cannot be written to fold to the same numbers."""
    weights = {name: value.copy() for name, value in case.weights.items()}
    prompt = case.adapter.prompts(0)
    for value in (*weights.values(), prompt):
        value.flags.writeable = False
    found = fold_block(case.spec, Tensors(weights), prompt, 0)
    expected = fold_block(case.spec, Tensors(case.weights), case.adapter.prompts(0), 0)
    assert np.array_equal(found.attentions[0].prefix.keys, expected.attentions[0].prefix.keys)
    assert np.array_equal(found.mlps[0].fc2.b, expected.mlps[0].fc2.b)
