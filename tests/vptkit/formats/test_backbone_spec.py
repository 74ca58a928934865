"""The backbone spec: read as written, and everything else refused."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace

import pytest
from hypothesis import given, settings

from tests.support.strategies import specs
from vptkit.errors import BackboneError
from vptkit.formats.backbone_spec import BackboneSpec
from vptkit.formats.backbone_weights import is_head, tensor_shapes
from vptkit.strict_json import canonical_json

exact = settings(derandomize=True, deadline=None, database=None, max_examples=60)


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
