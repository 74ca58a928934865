"""Multiply-accumulates: against the published table, and against the graphs themselves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from tests.support.bank_cases import Family, family
from tests.support.exported_banks import export_family
from tests.support.plain_vit import plain_vit
from tests.support.random_deltas import bank_deltas
from tests.support.strategies import Setup, build
from tests.support.tolerances import PRINTED_G
from vptkit.export.analysis.macs import (
    folded_macs,
    folded_queries,
    learned_macs,
    unfolded_macs,
)
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph

if TYPE_CHECKING:
    from tests.support.strategies import Case

VIT_B = plain_vit((224, 224), 16, width=768, depth=12, heads=12)

# methods.md 6.3: m, prompts as tokens, deep and folded with class token, with mean over all tokens
TABLE = [
    (10, 18.37e9, 17.48e9, 17.56e9),
    (20, 19.30e9, 17.52e9, 17.67e9),
    (50, 22.10e9, 17.63e9, 18.00e9),
    (100, 26.85e9, 17.81e9, 18.56e9),
]


def test_the_promptless_backbone():
    assert unfolded_macs(VIT_B, 0) == pytest.approx(17.45e9, abs=PRINTED_G)
    assert folded_macs(VIT_B, 0, "none", "avg", "full") == unfolded_macs(VIT_B, 0)


@pytest.mark.parametrize(("m", "naive", "token", "mean"), TABLE)
def test_the_published_table(m, naive, token, mean):
    assert unfolded_macs(VIT_B, m) == pytest.approx(naive, abs=PRINTED_G)
    # the table's last block is an ordinary one
    assert folded_macs(VIT_B, m, "deep", "token", "full") == pytest.approx(token, abs=PRINTED_G)
    # and its last block with mean computes the prompts' queries, keys and values, here constants
    saved = 3 * m * VIT_B.width**2
    found = folded_macs(VIT_B, m, "deep", "avg_prompts", "full")
    assert found + saved == pytest.approx(mean, abs=PRINTED_G)


def test_one_query_saves_about_a_block():
    """The promise of the design: a 12-block model costs about 11; 0.937 with the patches."""
    bare, patches = unfolded_macs(VIT_B, 0), 196 * 768 * 768
    absorbed = folded_macs(VIT_B, 100, "deep", "token", "absorbed")
    query = folded_macs(VIT_B, 100, "deep", "token", "query")
    assert (absorbed + patches) / (bare + patches) == pytest.approx(0.937, abs=0.0005)
    assert absorbed < query < folded_macs(VIT_B, 100, "deep", "token", "full")


def test_shallow_saves_block_0s_prompt_linears_only():
    """methods.md 6.3: 0.18 G of 26.85 G at m = 100."""
    naive = unfolded_macs(VIT_B, 100)
    assert naive - folded_macs(VIT_B, 100, "shallow", "avg", "full") == 3 * 100 * 768**2
    assert abs(3 * 100 * 768**2 - 0.18e9) < PRINTED_G


# the graphs themselves ----------------------------------------------------------------------------


def counted(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of every MatMul, Gemm and Conv, by the head of the node's name."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = inferred.graph
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    total: dict[str, int] = {}
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        out = shapes[node.output[0]]
        assert 0 not in out, node.name
        kernel = shapes[node.input[1]]
        if node.op_type == "Conv":
            macs = math.prod(out) * math.prod(kernel[1:])
        else:
            macs = math.prod(out) * shapes[node.input[0]][-1]
        place = node.name.split(".")[0].split("/")[0]
        total[place] = total.get(place, 0) + macs
    return total


def graphs(case: Case, form: str, feed: str = "uint8") -> onnx.ModelProto:
    a = case.adapter
    if form == "unfolded":
        options = GraphOptions(batch=1, input=feed)
        return unfolded_graph(case.spec, case.weights, a, options)
    options = GraphOptions(batch=1, input=feed, last_block=form, merging=a.merging)
    folded = fold(case.spec, case.weights, a)
    return folded_graph(case.spec, folded, a.insert, a.pool, a.norm, options)


SHAPES = [
    Setup(),
    Setup(depth=1, heads=4, prompts=5, mlp_ratio=4.0),
    Setup(depth=2, heads=1, class_token=True, registers=0, image=(24, 24), prompts=1),
    Setup(depth=3, heads=4, patch=(8, 4), image=(19, 24), mlp_ratio=1.5, prompts=6),
    Setup(depth=2, distilled=True, registers=0, no_embed_class=False),
]


@pytest.mark.parametrize("setup", SHAPES, ids=range(len(SHAPES)))
@pytest.mark.parametrize("insert", ["deep", "shallow", "none"])
def test_the_blocks_of_every_graph(setup, insert):
    pools = ("token", "avg", "token+avg", "avg_prompts")
    for pool, norm in product(pools, ("before_pool", "after_pool")):
        values = vars(setup) | {"insert": insert, "pool": pool, "norm": norm}
        case = build(Setup(**values))
        m = case.adapter.prompt_length
        for form in ("absorbed", "query", "full"):
            expected = folded_macs(case.spec, m, insert, pool, form)
            assert counted(graphs(case, form))["blocks"] == expected, (pool, norm, form)
        assert counted(graphs(case, "unfolded"))["blocks"] == unfolded_macs(case.spec, m)


@pytest.mark.parametrize("insert", ["deep", "shallow", "none"])
def test_the_blocks_of_graphs_that_merge_tokens(insert):
    for pool, registers, form in product(("token", "avg_prompts"), (0, 1, 2), ("absorbed", "full")):
        case = build(Setup(image=(32, 32), insert=insert, pool=pool, registers=registers, merge=3))
        how = case.adapter.prompt_length, insert, pool, form
        expected = folded_macs(case.spec, *how, case.adapter.merging)
        assert counted(graphs(case, form))["blocks"] == expected, (pool, registers, form)
        assert expected < folded_macs(case.spec, *how)


@pytest.mark.slow
@pytest.mark.parametrize(("insert", "depth"), [("deep", 2), ("none", 2), ("shallow", 1)])
def test_what_learned_keys_and_values_add(insert, depth):
    """Scores and mix, of as many queries as the block has."""
    for pool, form in product(("token", "avg", "avg_prompts"), ("absorbed", "full", "unfolded")):
        case = build(Setup(depth=depth, insert=insert, pool=pool, norm="after_pool"))
        plain, spec, rng = case.adapter, case.spec, np.random.default_rng(0)
        tensors = {
            f"prefix.{i}.{kind}": rng.normal(size=(3 + i, spec.width))
            for i in range(depth)
            for kind in ("keys", "values")
        }
        adapter = replace(plain, tensors={**plain.tensors, **tensors})
        before, after = (
            counted(graphs(replace(case, adapter=one), form))["blocks"] for one in (plain, adapter)
        )
        m, learned = plain.prompt_length, adapter.learned_counts()
        queries = [spec.tokens + m]
        if form != "unfolded":
            queries = folded_queries(spec, m, insert, pool, form)
        assert after - before == learned_macs(spec, queries, learned), (pool, form)


@pytest.mark.parametrize("feed", ["uint8", "float32"])
def test_the_rest_is_patches_and_head(feed):
    case = build(Setup(image=(19, 24)))
    for form in ("absorbed", "full", "unfolded"):
        found = counted(graphs(case, form, feed))
        patches = sum(n for place, n in found.items() if place not in ("blocks", "logits"))
        assert patches == case.spec.patches * 8 * 8 * 3 * case.spec.width
        assert found["logits"] == case.spec.width * 5
        both = build(Setup(image=(19, 24), pool="token+avg"))
        assert counted(graphs(both, form, feed))["logits"] == 2 * case.spec.width * 5


def test_folding_never_costs_more():
    for setup, insert in product(SHAPES, ("deep", "shallow")):
        spec, m = build(setup).spec, setup.prompts
        for pool in ("token", "avg", "token+avg", "avg_prompts"):
            assert folded_macs(spec, m, insert, pool, "full") < unfolded_macs(spec, m)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["absorbed", "query", "full"])
def test_what_low_rank_deltas_add_to_a_bank(tmp_path, form):
    """With prompts, whose rows pass through keys' and values' factors; one adapter, one image."""
    members = family(kinds=("bilinear", "linear"))
    deltas = bank_deltas(members.case.spec, np.random.default_rng(0), ("low",))
    both = members.adapters["bilinear"]
    changed = replace(both, tensors={**both.tensors, **deltas})
    found = {}
    for name, adapter in (("without", both), ("with", changed)):
        some = Family(case=members.case, adapters={"bilinear": adapter})
        out = export_family(tmp_path, some, ExportOptions(batch=1, last_block=form))
        model = onnx.load(out / "model.onnx")
        for value in model.graph.input:  # a single adapter
            first = value.type.tensor_type.shape.dim[0]
            if first.dim_param:
                first.dim_value = 3 if first.dim_param.endswith("blocks") else 1
        manifest = json.loads((out / "manifest.json").read_text())
        found[name] = counted(model)["blocks"], manifest["macs"]["graph"]
    (before, told_before), (after, told_after) = found["without"], found["with"]
    assert after - before == told_after - told_before > 0
