"""Weight deltas in the adapter file: what is read, what is refused, and a tensor with its change."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.support.random_deltas import random_deltas
from vptkit.cli.texts.inspect_text import inspect_text
from vptkit.errors import AdapterError
from vptkit.formats.adapter import FORMAT, FORMAT_WITH_DELTAS, read_adapter, write_adapter
from vptkit.formats.backbone_weights import norm_shapes, tensor_shapes
from vptkit.formats.summary import summarize
from vptkit.formats.tensor_file import read_metadata, write_tensors
from vptkit.formats.weight_deltas import LowRank, WeightDelta, changed, is_delta, weight_deltas

QKV, D = "blocks.1.attn.qkv", 8
PAIR = {f"delta.{QKV}.a": np.ones((2, D)), f"delta.{QKV}.b": np.ones((3 * D, 2))}
KINDS = (
    {},
    {"qkv": "separate", "kv_heads": (1, 2), "mlp": "swiglu", "mlp_norm": True},
    {"qkv": "fused_no_key_bias", "mlp": "glu", "scale_names": "gamma", "layer_scale": True},
    {"block": "parallel", "qkv_bias": False, "layer_scale": True, "registers": 2},
    {"block": "branches", "branches": 2, "layer_scale": True, "dist_token": True},
)


@pytest.fixture
def adapter(tiny_adapter):
    return read_adapter(tiny_adapter)


def with_deltas(adapter, deltas, *, spec: bool = True):
    """The adapter with further tensors, float32."""
    further = {name: np.asarray(value, np.float32) for name, value in deltas.items()}
    backbone = adapter.backbone if spec else replace(adapter.backbone, spec=None)
    return replace(adapter, backbone=backbone, tensors={**adapter.tensors, **further})


def refused(path, adapter, deltas, message, *, spec: bool = True) -> None:
    """Both on writing and on reading a file that somebody else has written."""
    tuned = with_deltas(adapter, deltas, spec=spec)
    with pytest.raises(AdapterError, match=re.escape(message)):
        write_adapter(path, tuned)
    write_tensors(path, tuned.tensors, ("vptkit", json.dumps(tuned.to_json())))
    with pytest.raises(AdapterError, match=re.escape(message)):
        read_adapter(path)


# what a tensor becomes ----------------------------------------------------------------------------


def test_a_linear_with_all_its_changes():
    """The formula entry by entry, which no matrix product of ours computes."""
    rng = np.random.default_rng(0)
    w, a, b = rng.normal(size=(3, 4)), rng.normal(size=(2, 4)), rng.normal(size=(3, 2))
    out, inner = rng.normal(size=3), rng.normal(size=4)
    delta = WeightDelta(low_rank=LowRank(a, b), out_scale=out, in_scale=inner)
    found = delta.applied(w)
    for i in range(3):
        for j in range(4):
            added = sum(b[i, r] * a[r, j] for r in range(2))
            assert found[i, j] == pytest.approx(out[i] * (w[i, j] + added) * inner[j])


def test_a_patch_embedding_is_a_linear_of_its_pixels():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    a, b = rng.normal(size=(1, 12)), rng.normal(size=(4, 1))
    found = WeightDelta(low_rank=LowRank(a, b)).applied(kernel)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[3, 1, 0, 1] - kernel[3, 1, 0, 1], b[3, 0] * a[0, 5])


def test_a_whole_change_is_added_and_nothing_is_overwritten():
    value = np.ones((2, 3), np.float32)
    delta = WeightDelta(whole=np.full((2, 3), 0.5, np.float32), out_scale=np.float32([1, 2]))
    np.testing.assert_array_equal(delta.applied(value), [[1.5] * 3, [3.0] * 3])
    assert (value == 1).all()
    assert changed(value, "other.weight", {"one.weight": delta}).tolist() == value.tolist()


# what is read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [True, False], ids=["spec", "no spec"])
@pytest.mark.parametrize("changes", KINDS, ids=lambda c: "+".join(map(str, c.values())) or "plain")
def test_a_change_of_every_tensor_is_read(tmp_path, adapter, changes, spec):
    """Whatever `tensor_shapes` names, for a spec of any kind, with the spec and without it."""
    own = replace(adapter.backbone.spec, **changes)
    tuned = replace(adapter, backbone=replace(adapter.backbone, spec=own))
    tuned = with_deltas(tuned, random_deltas(own, np.random.default_rng(0)), spec=spec)
    write_adapter(tmp_path / "a.safetensors", tuned)
    found = read_adapter(tmp_path / "a.safetensors")
    assert set(found.weight_deltas()) == set(tensor_shapes(own)) - set(norm_shapes(own))
    assert found.to_json() == tuned.to_json()


def test_an_adapter_without_prompts_has_no_deltas(adapter):
    tuned = with_deltas(adapter, PAIR)
    assert tuned.weight_deltas()
    assert not tuned.without_prompts().weight_deltas()
    assert not any(is_delta(name) for name in tuned.without_prompts().tensors)


def test_other_tensors_are_no_deltas(adapter):
    assert weight_deltas(adapter.tensors) == {}


# the version ----------------------------------------------------------------------------------------


def test_the_version_says_whether_there_are_deltas(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    for one, version in ((adapter, FORMAT), (with_deltas(adapter, PAIR), FORMAT_WITH_DELTAS)):
        write_adapter(path, one)
        assert json.loads(read_metadata(path, AdapterError)["vptkit"])["format"] == version


def test_version_1_with_deltas_is_refused(tmp_path, adapter):
    tuned, path = with_deltas(adapter, PAIR), tmp_path / "a.safetensors"
    document = tuned.to_json() | {"format": FORMAT}
    write_tensors(path, tuned.tensors, ("vptkit", json.dumps(document)))
    with pytest.raises(AdapterError, match=rf"which has no weight deltas.*delta\.{QKV}\.a"):
        read_adapter(path)


def test_version_2_without_deltas_is_read(tmp_path, adapter):
    path = tmp_path / "a.safetensors"
    document = adapter.to_json() | {"format": FORMAT_WITH_DELTAS}
    write_tensors(path, adapter.tensors, ("vptkit", json.dumps(document)))
    assert read_adapter(path).to_json() == adapter.to_json()


# what is refused ------------------------------------------------------------------------------------

WRONG = [
    ({f"delta.{QKV}.a": np.ones((2, D))}, f"delta.{QKV}.b is missing"),
    ({f"delta.{QKV}.b": np.ones((24, 2))}, f"delta.{QKV}.a is missing"),
    (
        {**PAIR, f"delta.{QKV}.b": np.ones((24, 3))},
        f"delta.{QKV}.b has the shape (24, 3), expected (24, 2)",
    ),
    (
        {**PAIR, f"delta.{QKV}.a": np.ones((2, 9))},
        f"delta.{QKV}.a has the shape (2, 9), expected (2, 8)",
    ),
    (
        {**PAIR, f"delta.{QKV}.b": np.ones((8, 2))},
        f"delta.{QKV}.b has the shape (8, 2), expected (24, 2)",
    ),
    ({f"delta.{QKV}.bias": np.ones(8)}, f"delta.{QKV}.bias has the shape (8,), expected (24,)"),
    ({f"scale.{QKV}.out": np.ones(8)}, f"scale.{QKV}.out has the shape (8,), expected (24,)"),
    ({f"scale.{QKV}.in": np.ones(24)}, f"scale.{QKV}.in has the shape (24,), expected (8,)"),
    (
        {f"scale.{QKV}.weight": np.ones(8)},
        f"scale.{QKV}.weight is not known, expected scale.MODULE.out or scale.MODULE.in",
    ),
    ({"scale.pos_embed": np.ones(8)}, "scale.pos_embed is not known"),
    (
        {**PAIR, f"delta.{QKV}.weight": np.ones((24, 8))},
        f"delta.{QKV}.weight stands beside low-rank factors of the same tensor; keep one",
    ),
    (
        {"delta.blocks.1.norm1.weight": np.ones(8)},
        "is of a norm, which an adapter brings whole as ln.blocks.1.norm1.weight",
    ),
    ({"scale.norm.out": np.ones(8)}, "scale.norm.out is of a norm"),
    (
        {"delta.blocks.7.attn.qkv.weight": np.ones((24, 8))},
        "is not known: the backbone has no tensor blocks.7.attn.qkv.weight",
    ),
    ({"delta.head.weight": np.ones((3, 8))}, "the backbone has no tensor head.weight"),
    ({"delta.blocks.0.attn.q_proj.weight": np.ones((8, 8))}, "the backbone has no tensor"),
    ({"delta.": np.ones(1)}, "delta. is not known: the backbone has no tensor"),
    ({"delta.blocks.0.attn.qkv.weight.a": np.ones((1, 8))}, "the backbone has no tensor"),
]


@pytest.mark.parametrize(("deltas", "message"), WRONG, ids=[m[:60] for _, m in WRONG])
def test_deltas_that_cannot_be(tmp_path, adapter, deltas, message):
    refused(tmp_path / "a.safetensors", adapter, deltas, message)


@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        (WRONG[0][0], f"delta.{QKV}.b is missing"),
        (WRONG[2][0], f"delta.{QKV}.b has the shape (24, 3)"),
        ({f"delta.{QKV}.weight": np.ones(8)}, f"delta.{QKV}.weight has the shape (8,)"),
        ({"delta.blocks.2.attn.qkv.bias": np.ones(8)}, "delta.blocks.2.attn.qkv.bias is not known"),
        ({"delta.blocks.1.attn.q.bias": np.ones(8)}, "delta.blocks.1.attn.q.bias is not known"),
        ({"delta.norm.weight": np.ones(8)}, "delta.norm.weight is not known"),
        ({"delta.head.bias": np.ones(3)}, "delta.head.bias is not known"),
        ({"scale.cls_token": np.ones(3)}, "scale.cls_token is not known"),
        ({**PAIR, f"delta.{QKV}.weight": np.ones((24, 8))}, "keep one"),
    ],
)
def test_deltas_that_cannot_be_of_a_backbone_without_spec(tmp_path, adapter, deltas, message):
    refused(tmp_path / "a.safetensors", adapter, deltas, message, spec=False)


def test_factors_of_what_is_no_linear(tmp_path, adapter):
    own = replace(adapter.backbone.spec, layer_scale=True)
    tuned = replace(adapter, backbone=replace(adapter.backbone, spec=own))
    refused(tmp_path / "a", tuned, {"delta.cls_token.a": np.ones((1, 8))}, "no tensor cls_token.w")
    scale = {"scale.blocks.0.ls1.gamma.out": np.ones(8)}
    refused(tmp_path / "a", tuned, scale, "the backbone has no tensor blocks.0.ls1.gamma.weight")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(tmp_path, adapter, value):
    for name in PAIR:
        broken = {**PAIR, name: np.full_like(PAIR[name], value)}
        refused(tmp_path / "a", adapter, broken, f"{name} holds NaN or Inf")


def test_factors_of_rank_0_hold_no_number(tmp_path, adapter):
    """They take no bytes, whatever size their product is said to have."""
    empty = {f"delta.{QKV}.a": np.ones((0, 8)), f"delta.{QKV}.b": np.ones((24, 0))}
    refused(tmp_path / "a", adapter, empty, "which holds no number")


# what people are told -------------------------------------------------------------------------------


def test_what_the_deltas_are_is_told(tmp_path, adapter):
    deltas = {
        **PAIR,
        "delta.blocks.0.attn.qkv.a": np.ones((1, 8)),
        "delta.blocks.0.attn.qkv.b": np.ones((24, 1)),
        "delta.blocks.0.attn.qkv.bias": np.ones(24),
        "scale.blocks.0.mlp.fc1.out": np.ones(32),
    }
    shapes = tensor_shapes(adapter.backbone.spec)
    deltas["scale.blocks.0.mlp.fc1.out"] = np.ones(shapes["blocks.0.mlp.fc1.weight"][0])
    write_adapter(tmp_path / "a.safetensors", with_deltas(adapter, deltas))
    found = summarize(tmp_path / "a.safetensors")
    assert found["deltas"] == {
        "numbers": 64 + 32 + 24 + len(deltas["scale.blocks.0.mlp.fc1.out"]),
        "low_rank": {"blocks.*.attn.qkv": 2},
        "ranks": [1, 2],
        "whole": {"blocks.*.attn.qkv.bias": 1},
        "scales": {"blocks.*.mlp.fc1": 1},
    }
    told = "ranks 1 to 2 on 2 blocks.*.attn.qkv; whole blocks.*.attn.qkv.bias; scales of blocks."
    assert told in inspect_text(found)


def test_nothing_is_told_of_an_adapter_without(tiny_adapter):
    found = summarize(tiny_adapter)
    assert "deltas" not in found
    assert "deltas" not in inspect_text(found)
