"""Blocks are folded one by one, in order, and let go: never more than two at once."""

from __future__ import annotations

import weakref

from tests.support.strategies import Setup, build
from vptkit.export.fold import fold_network
from vptkit.export.fold.lazy_blocks import LazyBlocks
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions


def test_blocks_are_folded_in_order_when_asked_for_and_again_in_another_pass():
    asked = []

    def fold_one(i):
        asked.append(i)
        return f"block {i}"

    blocks = LazyBlocks(fold_one, 3)
    assert asked == []
    passing = iter(blocks)
    assert next(passing) == "block 0"
    assert asked == [0]
    assert list(passing) == ["block 1", "block 2"]
    assert list(blocks) == ["block 0", "block 1", "block 2"]
    assert asked == [0, 1, 2, 0, 1, 2]


def test_a_graph_is_written_in_one_pass_that_keeps_no_block(monkeypatch):
    """While a block is folded, at most the one before it is still there."""
    case, real = build(Setup(depth=4)), fold_network.fold_block
    arrays, alive = [], []

    def counted(spec, tensors, prompt, i, **more):
        alive.append(sum(array() is not None for array in arrays))
        block = real(spec, tensors, prompt, i, **more)
        arrays.append(weakref.ref(block.mlps[0].fc1.w))
        return block

    monkeypatch.setattr(fold_network, "fold_block", counted)
    folded = fold_network.fold(case.spec, case.weights, case.adapter)
    assert alive == []
    a = case.adapter
    folded_graph(case.spec, folded, a.insert, a.pool, a.norm, GraphOptions())
    assert len(alive) == 4  # one pass
    assert max(alive) <= 1
    assert not any(array() is not None for array in arrays)
