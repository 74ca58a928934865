"""Graphs that merge tokens say what the reference says, and a broken one is found out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings

from tests.integration.test_parity import difference, graph_of
from tests.support.strategies import Setup, build, setups
from tests.support.tolerances import CLEARLY, PARITY_FP32
from vptkit.export.analysis.tensorrt_rules import check_rules
from vptkit.export.graph.folded_graph import Writer
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.merge_writer import TokenMerger
from vptkit.export.graph.onnx_builder import Builder

MERGED = Setup(image=(32, 32), merge=3, prompt_scale=0.3)
FORMS = ("absorbed", "query", "full", "fused")


@pytest.fixture(autouse=True)
def same_models():
    """Timm draws its weights; a broken twin shall be as broken every time."""
    torch.manual_seed(0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("insert", ["deep", "shallow", "none"])
def test_every_pool_and_place_of_the_norm(form, insert):
    pools = ("token", "avg", "token+avg") if insert == "none" else ("avg_prompts", "token", "avg")
    for number, (pool, norm) in enumerate(product(pools, ("before_pool", "after_pool"))):
        case = build(replace(MERGED, pool=pool, norm=norm, insert=insert, registers=number % 3))
        assert difference(case, form, batch=(None, 2)[number % 2]) <= PARITY_FP32


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["proportional", "plain"])
def test_models_of_every_kind(attention):
    drawn = setups(image=(32, 24), pos_embed="learn", merge_attention=attention)

    @seed(7)
    @settings(
        max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(drawn)
    def holds(setup):
        case = build(replace(setup, merge=1 + setup.seed % 6))
        assert difference(case, "absorbed", batch=None) <= PARITY_FP32

    holds()


def test_prompts_of_huge_scale_keep_their_sum_apart():
    changed = {"pool": "avg_prompts", "norm": "after_pool", "prompt_scale": 1e4, "rank": None}
    assert difference(build(replace(MERGED, **changed)), "full") <= PARITY_FP32


def test_merging_changes_the_answer():
    """Else everything here would hold of a graph that merges nothing."""
    case = build(MERGED)
    assert difference(replace(case, adapter=replace(case.adapter, merging=None)), "full") > 1e-3


# broken twins -------------------------------------------------------------------------------------


def first_of_b(self: TokenMerger, x: str, first: int, name: str) -> str:
    """A and B exchanged."""
    return EVERY_OTHER(self, x, first + (1 if first % 2 == 0 else -1), name)


EVERY_OTHER = TokenMerger._every_other


def least_similar(self: Builder, x: str, k: int, name: str, *, largest: bool = True) -> Any:
    return TOP_K(self, x, k, name, largest=largest != name.endswith("/nearest"))


TOP_K = Builder.top_k
PLAIN, MEAN = replace(MERGED, merge_attention="plain"), replace(MERGED, pool="avg")
TWINS: dict[str, tuple[Setup, Any, str, Any]] = {
    "A and B exchanged": (
        replace(MERGED, registers=1, merge=4),
        TokenMerger,
        "_every_other",
        first_of_b,
    ),
    "the least similar": (MERGED, Builder, "top_k", least_similar),
    "sizes not seen by attention": (MERGED, TokenMerger, "size_bias", lambda *_: None),
    "sizes not seen by the mean": (
        MEAN,
        Writer,
        "shared",
        lambda self, z, rows, count, name: self.b.op(
            "Mul",
            [z, self.b.const(f"{name}/wrong", np.asarray(1 / (rows[1] - rows[0])))],
            f"{name}/x",
        ),
    ),
    "the keys' shift forgotten": (
        PLAIN,
        TokenMerger,
        "_metric",
        lambda self, keys, _, name: METRIC(self, keys, None, name),
    ),
}
METRIC = TokenMerger._metric


@pytest.mark.parametrize("name", TWINS)
def test_a_broken_twin_fails(name, monkeypatch):
    setup, owner, method, wrong = TWINS[name]
    case = build(setup)
    assert difference(case, "full") <= PARITY_FP32
    monkeypatch.setattr(owner, method, wrong)
    assert difference(case, "full") > CLEARLY * PARITY_FP32


# what the graphs look like ------------------------------------------------------------------------


@pytest.mark.parametrize("insert", ["deep", "shallow"])
def test_graphs_are_valid_and_portable(insert):
    model = graph_of(build(replace(MERGED, insert=insert, pool="avg")), GraphOptions(), "full")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [17]
    assert all(verdict.ok for verdict in check_rules(model))
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    found = Counter(node.op_type for node in model.graph.node)
    assert not {"ScatterElements", "ScatterND", "Loop", "If", "NonZero", "Where"} & set(found)
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


def test_merging_is_named_after_its_block():
    model = graph_of(build(MERGED), GraphOptions(), "full")
    names = [node.name for node in model.graph.node]
    assert "blocks.0.merge" in names
    assert "blocks.1.merge" in names
    assert not any(name.startswith("blocks.2.merge") for name in names)
