"""A timm model, described: `BackboneSpec` read off the module, or a refusal by feature.

Nothing is guessed from a model's name. Every submodule must be exactly of a type whose forward pass
the compiler reproduces; whatever else is there is named in the refusal. Blocks are read in
`block_spec_from_timm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed_sincos import RotaryEmbeddingCat
from timm.models.beit import Beit, RelativePositionBias
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn

from vptkit.errors import BackboneError
from vptkit.formats.backbone_spec import AttentionPool, BackboneSpec, RelativePositions, Rotary
from vptkit.formats.backbone_weights import is_head, tensor_shapes

from .block_spec_from_timm import Refused, activation_of, describe_block, log_mlp_of, norm_kind
from .timm_classes import RotaryEmbeddingDinoV3, RotaryEmbeddingMixed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["spec_from_model", "weights_from_model"]

_VITS = (VisionTransformer, VisionTransformerDistilled)
_MODELS = (*_VITS, Eva, Beit, VisionTransformerRelPos)


def spec_from_model(model: Any, name: str = "the model") -> BackboneSpec:
    """Describe a timm Vision Transformer completely.

    Args:
        model: a timm module.
        name: how to call it in an error.

    Returns:
        The description; `tensor_shapes` of it lists exactly the module's tensors.

    Raises:
        BackboneError: the module has features that the compiler does not know; all are named.
    """
    if type(model) not in _MODELS:
        raise BackboneError(f"{name}: {_why_not(model)}")
    refused: Refused = []
    spec = _spec(model, refused)
    if spec is None:
        raise BackboneError(f"{name}: not supported yet: {'; '.join(dict.fromkeys(refused))}")
    expected = tensor_shapes(spec)
    found = {
        key: tuple(value.shape) for key, value in model.state_dict().items() if not is_head(key)
    }
    if found != expected:
        odd = sorted(set(found.items()) ^ set(expected.items()))
        raise BackboneError(f"{name}: not supported yet: tensors {odd[:4]}")
    return spec


def weights_from_model(model: nn.Module) -> dict[str, NDArray[np.float32]]:
    """The tensors of a model by timm name as float32, classifier left out."""
    return {
        name: value.detach().cpu().to(torch.float32).numpy()
        for name, value in model.state_dict().items()
        if not is_head(name)
    }


def _why_not(model: Any) -> str:
    """Why another architecture is refused."""
    kind, module = type(model).__name__, type(model).__module__
    start = f"the architecture {kind} ({module}) is not supported"
    if hasattr(model, "layers") and not hasattr(model, "blocks"):
        return (
            f"{start}: its blocks see windows, or shrink the token grid from stage to stage, so a "
            "prompt has no one place beside all tokens and its keys and values are not one "
            "constant. Isotropic ViTs are: timm's vit_*, deit_*, eva_*, eva02_*, beit*."
        )
    return (
        f"{start} yet. Supported are timm's isotropic ViTs: vit_*, deit_*, eva_*, eva02_*, beit*."
    )


def _spec(model: Any, refused: Refused) -> BackboneSpec | None:
    """The description, or None and the reasons."""
    blocks = [describe_block(block, refused) for block in model.blocks]
    kv_heads = tuple(block.pop("kv_heads", None) for block in blocks)
    if any(block != blocks[0] for block in blocks):
        refused.append("blocks that differ from one another")
    fields = {
        **_embedding(model, refused),
        **blocks[0],
        **_positions(model, refused),
        **_pooling(model, refused),
        "depth": len(blocks),
        "norm_eps": _norm_eps(model, refused),
        "norm": norm_kind(model, refused),
    }
    if any(n is not None and n != blocks[0].get("heads") for n in kv_heads):
        fields["kv_heads"] = kv_heads
    return None if refused else BackboneSpec(**fields)


def _embedding(model: Any, refused: Refused) -> dict[str, Any]:
    embed = model.patch_embed
    if type(embed) is not PatchEmbed or type(embed.proj) is not nn.Conv2d:
        refused.append(f"patch embedding {type(embed).__name__}")
        return {}
    if embed.proj.in_channels != 3:
        refused.append(f"in_chans={embed.proj.in_channels}")
    if embed.dynamic_img_pad:
        refused.append("dynamic_img_pad")
    registers = getattr(model, "reg_token", None)
    position = getattr(model, "pos_embed", None)
    patches = embed.grid_size[0] * embed.grid_size[1]
    rows = 0 if position is None else position.shape[1]
    if rows == 0 and isinstance(model, _VITS) and _loses_prefix(model, patches):
        refused.append(f"a class token without positions, which timm {timm.__version__} loses")
    return {
        "image_size": tuple(embed.img_size),
        "patch_size": tuple(embed.patch_size),
        "width": model.embed_dim,
        "patch_bias": embed.proj.bias is not None,
        "patch_norm": not isinstance(embed.norm, nn.Identity),
        "class_token": model.cls_token is not None,
        "dist_token": isinstance(model, VisionTransformerDistilled),
        "registers": 0 if registers is None else registers.shape[1],
        "pos_embed": {0: "none", patches: "patches"}.get(rows, "all"),
        "norm_pre": _has_norm(model, "norm_pre"),
    }


def _loses_prefix(model: Any, patches: int) -> bool:
    """Whether timm's forward pass drops the prefix tokens where there are no positions (before 1.0.27)."""
    tokens = next(model.patch_embed.parameters()).new_zeros(1, patches, model.embed_dim)
    return bool(model._pos_embed(tokens).shape[1] != patches + model.num_prefix_tokens)  # noqa: SLF001


