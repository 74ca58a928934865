"""Each pure fold against its equation, in double precision and on random numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.support.strategies import Setup, build
from tests.support.tolerances import CLEARLY, FOLD, largest_difference
from vptkit.export.fold.equations import (
    fold_layer_norm,
    fold_layer_scale,
    fold_pixels,
    fold_scale,
    fold_value_bias,
    normalized,
)
from vptkit.export.fold.fold_network import Linear, Norm, fold
from vptkit.export.fold.folded_network import Attention, absorb_keys_values
from vptkit.images.preprocess import Preprocess

NUMBERS = st.floats(-100, 100, allow_nan=False, width=64).map(lambda x: round(x, 6))
EPS = 1e-6


def matrix(*shape):
    return arrays(np.float64, shape, elements=NUMBERS)


def exact(test):
    return settings(derandomize=True, deadline=None, max_examples=40, database=None)(test)


def apply(x, linear):
    return x @ linear.w + linear.b


def same(found, expected):
    """Equal but for rounding, of numbers up to 1e4 that may cancel."""
    return np.allclose(found, expected, rtol=FOLD, atol=FOLD * 1e5)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def linear(rng, inner, outer):
    return Linear(rng.standard_normal((inner, outer)), rng.standard_normal(outer))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# single folds -------------------------------------------------------------------------------------


@exact
@given(matrix(3, 8))
def test_normalized_rows_have_mean_zero_and_variance_one(x):
    rows = normalized(x, 1e-12)
    assert np.abs(rows.mean(axis=-1)).max() < 1e-6
    varied = x.std(axis=-1) > 1e-3
    assert np.allclose(rows.std(axis=-1)[varied], 1.0, atol=1e-5)


@exact
@given(matrix(3, 8), st.floats(0.01, 1000))
def test_normalized_forgets_shift_and_scale(x, scale):
    varied = x[x.std(axis=-1) > 1e-2]
    assert np.allclose(normalized(scale * varied + 5, 0.0), normalized(varied, 0.0), atol=1e-7)


def test_normalized_is_torchs_layer_norm(rng):
    import torch

    x = rng.standard_normal((4, 8)) * 1e-3  # small enough for epsilon to matter
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x), (8,), eps=1e-5).numpy()
    assert largest_difference(normalized(x, 1e-5), expected) < FOLD
    assert largest_difference(normalized(x, 1e-6), expected) > CLEARLY * FOLD


def test_a_constant_row_normalizes_to_zero():
    assert (normalized(np.full((1, 8), 3.5), EPS) == 0).all()


@exact
@given(matrix(8), matrix(8), matrix(8, 3), matrix(3), matrix(2, 8))
def test_layer_norm_affine(gamma, beta, w, b, x):
    """LN(x) W + b = x̂ (diag γ W) + (β W + b)."""
    rows = normalized(x, EPS)
    folded = fold_layer_norm(gamma, beta, Linear(w, b))
    assert same(apply(rows, folded), (rows * gamma + beta) @ w + b)


@exact
@given(matrix(4, 6), matrix(6), st.floats(-4, 4), matrix(2, 4))
def test_scale(w, b, scale, x):
    assert same(apply(x, fold_scale(Linear(w, b), scale)), scale * (x @ w + b))


@exact
@given(matrix(4, 6), matrix(6), matrix(6), matrix(2, 4))
def test_layer_scale(w, b, gamma, x):
    assert same(apply(x, fold_layer_scale(Linear(w, b), gamma)) / 100, (x @ w + b) * gamma / 100)


def test_value_bias_moves_through_rows_that_sum_to_one(rng):
    attention = softmax(rng.standard_normal((5, 7)))
    v, bias, proj = rng.standard_normal((7, 8)), rng.standard_normal(8), linear(rng, 8, 6)
    expected = apply(attention @ (v + bias), proj)
    assert largest_difference(apply(attention @ v, fold_value_bias(bias, proj)), expected) < FOLD
    # the broken twin: rows that do not sum to one
    wrong = apply(0.9 * attention @ v, fold_value_bias(bias, proj))
    assert largest_difference(wrong, apply(0.9 * attention @ (v + bias), proj)) > CLEARLY * FOLD


def test_what_all_keys_share_does_not_matter(rng):
    """Σ over keys: softmax(q (k + c)ᵀ) = softmax(q kᵀ); not so if the prefix misses the shift."""
    q, k, shift = (rng.standard_normal(shape) for shape in ((5, 4), (7, 4), (4,)))
    assert largest_difference(softmax(q @ (k + shift).T), softmax(q @ k.T)) < FOLD
    partly = np.concatenate([k[:3] + shift, k[3:]])
    assert largest_difference(softmax(q @ partly.T), softmax(q @ k.T)) > CLEARLY * FOLD


PREPROCESS = Preprocess(input_size=(3, 8, 12), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))


@pytest.mark.parametrize("patch", [(4, 4), (2, 4), (4, 2), (1, 1)])
def test_pixels(rng, patch):
    """Patches of 0..255 times the folded kernel = torch's convolution of normalised pixels."""
    import torch

    images = rng.integers(0, 256, (2, 8, 12, 3)).astype(np.float64)
    kernel = rng.standard_normal((6, 3, *patch))
    normal = (images / 255 - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(normal.transpose(0, 3, 1, 2)), torch.from_numpy(kernel), stride=patch
    )
    expected = expected.flatten(2).transpose(1, 2).numpy()  # [B, N, d]
    (ph, pw), (gh, gw) = patch, (8 // patch[0], 12 // patch[1])
    rows = images.reshape(2, gh, ph, gw, pw * 3).transpose(0, 1, 3, 2, 4)
    rows = rows.reshape(2, gh * gw, ph * pw * 3)
    w, shift = fold_pixels(kernel, PREPROCESS)
    assert largest_difference(rows @ w + shift, expected) < FOLD
    swapped = replace(PREPROCESS, mean=PREPROCESS.std, std=PREPROCESS.mean)
    w, shift = fold_pixels(kernel, swapped)
    assert largest_difference(rows @ w + shift, expected) > CLEARLY * FOLD


# a block ------------------------------------------------------------------------------------------


def an_attention(rng, d=8, m=3):
    prompt = 10 * rng.standard_normal((m, d))
    return Attention(
        q=linear(rng, d, d),
        k=rng.standard_normal((d, d)),
        v=rng.standard_normal((d, d)),
        k_bias=None,
        v_bias=None,
        q_norm=None,
        k_norm=None,
        proj=linear(rng, d, d),
        out_norm=False,
        post=None,
        rotation=None,
        bias=None,
        prompt=prompt,
        rows=normalized(prompt, EPS),
        kv_heads=2,
        norm_eps=EPS,
        norm_kind="layer",
    )


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_one_query_against_the_tokens_themselves(rng, heads):
    """softmax(q (x̂ W_k)ᵀ) (x̂ W_v), head by head, without forming keys or values."""
    d, attention = 8, an_attention(rng)
    e = d // heads
    x = normalized(rng.standard_normal((6, d)), EPS)
    q = apply(x[:1], attention.q).reshape(heads, 1, e)
    k = (x @ attention.k).reshape(6, heads, e).transpose(1, 0, 2)
    v = (x @ attention.v).reshape(6, heads, e).transpose(1, 0, 2)
    expected = softmax(q @ k.transpose(0, 2, 1)) @ v  # [h, 1, e]
    absorbed = absorb_keys_values(attention, heads)
    assert absorbed.k.shape == (heads, e, d)
    assert absorbed.v.shape == (heads, d, e)
    p = softmax(q @ absorbed.k @ x.T)
    assert largest_difference(p @ x @ absorbed.v, expected) < FOLD


def test_prefix_and_queries_of_prompts(rng):
    attention = an_attention(rng)
    rows = normalized(attention.prompt_rows(), EPS)
    k, v = attention.prefix()
    assert largest_difference(k, rows @ attention.k) < FOLD
    assert largest_difference(v, rows @ attention.v) < FOLD
    assert largest_difference(attention.prompt_queries(), apply(rows, attention.q)) < FOLD


def test_keys_of_prompts_are_normalised_for_each_head(rng):
    norm = Norm(rng.standard_normal(4), rng.standard_normal(4))
    attention = replace(an_attention(rng), k_norm=norm, k_bias=rng.standard_normal(8))
    keys = (attention.rows @ attention.k + attention.k_bias).reshape(-1, 2, 4)
    expected = normalized(keys, EPS) * norm.gamma + norm.beta
    assert largest_difference(attention.prefix()[0], expected.reshape(-1, 8)) < FOLD


def test_an_attention_without_prompts_has_no_rows(rng):
    with pytest.raises(ValueError, match="no prompts"):
        replace(an_attention(rng), prompt=None).prompt_rows()


# the whole network --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    return build(Setup())


@pytest.fixture(scope="module")
def folded(case):
    return fold(case.spec, case.weights, case.adapter)


def tuned(case):
    return {**case.weights, **case.adapter.layer_norms()}


def test_attention_of_a_folded_block_is_that_of_timms(case, folded):
    """Scores up to what all keys share, and the mixed values behind the projection."""
    d, h, e = case.spec.width, case.spec.heads, case.spec.head_width
    x = np.random.default_rng(0).standard_normal((7, d))
    w = tuned(case)
    for i, block in enumerate(folded.blocks):
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
        k_p, v_p = a.prefix()

        def by_head(rows):
            return rows.reshape(len(rows), h, e).transpose(1, 0, 2)

        scores = by_head(apply(image, a.q)) @ by_head(np.concatenate([k_p, image @ a.k])).transpose(
            0, 2, 1
        )
        values = by_head(np.concatenate([v_p, image @ a.v]))
        mixed = (softmax(scores) @ values).transpose(1, 0, 2).reshape(-1, d)
        assert largest_difference(apply(mixed, a.proj), expected) < 100 * FOLD


def test_the_mlp_of_a_folded_block_is_that_of_timms(case, folded):
    x = np.random.default_rng(0).standard_normal((7, case.spec.width))
    hat, w = normalized(x, case.spec.norm_eps), tuned(case)
    for i, block in enumerate(folded.blocks):
        name = f"blocks.{i}"
        plain = hat * w[f"{name}.norm2.weight"] + w[f"{name}.norm2.bias"]
        hidden = plain @ w[f"{name}.mlp.fc1.weight"].T + w[f"{name}.mlp.fc1.bias"]
        (mlp,) = block.mlps
        assert largest_difference(apply(hat, mlp.fc1), hidden) < FOLD
        out = hidden @ w[f"{name}.mlp.fc2.weight"].T + w[f"{name}.mlp.fc2.bias"]
        assert largest_difference(apply(hidden, mlp.fc2), out * w[f"{name}.ls2.gamma"]) < FOLD


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
    assert [i for i, block in enumerate(found.blocks) if block.prompt is not None] == sites


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


def test_all_constants_are_double(folded):
    for block in folded.blocks:
        (a,), (mlp,) = block.attentions, block.mlps
        for value in (*a.q, a.k, a.v, *a.proj, *mlp.fc1, *mlp.fc2):
            assert value.dtype == np.float64
    for value in (*folded.patch, *folded.patch_float, folded.prefix_rows, *folded.head):
        assert value.dtype == np.float64


def test_float32_weights_fold_in_double(case):
    """Cast once, at the end: folding float32 numbers equals folding their float64 copies."""
    single = {k: v.astype(np.float32) for k, v in case.weights.items()}
    double = {k: v.astype(np.float64) for k, v in single.items()}
    found, expected = (fold(case.spec, w, case.adapter) for w in (single, double))
    assert np.array_equal(found.head.w, expected.head.w)
    assert np.array_equal(found.blocks[1].mlps[0].fc2.b, expected.blocks[1].mlps[0].fc2.b)
