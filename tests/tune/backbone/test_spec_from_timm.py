"""A timm model as a spec, or a refusal that names what is not supported."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from timm import layers  # noqa: E402
from timm.models import vision_transformer  # noqa: E402
from timm.models.vision_transformer import (  # noqa: E402
    Attention,
    ParallelScalingBlock,
    ResPostBlock,
)
from torch import nn  # noqa: E402

from tests.support.timms import OLDER, REASON, make, needs  # noqa: E402
from vptkit.errors import BackboneError  # noqa: E402
from vptkit.formats.backbone_weights import tensor_shapes  # noqa: E402
from vptkit.tune.backbone.reference import embed  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model  # noqa: E402

PLAIN = {
    "image_size": (32, 32),
    "patch_size": (8, 8),
    "width": 32,
    "depth": 2,
    "heads": 2,
    "mlp_width": 128,
    "activation": "gelu",
    "qkv_bias": True,
    "proj_bias": True,
    "patch_bias": True,
    "norm_eps": 1e-6,
    "class_token": True,
    "dist_token": False,
    "registers": 0,
    "pos_embed": "all",
    "norm_pre": False,
    "layer_scale": False,
    "final_norm": "norm",
    "pool": "token",
}
AVERAGE = {"global_pool": "avg", "class_token": False}

# timm name, arguments, where the spec departs from PLAIN
FAMILIES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("vit_tiny_patch16_224", {}, {}),
    ("deit_tiny_patch16_224", {}, {}),
    ("deit_tiny_distilled_patch16_224", {}, {"dist_token": True}),
    ("deit3_small_patch16_224", {}, {"pos_embed": "patches", "layer_scale": True}),
    ("vit_small_patch14_dinov2", {}, {"layer_scale": True}),
    (
        "vit_small_patch14_reg4_dinov2",
        {},
        {"registers": 4, "pos_embed": "patches", "layer_scale": True},
    ),
    (
        "vit_base_patch32_clip_quickgelu_224",
        {},
        {"activation": "quick_gelu", "norm_pre": True, "patch_bias": False, "norm_eps": 1e-5},
    ),
    (
        "vit_medium_patch16_gap_240",
        {},
        {
            "class_token": False,
            "pos_embed": "patches",
            "qkv_bias": False,
            "layer_scale": True,
            "pool": "avg",
        },
    ),
    ("vit_tiny_patch16_224", {"global_pool": "avg"}, {"pool": "avg", "final_norm": "fc_norm"}),
    ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}, {"pool": "avg"}),
    ("vit_tiny_patch16_224", {"fc_norm": True}, {"final_norm": "fc_norm"}),
    ("vit_tiny_patch16_224", {"final_norm": False}, {"final_norm": None}),
    ("vit_tiny_patch16_224", {"pos_embed": "none"}, {"pos_embed": "none"}),
    ("vit_tiny_patch16_224", {"reg_tokens": 2}, {"registers": 2}),
    ("vit_tiny_patch16_224", {"proj_bias": False}, {"proj_bias": False}),
    ("vit_tiny_patch16_224", {"act_layer": "gelu_tanh"}, {"activation": "gelu_tanh"}),
    ("vit_tiny_patch16_224", {"mlp_ratio": 2.5}, {"mlp_width": 80}),
    (
        "vit_tiny_patch16_224",
        {"img_size": (40, 24), "patch_size": (8, 12)},
        {"image_size": (40, 24), "patch_size": (8, 12)},
    ),
    ("vit_tiny_patch16_224", {"dynamic_img_size": True}, {}),
    (
        "vit_tiny_patch16_224",
        {**AVERAGE, "reg_tokens": 1, "no_embed_class": True},
        {
            "class_token": False,
            "registers": 1,
            "pos_embed": "patches",
            "pool": "avg",
            "final_norm": "fc_norm",
        },
    ),
    ("vit_tiny_patch16_224", {"qk_norm": True}, {"qk_norm": True}),
    ("vit_tiny_patch16_224", {"scale_attn_norm": True}, {"attention_norm": True}),
    ("vit_tiny_patch16_224", {"scale_mlp_norm": True}, {"mlp_norm": True}),
    (
        "vit_tiny_patch16_224",
        {"mlp_layer": layers.SwiGLUPacked},
        {"mlp": "glu", "mlp_width": 64},
    ),
    (
        "vit_tiny_patch16_224",
        {"mlp_layer": layers.SwiGLU},
        {"mlp": "swiglu"},
    ),
    ("vit_tiny_patch16_224", {"norm_layer": layers.RmsNorm}, {"norm": "rms"}),
    ("vit_tiny_patch16_224", {"block_fn": ParallelScalingBlock}, {"block": "parallel"}),
    ("vit_tiny_patch16_224", {"block_fn": ResPostBlock}, {"block": "post"}),
    ("vit_small_patch16_18x2_224", {}, {"block": "branches", "branches": 2, "layer_scale": True}),
    (
        "vit_base_patch16_siglip_224",
        {},
        {"pool": "map", "class_token": False, "pos_embed": "patches"},
    ),
]


@pytest.mark.parametrize(("name", "arguments", "departs"), FAMILIES)
def test_the_spec_is_the_module(make_vit, name, arguments, departs):
    model = make_vit(name, **arguments)
    if OLDER and (arguments.get("pos_embed") == "none" or "norm_layer" in arguments):
        pytest.skip(REASON)
    spec = spec_from_model(model, name)
    expected = {**PLAIN, **departs}
    assert {key: getattr(spec, key) for key in expected} == expected
    assert spec.prefix == model.num_prefix_tokens
    assert embed(model, torch.zeros(1, 3, *spec.image_size)).shape == (1, spec.tokens, 32)
    shapes = {key: value.shape for key, value in weights_from_model(model).items()}
    assert shapes == tensor_shapes(spec)


class Derived(Attention):
    """An attention whose forward pass might be anything."""


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("vit_tiny_patch16_224", {"act_layer": "relu"}, "act_layer=ReLU"),
    ("vit_tiny_patch16_224", {"norm_layer": partial(nn.LayerNorm, bias=False)}, "without weight"),
    ("vit_tiny_patch16_224", {"embed_norm_layer": nn.LayerNorm}, "different epsilons"),
    ("vit_tiny_patch16_224", {"mlp_layer": layers.GluMlp}, "mlp_layer=GluMlp"),
    ("vit_tiny_patch16_224", {"attn_layer": Derived}, "attn_layer=Derived"),
    ("vit_tiny_patch16_224", {"global_pool": "avgmax"}, "global_pool='avgmax'"),
    ("vit_tiny_patch16_224", {"global_pool": "max"}, "global_pool='max'"),
    ("vit_tiny_patch16_224", {"global_pool": "prr"}, "AttentionPoolPrr"),
    (
        "vit_tiny_patch16_224",
        {"global_pool": "avg", "pool_include_prefix": True},
        "pool_include_prefix",
    ),
    ("vit_tiny_patch16_224", {"in_chans": 1}, "in_chans=1"),
    ("vit_tiny_patch16_224", {"dynamic_img_pad": True}, "dynamic_img_pad"),
]


@pytest.mark.parametrize(("name", "arguments", "feature"), REFUSED)
def test_a_refusal_names_the_feature(make_vit, name, arguments, feature):
    model = make_vit(name, **arguments)
    with pytest.raises(BackboneError) as caught:
        spec_from_model(model, name)
    assert str(caught.value).startswith(f"{name}: ")
    assert feature in str(caught.value)


def test_a_bias_that_timm_adds_in_the_wrong_place_is_named(make_vit):
    model = make_vit(block_fn=ParallelScalingBlock, qkv_bias=False)
    model.blocks[1].qkv_bias = torch.zeros(96)  # as timm before 1.0.25 has it
    with pytest.raises(BackboneError, match="adds in the wrong place"):
        spec_from_model(model)


def test_prefix_tokens_that_timm_loses_are_named(make_vit, monkeypatch):
    model = make_vit(pos_embed="none")
    monkeypatch.setattr(model, "_pos_embed", lambda z: z)  # as timm before 1.0.27
    with pytest.raises(BackboneError, match="a class token without positions"):
        spec_from_model(model)


def test_a_block_with_differential_attention_is_named(make_vit):
    model = make_vit(block_fn=needs(vision_transformer, "DiffParallelScalingBlock"))
    with pytest.raises(BackboneError, match="DiffParallelScalingBlock"):
        spec_from_model(model)


def test_all_features_are_named_at_once(make_vit):
    model = make_vit(pool_include_prefix=True, global_pool="avg", in_chans=1, act_layer="relu")
    with pytest.raises(BackboneError) as caught:
        spec_from_model(model)
    message = str(caught.value)
    assert all(feature in message for feature in ("include_prefix", "in_chans=1", "act_layer=ReLU"))
    assert message.count("act_layer") == 1  # not once a block


@pytest.mark.parametrize(
    ("arguments", "feature"),
    [({"gated": True}, "gated attention"), ({"attn_head_dim": 8}, "attn_head_dim")],
)
def test_attention_is_looked_into_at_every_block(make_vit, arguments, feature):
    model = make_vit()
    model.blocks[1].attn = make(Attention, 32, num_heads=2, qkv_bias=True, **arguments)
    with pytest.raises(BackboneError, match=feature):
        spec_from_model(model)


@pytest.mark.parametrize("where", ["blocks.1.norm2", "norm"])
def test_different_epsilons_are_named(make_vit, where):
    model = make_vit()
    model.get_submodule(where).eps = 1e-3
    with pytest.raises(BackboneError, match="different epsilons"):
        spec_from_model(model)


@pytest.mark.parametrize(
    ("name", "arguments", "architecture"),
    [
        ("swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 12}, "SwinTransformer"),
        ("vit_small_r26_s32_224", {"img_size": 64, "embed_dim": 32, "num_heads": 2}, "HybridEmbed"),
        ("resnet18", {}, "ResNet"),
    ],
)
def test_another_architecture_is_named(name, arguments, architecture):
    depth = {} if name.startswith(("swin", "resnet")) else {"depth": 1}
    model = timm.create_model(name, pretrained=False, num_classes=0, **depth, **arguments)
    with pytest.raises(BackboneError, match=architecture):
        spec_from_model(model, name)


def test_an_unexpected_tensor_is_named(make_vit):
    model = make_vit()
    model.blocks[0].attn.register_parameter("relative_bias", nn.Parameter(torch.zeros(3)))
    with pytest.raises(BackboneError, match="relative_bias"):
        spec_from_model(model)


def test_weights_are_float32_without_the_classifier(make_vit):
    model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=4, depth=1).half()
    tensors = weights_from_model(model)
    assert not [name for name in tensors if name.startswith("head")]
    assert {str(value.dtype) for value in tensors.values()} == {"float32"}