def _has_norm(model: Any, name: str) -> bool:
    return not isinstance(getattr(model, name, nn.Identity()), nn.Identity)


def _norm_eps(model: Any, refused: Refused) -> float:
    found = {
        float(module.eps)
        for name, module in model.named_modules()
        if hasattr(module, "eps") and not is_head(name)
    }
    if len(found) != 1:
        refused.append(f"norms with different epsilons {sorted(found)}")
    return max(found, default=0.0)


def _type(module: Any) -> Any:
    """The exact class; declared Any, so that no type checker narrows what timm leaves untyped."""
    return type(module)


# positions inside attention --------------------------------------------------------------------


def _positions(model: Any, refused: Refused) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rope = getattr(model, "rope", None)
    if rope is not None:
        found["rotary"] = _rotary(rope, model.blocks[0].attn, refused)
    shared = getattr(model, "rel_pos_bias", None) or getattr(model, "shared_rel_pos", None)
    if shared is not None and type(shared) is RelativePositionBias:
        found["relative"] = RelativePositions(kind="table", shared=True)
    elif shared is not None:
        found["relative"] = log_mlp_of(shared, refused, shared=True)
    own = getattr(model.blocks[0], "attn", None)
    if shared is not None and getattr(own, "relative_position_bias_table", None) is not None:
        refused.append("shared and own relative position bias at once")
    return found


def _rotary(rope: Any, attn: Any, refused: Refused) -> Rotary | None:
    # timm's older ropes turn pairs only, and before 1.0.17 count rows first, from zero
    half, kind = bool(getattr(attn, "rotate_half", False)), _type(rope)
    if kind is RotaryEmbeddingMixed:
        return Rotary(kind="mixed", indexing=rope.grid_indexing)
    if bool(getattr(rope, "rotate_half", False)) != half:
        refused.append("rope and attention with different rotate_half")
    if kind is RotaryEmbeddingDinoV3:
        periods = None
        if rope.min_period is not None and rope.max_period is not None:
            periods = (float(rope.min_period), float(rope.max_period))
        return Rotary(
            kind="centered",
            rotate_half=half,
            temperature=float(rope.temperature or 1.0),
            periods=periods,
            indexing=rope.grid_indexing,
            offset=float(rope.grid_offset),
            normalize=rope.normalize_coords,
        )
    grid = getattr(rope, "grid_type", None)
    if kind is not RotaryEmbeddingCat or rope.in_pixels or grid not in (None, "index"):
        refused.append(f"rotary embedding {type(rope).__name__}")
        return None
    reference = rope.ref_feat_shape
    return Rotary(
        kind="axial",
        rotate_half=half,
        temperature=float(rope.temperature),
        indexing=getattr(rope, "grid_indexing", "ij"),
        offset=float(getattr(rope, "grid_offset", 0.0)),
        reference=None if reference is None else tuple(reference),
    )


# pooling ---------------------------------------------------------------------------------------


def _pooling(model: Any, refused: Refused) -> dict[str, Any]:
    final: list[Any] = [name for name in ("norm", "fc_norm") if _has_norm(model, name)]
    if len(final) > 1:
        refused.append("two final norms (norm and fc_norm)")
    pool = "avg" if model.global_pool == "avg" or model.cls_token is None else "token"
    found: dict[str, Any] = {"final_norm": final[0] if final else None, "pool": pool}
    latent = getattr(model, "attn_pool", None)
    if latent is not None:
        found |= {"pool": "map", "attention_pool": _attention_pool(model, latent, refused)}
    elif model.global_pool not in ("", "token", "avg"):
        refused.append(f"global_pool={model.global_pool!r}")
    elif getattr(model, "pool_include_prefix", False):
        refused.append("pool_include_prefix")
    return found


def _attention_pool(model: Any, pool: Any, refused: Refused) -> AttentionPool | None:
    if _type(pool) is not AttentionPoolLatent or _type(pool.mlp) is not Mlp:
        refused.append(f"attention pooling {type(pool).__name__}")
        return None
    odd = {
        "latent_len": pool.latent_len != 1,
        "qk_norm": not isinstance(pool.q_norm, nn.Identity),
        "pos_embed": pool.pos_embed is not None,
        "pool_type": pool.pool != "token",
        "no norm": isinstance(pool.norm, nn.Identity),
        "activation": activation_of(pool.mlp.act) is None,
    }
    refused.extend(
        f"attention pooling with another {name}" for name, is_odd in odd.items() if is_odd
    )
    # Eva pools all tokens, VisionTransformer the patches unless told otherwise.
    whole = isinstance(model, Eva) or bool(getattr(model, "pool_include_prefix", False))
    return AttentionPool(
        heads=pool.num_heads,
        mlp_width=pool.mlp.fc1.out_features,
        activation=activation_of(pool.mlp.act) or "gelu",
        prefix=whole,
    )
