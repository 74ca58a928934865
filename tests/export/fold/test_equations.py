"""Each pure fold against its equation, in double precision and on random numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.support.tolerances import CLEARLY, FOLD, largest_difference
from vptkit.export.fold.block_tensors import Linear
from vptkit.export.fold.equations import (
    fold_layer_norm,
    fold_layer_scale,
    fold_pixels,
    fold_scale,
    fold_value_bias,
    normalized,
)
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
