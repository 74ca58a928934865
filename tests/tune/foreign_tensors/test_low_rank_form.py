"""Whole changes as factors: only where they have a low rank, and within the stated error."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from vptkit.tune.foreign_tensors.low_rank_form import MOST_RANK, low_rank_form


def change(rank: int, shape=(300, 260), size=0.01):
    rng = np.random.default_rng(rank)
    return size * rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))


@pytest.mark.parametrize(("rank", "shape"), [(1, (300, 260)), (3, (90, 70)), (64, (300, 260))])
def test_a_change_of_low_rank_behind_float32_rounding(rank, shape):
    """As PEFT leaves it: the difference of two float32 weights."""
    weight = np.random.default_rng(9).normal(size=shape).astype(np.float32)
    exact = change(rank, shape)
    merged = (weight + exact).astype(np.float32)
    delta = merged.astype(np.float64) - weight
    a, b = low_rank_form(delta, float(np.abs(merged).max()))
    assert (len(a), a.dtype, b.shape) == (rank, np.float32, (shape[0], rank))
    assert np.abs(b.astype(np.float64) @ a - exact).max() <= 2**-22 * np.abs(merged).max()


def test_without_rounding_it_is_exact_to_a_millionth():
    delta = change(5)
    a, b = low_rank_form(delta, 0.0)
    assert len(a) == 5
    assert np.abs(b.astype(np.float64) @ a - delta).max() <= 1e-6 * np.abs(delta).max()


@pytest.mark.parametrize(
    "delta",
    [
        change(MOST_RANK + 1),
        change(30, (40, 40)),  # factors would be more numbers
        np.eye(200),
        change(3) + 1e-5 * change(250),
        np.zeros((20, 20)),
        np.full((9, 9), np.inf),
        np.ones((1, 1)),
    ],
)
def test_all_else_stays_whole(delta):
    assert low_rank_form(delta, 1e-3) is None
