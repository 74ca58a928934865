"""Names of PEFT's files in timm's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.errors import AdapterError
from vptkit.formats.backbone_weights import tensor_shapes
from vptkit.tune.foreign_tensors.module_names import Key, Names, rows_of


def names_of(spec):
    return Names({name: np.zeros(shape) for name, shape in tensor_shapes(spec).items()})


@pytest.mark.parametrize(
    ("name", "module", "end"),
    [
        ("blocks.0.attn.qkv.lora_A.weight", "blocks.0.attn.qkv", "lora_A.weight"),
        ("timm_model.blocks.0.attn.qkv.ia3_l", "timm_model.blocks.0.attn.qkv", "ia3_l"),
        (
            "vit.encoder.layer.1.output.dense.base_layer.bias",
            "vit.encoder.layer.1.output.dense",
            "base_layer.bias",
        ),
        ("classifier.weight", "classifier", "weight"),
        ("classifier.original_module.bias", "classifier", "original_module.bias"),
        ("vit.embeddings.cls_token", "", "vit.embeddings.cls_token"),
        ("blocks.7.attn.qkv.lora_A.weight", "", "blocks.7.attn.qkv.lora_A.weight"),
    ],
)
def test_keys(tiny_spec, name, module, end):
    assert names_of(tiny_spec).key(f"base_model.model.{name}") == Key(module, end)


def test_places(tiny_spec):
    names = names_of(tiny_spec)
    assert names.depth == 2
    assert tuple(names.module("vit.layers.1.attention.k_proj")) == ("blocks.1.attn.qkv", 1, 3)
    assert tuple(names.module("head")) == ("head", 0, 1)
    for wrapper in ("", "timm_model.", "backbone.", "model.encoder."):
        found = names.module(f"{wrapper}blocks.1.attn.qkv")
        assert tuple(found) == ("blocks.1.attn.qkv", 0, 1), wrapper
    assert names.module("stranger.blocks.1.attn.qkv") is None
    assert tuple(names.tensor("timm_model.norm.bias")) == ("norm.bias", 0, 1)
    assert names.module("vit.layers.2.attention.k_proj") is None  # two blocks
    assert names.module("dinov2.encoder.layer.0.layer_scale1") is None  # this one has none
    assert names.tensor("vit.embeddings.mask_token") is None
    apart = names_of(dataclasses.replace(tiny_spec, qkv="fused_no_key_bias"))
    for part, place in (("query", "q_bias"), ("key", None), ("value", "v_bias")):
        found = apart.tensor(f"beit.encoder.layer.0.attention.attention.{part}.bias")
        assert (found and found.name) == (place and f"blocks.0.attn.{place}")


def test_rows(tiny_spec):
    names = names_of(tiny_spec)
    key = names.module("vit.layers.1.attention.k_proj")
    assert rows_of(key, np.zeros((24, 8))) == slice(8, 16)
    with pytest.raises(AdapterError, match="no 3 equal parts"):
        rows_of(key, np.zeros((25, 8)))
