"""The backbone spec and the digest of its weights."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import MISSING, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.support.strategies import Setup, build, specs
from vptkit.atomic_files import canonical_json
from vptkit.errors import BackboneError
from vptkit.formats.backbone_spec import BackboneSpec
from vptkit.formats.backbone_weights import digest_of_weights, is_head, read_weights, tensor_shapes
from vptkit.formats.tensor_file import write_tensors

exact = settings(derandomize=True, deadline=None, database=None, max_examples=60)


def weights_of(spec, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(dtype) for k, s in tensor_shapes(spec).items()}


# the spec -----------------------------------------------------------------------------------------


@exact
@given(specs())
def test_a_spec_is_read_as_written(spec):
    text = canonical_json(spec.to_json())
    found = BackboneSpec.from_json(json.loads(text))
    assert found == spec
    assert canonical_json(found.to_json()) == text


@exact
@given(specs())
def test_what_follows_from_a_spec(spec):
    (height, width), (ph, pw) = spec.image_size, spec.patch_size
    assert spec.grid == (height // ph, width // pw)
    assert spec.tokens == spec.prefix + spec.grid[0] * spec.grid[1]
    assert spec.prefix == spec.class_token + spec.dist_token + spec.registers
    assert spec.head_width * spec.heads == spec.width
    shapes = tensor_shapes(spec)
    assert shapes["patch_embed.proj.weight"] == (spec.width, 3, ph, pw)
    assert sum(name.endswith("attn.qkv.weight") for name in shapes) == spec.depth
    assert ("pos_embed" in shapes) == (spec.pos_embed != "none")
    assert ("blocks.0.ls1.gamma" in shapes) == spec.layer_scale
    assert not any(is_head(name) for name in shapes)


@pytest.mark.parametrize(
    "setup",
    [
        Setup(),
        Setup(distilled=True, registers=0, depth=1),
        Setup(class_token=False, model_pool="avg", pool="avg", registers=0, pos_embed="none"),
        Setup(qkv_bias=False, proj_bias=False, fc_norm=True, layer_scale=False, norm_pre=False),
        Setup(final_norm=False, no_embed_class=True, tuned_norms=False),
    ],
    ids=range(5),
)
def test_the_shapes_are_those_of_timm(setup):
    case = build(setup)
    found = {k: v.shape for k, v in case.model.state_dict().items() if not is_head(k)}
    assert found == tensor_shapes(case.spec)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 9}, "width 9 is not a multiple of 2 heads"),
        ({"depth": 0}, "a size is not positive.*'depth': 0"),
        ({"heads": -2}, "a size is not positive.*'heads': -2"),
        ({"mlp_width": 0}, "a size is not positive.*'mlp_width': 0"),
        ({"registers": -1}, "a size is not positive.*'registers': -1"),
        ({"norm_eps": 0.0}, r"a size is not positive.*'norm_eps': 0\.0"),
        ({"patch_size": (32, 8)}, r"image \(24, 16\) is smaller than patch \(32, 8\)"),
        ({"class_token": False}, "token pooling needs a class token"),
    ],
)
def test_numbers_that_do_not_fit_together(tiny_spec, fields, message):
    with pytest.raises(BackboneError, match=message):
        replace(tiny_spec, **fields)


REQUIRED = sorted(f.name for f in fields(BackboneSpec) if f.default is MISSING)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_field(tiny_spec, name):
    document = tiny_spec.to_json()
    del document[name]
    with pytest.raises(BackboneError, match=rf"missing \['{name}'\], unknown \[\]"):
        BackboneSpec.from_json(document)


@pytest.mark.parametrize("document", [None, 3, "vit", [], {}])
def test_another_document(document):
    with pytest.raises(BackboneError, match=r"missing .*another version of vptkit"):
        BackboneSpec.from_json(document)


def test_an_unknown_field(tiny_spec):
    with pytest.raises(BackboneError, match=r"missing \[\], unknown \['temperature'\]"):
        BackboneSpec.from_json(tiny_spec.to_json() | {"temperature": 1.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 24),
        ("image_size", [24, 16, 3]),
        ("patch_size", ["a", 8]),
        ("width", "8"),
        ("depth", None),
    ],
)
def test_a_size_of_another_kind(tiny_spec, name, value):
    with pytest.raises(BackboneError, match="backbone spec"):
        BackboneSpec.from_json(tiny_spec.to_json() | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation", "relu"),
        ("pos_embed", "rotary"),
        ("final_norm", "rms_norm"),
        ("pool", "map"),
        ("qkv_bias", "no"),
        ("class_token", None),
        ("width", 8.0),
        ("norm_eps", float("nan")),
    ],
)
def test_a_word_or_kind_that_is_not_known(tiny_spec, name, value):
    """An unknown activation must not be computed as another one."""
    with pytest.raises(BackboneError, match=rf"{name}.*{value}"):
        BackboneSpec.from_json(tiny_spec.to_json() | {name: value})


# the digest ---------------------------------------------------------------------------------------


def test_the_digest_is_what_the_design_says():
    """Computed here a second time: name, shape, little-endian float32, in the order of names."""
    weights = {"b": np.array([[1.5, -2.0]]), "a.c": np.array([0.25, 3.0, 1e-3]), "B": np.ones(1)}
    digest = hashlib.sha256()
    for name, shape, values in (
        ("B", "[1]", [1.0]),
        ("a.c", "[3]", [0.25, 3.0, 1e-3]),
        ("b", "[1, 2]", [1.5, -2.0]),
    ):
        digest.update(f"{name}\0{shape}\0".encode() + struct.pack(f"<{len(values)}f", *values))
    assert digest_of_weights(weights) == digest.hexdigest()


def test_the_digest_knows_neither_order_nor_type_nor_layout_nor_classifier(tiny_spec):
    weights = weights_of(tiny_spec)
    digest = digest_of_weights(weights)
    assert digest == digest_of_weights(dict(reversed(weights.items())))
    assert digest == digest_of_weights({k: v.astype(np.float64) for k, v in weights.items()})
    assert digest == digest_of_weights({k: v.astype(">f4") for k, v in weights.items()})
    assert digest == digest_of_weights({k: np.asfortranarray(v) for k, v in weights.items()})
    classifier = {"head.weight": np.ones((3, 8)), "head_dist.bias": np.ones(3)}
    assert digest == digest_of_weights(weights | classifier)


def test_the_digest_sees_every_change(tiny_spec):
    weights = weights_of(tiny_spec)
    digests = {digest_of_weights(weights)}
    for name, value in weights.items():
        digests.add(digest_of_weights(weights | {name: np.nextafter(value, np.float32(9))}))
    less = {k: v for k, v in weights.items() if k != "cls_token"}
    digests.add(digest_of_weights(less))
    digests.add(digest_of_weights(less | {"cls_tokem": weights["cls_token"]}))
    digests.add(digest_of_weights(weights | {"cls_token": weights["cls_token"][0]}))
    assert len(digests) == len(weights) + 4


# the weights file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_of_every_precision_become_float32(tmp_path, tiny_spec, dtype):
    weights = weights_of(tiny_spec, dtype)
    classifier = {"head.weight": np.full((3, 8), np.nan, dtype=np.float32)}  # not looked at
    write_tensors(tmp_path / "w.safetensors", weights | classifier)
    found = read_weights(tmp_path / "w.safetensors", tiny_spec)
    assert found.keys() == weights.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        assert np.array_equal(value, weights[name].astype(np.float32))


def test_bfloat16_weights_become_float32(tmp_path, tiny_spec):
    import torch
    from safetensors.torch import save_file

    weights = {k: torch.from_numpy(v).bfloat16() for k, v in weights_of(tiny_spec).items()}
    save_file(weights, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors", tiny_spec)
    assert all(np.array_equal(found[k], v.float().numpy()) for k, v in weights.items())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(tmp_path, tiny_spec, value):
    weights = weights_of(tiny_spec)
    weights["blocks.1.mlp.fc2.bias"][3] = value
    write_tensors(tmp_path / "w.safetensors", weights)
    with pytest.raises(BackboneError, match=r"blocks\.1\.mlp\.fc2\.bias holds NaN or Inf"):
        read_weights(tmp_path / "w.safetensors", tiny_spec)


@pytest.mark.parametrize(
    "change",
    [
        {"cls_token": None},
        {"pos_embed": np.zeros((1, 10, 8), np.float32)},  # another grid
        {"model.norm.bias": np.zeros(8, np.float32)},  # another program's names
    ],
)
def test_weights_in_another_form_are_left_to_timm(tmp_path, tiny_spec, change):
    weights = {k: v for k, v in (weights_of(tiny_spec) | change).items() if v is not None}
    write_tensors(tmp_path / "w.safetensors", weights)
    assert read_weights(tmp_path / "w.safetensors", tiny_spec) is None


def test_a_file_that_is_none(tmp_path, tiny_spec):
    with pytest.raises(BackboneError, match="no such file"):
        read_weights(tmp_path / "w.safetensors", tiny_spec)
    with pytest.raises(BackboneError, match="a folder"):
        read_weights(tmp_path, tiny_spec)
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x02pickled")
    with pytest.raises(BackboneError, match="not a readable safetensors file"):
        read_weights(tmp_path / "w.safetensors", tiny_spec)
