"""Merged tokens with rotary positions: graph beside reference, and the reference beside its equation."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

from tests.support.merging_models import ROTARY, merging_model, tiny_model
from tests.support.tolerances import CLEARLY, PARITY_FP32, largest_difference
from vptkit.backbones.merge_schedule import TokenMerging
from vptkit.export.analysis.dataflow import Dataflow
from vptkit.export.analysis.macs import folded_macs
from vptkit.export.analysis.tensorrt_rules import check_rules
from vptkit.export.graph.rotation_writer import RotationWriter
from vptkit.export.precision.half_precision import typed
from vptkit.export.precision.pixel_centring import centre_pixels
from vptkit.tune.backbone import reference
from vptkit.tune.backbone.token_merging import (
    Matching,
    MergedTokens,
    attention_by_size,
    merge_rows,
)

KINDS = list(ROTARY)
FORMS = ("query", "full", "fused")


def form_of(form):
    return {"last_block": "query", "qkv": "fused"} if form == "fused" else {"last_block": form}


# the equation -------------------------------------------------------------------------------------


def turned_by_hand(x, table, half):
    """[h, e] of one patch, turned by sines and cosines [1 or h, 2 e]."""
    sin, cos = table.chunk(2, -1)
    if half:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin
    swapped = torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
    return x * cos + swapped * sin


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_means_over_pairs_of_patches(kind):
    """What a merged pair is scored is the mean of what its patches, were they equal, would be."""
    model = tiny_model(ROTARY[kind], depth=1)
    k, attn = model.num_prefix_tokens, model.blocks[0].attn
    of_tokens = [
        [*range(5)],
        [7],
        [5, 9, 15],
        [6, 8],
        [10, 11, 12, 13, 14],
    ]  # patches of each token
    parts = torch.zeros(1, len(of_tokens), 16, dtype=torch.float64)
    for row, patches in enumerate(of_tokens):
        parts[0, row, patches] = 1 / len(patches)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, k + len(of_tokens), 32, generator=generator, dtype=torch.float64)
    seen = []

    def spy(q, key, v, **_):
        seen.extend((q, key))
        return v

    def attended(parts):
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", spy)
            patch.setattr(attn, "fused_attn", True)
            reference.call_block(model, 0, z, parts=parts)
        return seen[0], seen[1]

    q, keys = attended(parts)
    rope = reference._rotary(model)
    still = torch.cat([torch.zeros_like(rope[..., :16]), torch.ones_like(rope[..., :16])], -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_rotary", lambda _: still)
        plain_q, plain_keys = attended(parts)
    table = rope[0] if getattr(model, "rope_mixed", False) else rope[None]  # [1 or h, 16, 2 e]
    half = bool(getattr(attn, "rotate_half", False))

    def turned(x, token):  # one for each patch of the token
        return [turned_by_hand(x[0, :, k + token], table[:, i], half) for i in of_tokens[token]]

    for a, b in product(range(len(of_tokens)), repeat=2):
        pairs = [(x * y).sum(-1) for x, y in product(turned(plain_q, a), turned(plain_keys, b))]
        found = (q[0, :, k + a] * keys[0, :, k + b]).sum(-1)
        torch.testing.assert_close(found, torch.stack(pairs).mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(q[:, :, :k], plain_q[:, :, :k])  # class and registers


def test_parts_are_merged_as_tokens_are():
    tokens = MergedTokens(torch.ones(1, 5, dtype=torch.float64))
    first = Matching(torch.tensor([[0, 4, 1, 3]]), torch.tensor([[2]]), torch.tensor([[2]]))
    parts, size = merge_rows(tokens.with_parts(), tokens.size, first)
    second = Matching(torch.tensor([[0, 2, 3]]), torch.tensor([[1]]), torch.tensor([[1]]))
    parts, size = merge_rows(parts, size, second)
    expected = [[1, 0, 0, 0, 0], [0, 1 / 3, 1 / 3, 0, 1 / 3], [0, 0, 0, 1, 0]]
    np.testing.assert_allclose(parts[0].numpy(), expected)
    assert size.tolist() == [[1, 3, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_until_tokens_are_merged_a_block_is_timms(kind):
    model = tiny_model(ROTARY[kind])
    z = reference.embed(model, torch.randn(2, 3, 32, 32, dtype=torch.float64))
    tokens = MergedTokens(z.new_ones(z.shape[:2]))
    found, after = reference.merging_block(model, 0, z, tokens, TokenMerging(schedule=(0, 0, 0, 0)))
    torch.testing.assert_close(found, reference.call_block(model, 0, z), rtol=0, atol=1e-12)
    assert after is tokens


def test_keys_that_are_compared_are_turned():
    """As attention is about to use them."""
    model = tiny_model(ROTARY["axial, pairs"])
    z = torch.ones(1, 17, 32, dtype=torch.float64)  # equal but for where they are
    with attention_by_size(model.blocks[0], None) as keys:
        reference.call_block(model, 0, z)
    assert (keys[0][0, :, 1] - keys[0][0, :, 2]).abs().max() > 1e-3


# the graph ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("insert", ["deep", "shallow", "none"])
def test_graphs_say_what_the_reference_says(kind, insert):
    pools = ("avg", "avg_prompts", "token+avg", "token")
    for number, form in enumerate(FORMS):
        case = merging_model(ROTARY[kind], insert=insert, pool=pools[number])
        found = case.run(case.graph(batch=(None, 2)[number % 2], **form_of(form)))
        assert largest_difference(found, case.reference()) <= PARITY_FP32
        plain = replace(case.adapter, merging=None)
        assert largest_difference(found, case.reference(plain)) > CLEARLY * PARITY_FP32


@pytest.mark.parametrize(
    ("schedule", "attention"), [((0, 2, 0, 0), "plain"), ((8, 0, 4, 0), "proportional")]
)
@pytest.mark.parametrize("kind", ["centered, halves", "mixed"])
def test_schedules(kind, schedule, attention):
    case = merging_model(ROTARY[kind], merge=schedule, attention=attention, insert="none")
    assert largest_difference(case.run(case.graph()), case.reference()) <= PARITY_FP32


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_grouped_keys_and_norms_of_keys(batch):
    case = merging_model(
        "vit_base_patch16_sapiens2", arguments={"num_kv_heads": (1, 2, 1, 2)}, insert="none"
    )
    images = case.images[:batch] if batch else case.images
    case = replace(case, images=images)
    assert largest_difference(case.run(case.graph(batch=batch)), case.reference()) <= PARITY_FP32


@pytest.mark.parametrize("kind", KINDS)
def test_equal_images_break_ties_alike(kind):
    """All patches of one colour: they differ in where they are, and mirrored places tie."""
    case = merging_model(ROTARY[kind], insert="none")
    case = replace(case, images=np.full_like(case.images, 128))
    assert largest_difference(case.run(case.graph()), case.reference()) <= PARITY_FP32


TWINS = {
    "the rotation is not merged": ("_of_tokens", None),
    "sines have the wrong sign": ("_of_tokens", "sign"),
}


@pytest.mark.parametrize("kind", ["axial, pairs", "mixed"])
@pytest.mark.parametrize("wrong", TWINS)
def test_a_broken_twin_fails(kind, wrong, monkeypatch):
    right = RotationWriter._of_tokens

    def first_tokens(self, rotation, tokens, carried, label):  # those of the patches in front
        rows = self._table(rotation)[:, :tokens]
        cos, sin = np.split(rows, 2, axis=-1)
        return (
            self.b.const(f"{label}/cos/{tokens}", np.concatenate([cos, cos], -1)[None]),
            self.b.const(f"{label}/sin/{tokens}", np.concatenate([-sin, sin], -1)[None]),
        )

    def other_way(self, rotation, tokens, carried, label):
        cos, sin = right(self, rotation, tokens, carried, label)
        return cos, self.b.op("Neg", [sin], f"{label}/wrong/{len(self._written)}")

    case = merging_model(ROTARY[kind])
    monkeypatch.setattr(
        RotationWriter, "_of_tokens", other_way if TWINS[wrong][1] else first_tokens
    )
    assert largest_difference(case.run(case.graph()), case.reference()) > CLEARLY * PARITY_FP32


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_merging_nothing_changes(kind):
    """Nodes and constants of blocks before it are, byte for byte, those of the graph without."""
    case = merging_model(ROTARY[kind], merge=(0, 0, 3, 0))
    plain = replace(case, adapter=replace(case.adapter, merging=None))
    before = ("blocks.0", "blocks.1", "blocks.2.attn", "blocks.2.norm1")
    parts = []
    for one in (case, plain):
        graph = one.graph().graph
        nodes = [n for n in graph.node if n.name.startswith(before)]
        read = {name for n in nodes for name in n.input}
        constants = [t for t in graph.initializer if t.name in read]
        parts.append([part.SerializeToString() for part in (*nodes, *constants)])
    assert len(parts[0]) > 100
    assert parts[0] == parts[1]


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_are_valid_portable_and_counted(kind):
    case = merging_model(ROTARY[kind], insert="shallow", pool="avg")
    model = case.graph(last_block="full", batch=1)
    onnx.checker.check_model(model, full_check=True)
    assert all(verdict.ok for verdict in check_rules(model))
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {t.name: list(t.dims) for t in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    counted = sum(
        int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.name.startswith("blocks.")
    )
    a = case.adapter
    assert counted == folded_macs(case.spec, 3, a.insert, a.pool, "full", a.merging)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["axial, pairs", "mixed"])
def test_low_types(kind, precision):
    """Cosines and sines are as exact as constants of the type; which tokens merge is chosen in fp32."""
    case = merging_model(ROTARY[kind], insert="none", pool="avg")
    model = case.graph()
    centre_pixels(model)
    low, _ = typed(model, precision)
    onnx.checker.check_model(low, full_check=True)
    types = Dataflow.of(low).types
    chosen = [node for node in low.graph.node if node.op_type == "TopK"]
    assert {types[node.input[0]] for node in chosen} == {onnx.TensorProto.FLOAT}
    if precision == "fp16":
        found, expected = case.run(low), case.run(model)
        assert largest_difference(found, expected) < 0.02
