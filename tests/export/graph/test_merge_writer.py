"""One merging by itself, beside its definition in torch: ties, edges, sizes that are carried on."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vptkit.backbones.merge_schedule import TokenMerging
from vptkit.export.graph.merge_writer import TokenMerger
from vptkit.export.graph.onnx_builder import FLOAT, Builder
from vptkit.tune.backbone.token_merging import match_tokens, merge_rows

BATCH, WIDTH, HEADS, HEAD = 2, 6, 2, 4


def graph(tokens: int, protected: int, schedule: tuple[int, ...], behind: int = 0) -> bytes:
    """z, and keys of each block → z and sizes behind all of them."""
    b = Builder()
    merger = TokenMerger(b, tokens, protected, TokenMerging(schedule=schedule))
    z, inputs = "z", [("z", FLOAT, ("batch", tokens + behind, WIDTH))]
    for i in range(len(schedule)):
        inputs.append((f"k{i}", FLOAT, ("batch", HEADS, merger.tokens, HEAD)))
        z = merger.merge(z, f"k{i}", None, i, behind)
    b.op("Identity", [z], "rows")
    b.op("Identity", [merger.sizes_with(behind, "with")], "sizes")
    rows = merger.tokens + behind
    outputs = ("rows", ("batch", rows, WIDTH)), ("sizes", ("batch", rows, 1))
    return b.model("merging", inputs, *outputs).SerializeToString()


def run(model: bytes, feed: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def defined(z: Any, keys: list[Any], protected: int, schedule: tuple[int, ...]) -> Any:
    """What the definition gives: rows and sizes."""
    z, size = torch.from_numpy(z), torch.ones(z.shape[:2])
    for k, r in zip(keys, schedule, strict=True):
        z, size = merge_rows(z, size, match_tokens(torch.from_numpy(k), protected, r))
    return z.numpy(), size.numpy()


def tied_keys(rng: np.random.Generator, tokens: int, kinds: int) -> Any:
    """Keys of few directions, all of one length: similarities are exactly 0 or 1."""
    chosen = rng.integers(0, kinds, size=(BATCH, 1, tokens))
    return np.eye(HEAD, dtype=np.float32)[np.repeat(chosen, HEADS, axis=1)]


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(
    st.integers(0, 3),
    st.integers(4, 15),
    st.sampled_from([1, 2, HEAD]),
    st.integers(1, 8),
    st.integers(0, 2),
)
def test_ties_are_broken_as_the_definition_does(protected, patches, kinds, r, behind):
    schedule, left = [], patches
    for _ in range(2):
        schedule.append(min(r, left // 2))
        left -= schedule[-1]
    rng, tokens = np.random.default_rng(patches * 31 + r), protected + patches
    z = rng.standard_normal((BATCH, tokens + behind, WIDTH)).astype(np.float32)
    keys = [tied_keys(rng, tokens, kinds), tied_keys(rng, tokens - schedule[0], kinds)]
    rows, sizes = run(
        graph(tokens, protected, tuple(schedule), behind), {"z": z, "k0": keys[0], "k1": keys[1]}
    )
    expected, expected_sizes = defined(z[:, :tokens], keys, protected, tuple(schedule))
    kept = tokens - sum(schedule)
    np.testing.assert_allclose(rows[:, :kept], expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(sizes[:, :kept, 0], expected_sizes)
    assert np.array_equal(rows[:, kept:], z[:, tokens:])  # prompts take no part
    assert (sizes[:, kept:] == 1).all()


def test_the_other_way_of_breaking_ties_would_be_seen():
    """All keys are one: the first r tokens of A go, into the first of B; not the last."""
    z = np.random.default_rng(0).standard_normal((BATCH, 9, WIDTH)).astype(np.float32)
    keys = tied_keys(np.random.default_rng(0), 9, 1)
    rows, sizes = run(graph(9, 1, (3,)), {"z": z, "k0": keys})
    assert np.array_equal(sizes[0, :, 0], [1, 1, 4, 1, 1, 1])  # class, one of A, four of B
    assert np.array_equal(rows[:, 1], z[:, 8])
    np.testing.assert_allclose(rows[:, 2], z[:, [1, 2, 4, 6]].mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("protected", [0, 1, 2, 5])
def test_as_many_as_there_are(protected):
    """Every token of A merges, again and again, until one is left."""
    tokens, schedule, left = protected + 8, [], 8
    while left > 1:
        schedule.append(left // 2)
        left -= schedule[-1]
    rng = np.random.default_rng(protected)
    z = rng.standard_normal((BATCH, tokens, WIDTH)).astype(np.float32)
    keys, count = [], tokens
    for r in schedule:
        keys.append(rng.standard_normal((BATCH, HEADS, count, HEAD)).astype(np.float32))
        count -= r
    feed = {"z": z, **{f"k{i}": k for i, k in enumerate(keys)}}
    rows, sizes = run(graph(tokens, protected, tuple(schedule)), feed)
    assert np.array_equal(rows[:, :protected], z[:, :protected])
    assert (sizes[:, protected:] == 8).all()
    np.testing.assert_allclose(rows[:, -1], z[:, protected:].mean(axis=1), rtol=1e-4, atol=1e-6)


def test_keys_of_no_length_are_not_nan():
    z = np.ones((BATCH, 9, WIDTH), np.float32)
    rows, _ = run(graph(9, 1, (2,)), {"z": z, "k0": np.zeros((BATCH, HEADS, 9, HEAD), np.float32)})
    assert np.isfinite(rows).all()
