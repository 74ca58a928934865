from __future__ import annotations

import pytest

from vptkit.checkpoints.hugging_face_names import Part, is_left_out, timm_module, timm_tensor


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("vit.encoder.layer.3.attention.attention.query", Part("blocks.3.attn.qkv", 0, 3)),
        ("encoder.layer.3.attention.attention.key", Part("blocks.3.attn.qkv", 1, 3)),
        ("vit.layers.3.attention.q_proj", Part("blocks.3.attn.qkv", 0, 3)),
        ("layers.11.attention.v_proj", Part("blocks.11.attn.qkv", 2, 3)),
        ("dinov2.encoder.layer.3.attention.k_proj", Part("blocks.3.attn.qkv", 1, 3)),
        ("vision_model.encoder.layers.0.self_attn.v_proj", Part("blocks.0.attn.qkv", 2, 3)),
        ("vit.encoder.layer.3.attention.output.dense", Part("blocks.3.attn.proj")),
        ("vit.layers.3.attention.o_proj", Part("blocks.3.attn.proj")),
        ("encoder.layers.3.self_attn.out_proj", Part("blocks.3.attn.proj")),
        ("deit.encoder.layer.3.intermediate.dense", Part("blocks.3.mlp.fc1")),
        ("deit.encoder.layer.3.output.dense", Part("blocks.3.mlp.fc2")),
        ("beit.layers.3.mlp.fc2", Part("blocks.3.mlp.fc2")),
        ("dinov2.encoder.layer.3.mlp.weights_in", Part("blocks.3.mlp.fc1")),
        ("dinov2.encoder.layer.3.mlp.up_proj", Part("blocks.3.mlp.fc1", 1, 2)),
        ("vit.encoder.layer.3.layernorm_before", Part("blocks.3.norm1")),
        ("dinov2.encoder.layer.3.norm2", Part("blocks.3.norm2")),
        ("vit.layernorm", Part("norm")),
        ("beit.pooler.layernorm", Part("fc_norm")),
        ("base_model.model.vit.embeddings.patch_embeddings.projection", Part("patch_embed.proj")),
        ("classifier", Part("head")),
    ],
)
def test_modules_of_both_generations(name: str, part: Part) -> None:
    assert timm_module(name) == part
    assert timm_tensor(f"{name}.bias") == part._replace(name=f"{part.name}.bias")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("vit.embeddings.cls_token", "cls_token"),
        ("vision_model.embeddings.position_embedding.weight", "pos_embed"),
        ("dinov2.encoder.layer.3.layer_scale1.lambda1", "blocks.3.ls1.gamma"),
        ("beit.encoder.layer.3.lambda_2", "blocks.3.gamma_2"),
        (
            "beit.encoder.layer.3.attention.attention.relative_position_bias.relative_position_bias_table",
            "blocks.3.attn.relative_position_bias_table",
        ),
        (
            "beit.shared_position_bias.relative_position_bias_table",
            "rel_pos_bias.relative_position_bias_table",
        ),
    ],
)
def test_tensors_that_are_no_weight_of_a_module(name: str, tensor: str) -> None:
    assert timm_tensor(name) == Part(tensor)


@pytest.mark.parametrize(
    "name",
    [
        "text_model.encoder.layers.0.self_attn.q_proj.weight",
        "decoder.decoder_layers.0.attention.q_proj.weight",
        "vit.pooler.dense.weight",
        "dinov2.embeddings.mask_token",
        "visual_projection.weight",
        "logit_scale",
    ],
)
def test_a_text_model_and_a_decoder_are_left_out(name: str) -> None:
    assert is_left_out(name)
    assert timm_tensor(name) is None


@pytest.mark.parametrize("name", ["blocks.3.attn.qkv", "layers.3.mlp.experts", "qformer.layer.1.x"])
def test_other_names_are_unknown(name: str) -> None:
    assert timm_module(name) is None
    assert not is_left_out(name)
