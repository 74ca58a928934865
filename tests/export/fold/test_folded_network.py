"""What is folded is arrays: a graph is written from them alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.strategies import Setup, build
from vptkit.export.fold.fold_network import fold
from vptkit.export.fold.folded_network import Block
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions


def written(case, folded):
    a = case.adapter
    graph = folded_graph(case.spec, folded, a.insert, a.pool, a.norm, GraphOptions())
    return graph.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "setup", [Setup(), Setup(insert="shallow"), Setup(pool="avg_prompts", norm="after_pool")]
)
def test_folded_arrays_need_neither_weights_nor_adapter(setup):
    """The blocks held at once, backbone and adapter overwritten: the same graph, byte for byte."""
    case = build(setup)
    expected = written(case, fold(case.spec, case.weights, case.adapter))
    weights = {name: value.copy() for name, value in case.weights.items()}
    tensors = {name: value.copy() for name, value in case.adapter.tensors.items()}
    adapter = replace(case.adapter, tensors=tensors)
    lazy = fold(case.spec, weights, adapter)
    held = replace(lazy, blocks=tuple(lazy.blocks))
    assert all(type(block) is Block for block in held.blocks)
    for name in [*weights]:
        weights[name] = np.full_like(weights[name], np.nan)
    for name in [*tensors]:
        tensors[name] = np.full_like(tensors[name], np.nan)
    assert written(case, held) == expected
