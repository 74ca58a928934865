"""A timm model, described: `BackboneSpec` read off the module, or a refusal by feature.

Nothing is guessed from a model's name. Every submodule must be exactly of a type whose forward pass
the compiler reproduces; whatever else is there is named in the refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import torch
from timm.layers.activations import GELU, GELUTanh, QuickGELU
from timm.layers.attention import Attention
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vptkit.backbone import Activation, BackboneSpec, is_head, tensor_shapes
from vptkit.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["spec_from_model", "weights_from_model"]

_NORMS = (nn.LayerNorm, LayerNorm)


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
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise BackboneError(
            f"{name}: the architecture {type(model).__name__} ({type(model).__module__}) is not "
            "supported yet. Supported are timm's plain Vision Transformers (vit_*, deit_*)."
        )
    unknown = list(dict.fromkeys(_unknown_features(model)))
    if unknown:
        raise BackboneError(f"{name}: not supported yet: {'; '.join(unknown)}")
    spec = _spec(model)
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


def _spec(model: Any) -> BackboneSpec:
    block, embed = model.blocks[0], model.patch_embed
    patches = embed.grid_size[0] * embed.grid_size[1]
    pos_embed: Any
    if model.pos_embed is None:
        pos_embed = "none"
    else:
        pos_embed = "patches" if model.pos_embed.shape[1] == patches else "all"
    final: list[Any] = [n for n in ("norm", "fc_norm") if isinstance(getattr(model, n), _NORMS)]
    return BackboneSpec(
        image_size=tuple(embed.img_size),
        patch_size=tuple(embed.patch_size),
        width=model.embed_dim,
        depth=len(model.blocks),
        heads=block.attn.num_heads,
        mlp_width=block.mlp.fc1.out_features,
        activation=_activation(block.mlp.act),
        qkv_bias=block.attn.qkv.bias is not None,
        proj_bias=block.attn.proj.bias is not None,
        patch_bias=embed.proj.bias is not None,
        norm_eps=float(block.norm1.eps),
        class_token=model.cls_token is not None,
        dist_token=isinstance(model, VisionTransformerDistilled),
        registers=0 if model.reg_token is None else model.reg_token.shape[1],
        pos_embed=pos_embed,
        norm_pre=isinstance(model.norm_pre, _NORMS),
        layer_scale=isinstance(block.ls1, LayerScale),
        final_norm=final[0] if final else None,
        pool="avg" if model.global_pool == "avg" or model.cls_token is None else "token",
    )


def _unknown_features(model: Any) -> Iterator[str]:
    """Each feature of the model that the compiler does not know, by timm's own name."""
    embed = model.patch_embed
    if type(embed) is not PatchEmbed or type(embed.proj) is not nn.Conv2d:
        yield f"patch embedding {type(embed).__name__}"
        return
    if not isinstance(embed.norm, nn.Identity):
        yield "embed_norm_layer (a norm inside the patch embedding)"
    if embed.proj.in_channels != 3:
        yield f"in_chans={embed.proj.in_channels}"
    if embed.dynamic_img_pad:
        yield "dynamic_img_pad"
    if model.attn_pool is not None or model.global_pool not in ("", "token", "avg"):
        yield f"global_pool={model.global_pool!r}"
    elif model.pool_include_prefix:
        yield "pool_include_prefix"
    for module in (model.norm_pre, model.norm, model.fc_norm):
        yield from _unknown_norm(module, optional=True)
    for block in model.blocks:
        yield from _unknown_in_block(block)
    if len({module.eps for module in model.modules() if isinstance(module, _NORMS)}) > 1:
        yield "LayerNorms with different epsilons"


def _unknown_in_block(block: Any) -> Iterator[str]:
    if type(block) is not Block:
        yield f"block_fn={type(block).__name__}"
        return
    attn, mlp = block.attn, block.mlp
    if type(attn) is not Attention:
        yield f"attn_layer={type(attn).__name__}"
    else:
        yield from _unknown_in_attention(attn)
    if type(mlp) is not Mlp or type(mlp.fc1) is not nn.Linear:
        yield f"mlp_layer={type(mlp).__name__}"
    else:
        if _activation(mlp.act) is None:
            yield f"act_layer={type(mlp.act).__name__}"
        if not isinstance(mlp.norm, nn.Identity):
            yield "scale_mlp_norm (a norm inside the MLP)"
    yield from _unknown_norm(block.norm1)
    yield from _unknown_norm(block.norm2)


def _unknown_in_attention(attn: Any) -> Iterator[str]:
    if not isinstance(attn.q_norm, nn.Identity) or not isinstance(attn.k_norm, nn.Identity):
        yield "qk_norm"
    if not isinstance(attn.norm, nn.Identity):
        yield "scale_attn_norm (a norm inside the attention)"
    if getattr(attn, "gate", None) is not None:
        yield "gated attention"
    if attn.qkv.out_features != 3 * attn.qkv.in_features:
        yield "attn_head_dim"


def _unknown_norm(module: nn.Module, *, optional: bool = False) -> Iterator[str]:
    if optional and isinstance(module, nn.Identity):
        return
    if type(module) not in _NORMS:
        yield f"norm_layer={type(module).__name__}"
    elif getattr(module, "weight", None) is None or getattr(module, "bias", None) is None:
        yield "LayerNorm without weight or bias"


def _activation(module: nn.Module) -> Any:
    """Our name for an activation module, or None."""
    names: dict[Any, str] = {GELU: "gelu", GELUTanh: "gelu_tanh", QuickGELU: "quick_gelu"}
    if type(module) is nn.GELU:
        name = "gelu" if module.approximate == "none" else "gelu_tanh"
    else:
        name = names.get(type(module), "")
    return name if name in get_args(Activation) else None
