"""The last block with one query: its absorbed form, and which backbones have it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.tolerances import CLEARLY, FOLD, largest_difference
from vptkit.export.fold.equations import normalized
from vptkit.export.fold.last_block import absorb_keys_values, absorbable
from vptkit.formats.backbone_spec import RelativePositions, Rotary


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_one_query_against_the_tokens_themselves(heads):
    """softmax(q (x̂ W_k)ᵀ) (x̂ W_v), head by head, without forming keys or values."""
    rng, d = np.random.default_rng(7), 8
    e, w_k, w_v = d // heads, rng.standard_normal((d, d)), rng.standard_normal((d, d))
    x = normalized(rng.standard_normal((6, d)), 1e-6)
    q = rng.standard_normal((heads, 1, e))
    k = (x @ w_k).reshape(6, heads, e).transpose(1, 0, 2)
    v = (x @ w_v).reshape(6, heads, e).transpose(1, 0, 2)
    expected = softmax(q @ k.transpose(0, 2, 1)) @ v  # [h, 1, e]

    def found(absorbed):
        return softmax(q @ absorbed.k @ x.T) @ x @ absorbed.v

    absorbed = absorb_keys_values(w_k, w_v, heads)
    assert absorbed.k.shape == (heads, e, d)
    assert absorbed.v.shape == (heads, d, e)
    assert largest_difference(found(absorbed), expected) < FOLD
    exchanged = absorb_keys_values(w_v, w_k, heads)
    assert largest_difference(found(exchanged), expected) > CLEARLY * FOLD


@pytest.mark.parametrize(
    "between",
    [
        {"qk_norm": True},
        {"attention_norm": True},
        {"kv_heads": (1, 1)},
        {"rotary": Rotary(kind="mixed"), "heads": 1},
        {"relative": RelativePositions(kind="table", shared=True)},
    ],
)
def test_nothing_may_stand_between_keys_and_rows(tiny_spec, between):
    assert absorbable(tiny_spec)
    assert not absorbable(replace(tiny_spec, **between))
