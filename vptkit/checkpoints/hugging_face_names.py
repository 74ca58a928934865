"""Names of transformers' Vision Transformers → timm's: the one table, of modules and of tensors.

ViT, DeiT, MAE, BEiT, DINOv2 (with registers), and the vision towers of CLIP and SigLIP. transformers
renamed the modules of most of them within its version 5 (huggingface/transformers#41693): files of
weights keep the old names, adapters have those of their day, so both stand here:

    vit.encoder.layer.3.attention.attention.query   until then
    vit.layers.3.attention.q_proj                   since

Query, key and value are three linears there and one in timm (`attn.qkv`), and so are the two halves
of a SwiGLU: each is a part of timm's tensor, stacked along its first axis.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Part", "is_left_out", "timm_module", "timm_tensor"]


class Part(NamedTuple):
    """Where something of transformers is in timm.

    Attributes:
        name: of timm's module or tensor.
        index: which of its parts this is, along the first axis.
        count: how many parts of the same size it has; 1 for the whole.
    """

    name: str
    index: int = 0  # type: ignore[assignment]  # nobody asks a part for tuple's methods
    count: int = 1  # type: ignore[assignment]


# what names may begin with: the model within one that has a head, and wrappers around that
_ROOTS = re.compile(
    r"(?:(?:base_model|model|module|vit|deit|beit|dinov2|dinov2_with_registers|data2vec_vision"
    r"|vision_model)\.)*"
)
_BLOCK = re.compile(r"(?:encoder\.)?layers?\.(\d+)\.(.+)")
_QKV, _SWIGLU = "attn.qkv", "mlp.fc1"

# behind the block's number; in each line old names first
_IN_BLOCK: dict[str, Part] = {
    "attention.attention.query": Part(_QKV, 0, 3),
    "attention.attention.key": Part(_QKV, 1, 3),
    "attention.attention.value": Part(_QKV, 2, 3),
    "attention.q_proj": Part(_QKV, 0, 3),
    "attention.k_proj": Part(_QKV, 1, 3),
    "attention.v_proj": Part(_QKV, 2, 3),
    "self_attn.q_proj": Part(_QKV, 0, 3),
    "self_attn.k_proj": Part(_QKV, 1, 3),
    "self_attn.v_proj": Part(_QKV, 2, 3),
    "attention.output.dense": Part("attn.proj"),
    "attention.o_proj": Part("attn.proj"),
    "self_attn.out_proj": Part("attn.proj"),
    "intermediate.dense": Part("mlp.fc1"),
    "mlp.fc1": Part("mlp.fc1"),
    "output.dense": Part("mlp.fc2"),
    "mlp.fc2": Part("mlp.fc2"),
    "mlp.weights_in": Part(_SWIGLU),
    "mlp.gate_proj": Part(_SWIGLU, 0, 2),
    "mlp.up_proj": Part(_SWIGLU, 1, 2),
    "mlp.weights_out": Part("mlp.fc2"),
    "mlp.down_proj": Part("mlp.fc2"),
    "layernorm_before": Part("norm1"),
    "norm1": Part("norm1"),
    "layer_norm1": Part("norm1"),
    "layernorm_after": Part("norm2"),
    "norm2": Part("norm2"),
    "layer_norm2": Part("norm2"),
    "layer_scale1": Part("ls1"),
    "layer_scale2": Part("ls2"),
}
_AROUND: dict[str, Part] = {
    "embeddings.patch_embeddings.projection": Part("patch_embed.proj"),
    "embeddings.patch_embedding": Part("patch_embed.proj"),  # CLIP, SigLIP
    "pre_layrnorm": Part("norm_pre"),  # sic
    "layernorm": Part("norm"),
    "post_layernorm": Part("norm"),
    "pooler.layernorm": Part("fc_norm"),  # BEiT, of the mean over patches
    "head.attention.out_proj": Part("attn_pool.proj"),  # SigLIP
    "head.layernorm": Part("attn_pool.norm"),
    "head.mlp.fc1": Part("attn_pool.mlp.fc1"),
    "head.mlp.fc2": Part("attn_pool.mlp.fc2"),
    "classifier": Part("head"),
    "cls_classifier": Part("head"),  # DeiT with a teacher
    "distillation_classifier": Part("head_dist"),
}
# tensors that are not a module's weight or bias
_TENSORS_IN_BLOCK: dict[str, str] = {
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "lambda_1": "gamma_1",  # BEiT
    "lambda_2": "gamma_2",
    "attention.attention.relative_position_bias.relative_position_bias_table": (
        "attn.relative_position_bias_table"
    ),
    "relative_position_bias.relative_position_bias_table": "attn.relative_position_bias_table",
}
_TENSORS_AROUND: dict[str, str] = {
    "embeddings.cls_token": "cls_token",
    "embeddings.class_embedding": "cls_token",  # CLIP: [d]
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.position_embedding.weight": "pos_embed",  # CLIP, SigLIP: [T, d]
    "encoder.relative_position_bias.relative_position_bias_table": (
        "rel_pos_bias.relative_position_bias_table"
    ),
    "shared_position_bias.relative_position_bias_table": (
        "rel_pos_bias.relative_position_bias_table"
    ),
    "head.probe": "attn_pool.latent",  # SigLIP
}
# what a feature does not depend on
_LEFT_OUT = re.compile(
    r"(?:text_model|text_projection|visual_projection|logit_scale|logit_bias|decoder|lm_head)\b.*"
    r"|embeddings\.(?:mask_token|position_ids)"
    r"|pooler\.dense\..*"  # of ViTModel: tanh of one more linear, trained by nobody
    r"|.*\brelative_position_index"
)


def timm_module(name: str) -> Part | None:
    """Where a module of transformers is in timm.

    Args:
        name: as "vit.encoder.layer.3.attention.attention.query" or "layers.3.attention.q_proj".

    Returns:
        As ("blocks.3.attn.qkv", 0, 3); None for a module that timm has no counterpart of.
    """
    inner = _bare(name)
    block = _BLOCK.fullmatch(inner)
    if block is None:
        return _AROUND.get(inner)
    part = _IN_BLOCK.get(block[2])
    return None if part is None else part._replace(name=f"blocks.{block[1]}.{part.name}")


def timm_tensor(name: str) -> Part | None:
    """Where a tensor of transformers is in timm; None for one that has no counterpart."""
    inner = _bare(name)
    block = _BLOCK.fullmatch(inner)
    if block is None:
        special = _TENSORS_AROUND.get(inner)
    else:
        special = _TENSORS_IN_BLOCK.get(block[2])
        special = None if special is None else f"blocks.{block[1]}.{special}"
    if special is not None:
        return Part(special)
    module, _, kind = name.rpartition(".")
    part = timm_module(module) if kind in ("weight", "bias") else None
    return None if part is None else part._replace(name=f"{part.name}.{kind}")


def is_left_out(name: str) -> bool:
    """Whether a tensor of transformers belongs to what no image feature depends on: a decoder, a text model."""
    return _LEFT_OUT.fullmatch(_bare(name)) is not None


def _bare(name: str) -> str:
    found = _ROOTS.match(name)
    return name if found is None else name[found.end() :]
