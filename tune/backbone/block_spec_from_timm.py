"""One block of a timm ViT, described: fields of `BackboneSpec`, or reasons for a refusal."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, get_args

import timm
import torch
from timm.layers.activations import GELU, GELUTanh, QuickGELU
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.layers.norm import LayerNorm, RmsNorm
from timm.layers.pos_embed_rel import RelPosMlp
from timm.models import beit, eva, vision_transformer, vision_transformer_relpos
from torch import nn

from vptkit.formats.backbone_spec import Activation, RelativePositions

from .timm_classes import LAYER_SCALES, Attention, AttentionRope

__all__ = ["Refused", "activation_of", "describe_block", "log_mlp_of", "norm_kind"]

Refused = list[str]

_LAYER_NORMS = (nn.LayerNorm, LayerNorm)
_PRE = (
    vision_transformer.Block,
    eva.EvaBlock,
    beit.Block,
    vision_transformer_relpos.RelPosBlock,
)
_POST = (
    vision_transformer.ResPostBlock,
    eva.EvaBlockPostNorm,
    vision_transformer_relpos.ResPostRelPosBlock,
)
_ATTENTIONS = (
    Attention,
    AttentionRope,
    eva.EvaAttention,
    beit.Attention,
    vision_transformer_relpos.RelPosAttention,
)


def describe_block(block: Any, refused: Refused) -> dict[str, Any]:
    """Fields of the spec that a block decides; what it cannot say is appended to `refused`."""
    kind = type(block)
    if kind in (*_PRE, *_POST):
        found = {"block": "post"} if kind in _POST else {}
        return {
            **found,
            **_attention(block.attn, refused),
            **_mlp(block.mlp, refused),
            **_scales(block),
        }
    if kind is vision_transformer.ParallelThingsBlock:
        return _branches(block, refused)
    if kind is vision_transformer.ParallelScalingBlock:
        return _parallel(block, refused)
    refused.append(f"block_fn={kind.__name__}")
    return {}


def norm_kind(model: Any, refused: Refused) -> str:
    """The one kind of all norms in the model, "layer" or "rms"."""
    kinds = set()
    for module in model.modules():
        kind: Any = type(module)
        if kind in _LAYER_NORMS:
            kinds.add("layer")
            if module.weight is None or module.bias is None:
                refused.append("LayerNorm without weight or bias")
        elif kind is RmsNorm:
            kinds.add("rms")
            if module.weight is None:
                refused.append("RmsNorm without weight")
            if not _is_root_mean_square(kind):
                refused.append(f"RmsNorm, which timm {timm.__version__} computes by the variance")
        elif "norm" in type(module).__name__.lower() and not list(module.children()):
            refused.append(f"norm_layer={type(module).__name__}")
    if len(kinds) > 1:
        refused.append("LayerNorm and RmsNorm in one model")
    return "rms" if kinds == {"rms"} else "layer"


@lru_cache(maxsize=1)
def _is_root_mean_square(norm: Any) -> bool:
    """Whether it divides by the root of the mean of squares; 1.0.12's takes the variance."""
    with torch.no_grad(), torch.device("cpu"):
        found = norm(2)(torch.tensor([1.0, 3.0]))
        return bool(torch.allclose(found, torch.tensor([1.0, 3.0]) / 5**0.5, rtol=1e-3))


def activation_of(module: nn.Module) -> Any:
    """Our name for an activation module, or None."""
    names: dict[Any, str] = {
        GELU: "gelu",
        GELUTanh: "gelu_tanh",
        QuickGELU: "quick_gelu",
        nn.SiLU: "silu",
    }
    if type(module) is nn.GELU:
        name = "gelu" if module.approximate == "none" else "gelu_tanh"
    else:
        name = names.get(type(module), "")
    return name if name in get_args(Activation) else None


def log_mlp_of(module: Any, refused: Refused, *, shared: bool) -> RelativePositions | None:
    """The description of timm's RelPosMlp."""
    kind: Any = type(module)
    # before timm 1.0.23 it does not keep what it was made with, and knows these two modes only
    sigmoid = isinstance(getattr(module, "bias_act", None), nn.Sigmoid)
    mode: Any = getattr(module, "mode", "swin" if sigmoid else "cr")
    if kind is not RelPosMlp or mode not in ("cr", "swin"):
        refused.append(f"relative position bias {kind.__name__}")
        return None
    if tuple(getattr(module, "pretrained_window_size", (0, 0))) != (0, 0):
        refused.append("pretrained_window_size of the relative position bias")
    mlp: Any = module.mlp
    return RelativePositions(kind="mlp", shared=shared, hidden=mlp.fc1.out_features, mode=mode)


# attention -------------------------------------------------------------------------------------


def _attention(attn: Any, refused: Refused) -> dict[str, Any]:
    if type(attn) not in _ATTENTIONS:
        refused.append(f"attn_layer={type(attn).__name__}")
        return {}
    if getattr(attn, "gate", None) is not None:
        refused.append("gated attention")
    found: dict[str, Any] = {
        "heads": attn.num_heads,
        "kv_heads": getattr(attn, "num_kv_heads", None),
        "proj_bias": attn.proj.bias is not None,
        "qk_norm": _set(attn, "q_norm"),
        "attention_norm": _set(attn, "norm"),
        **_queries_keys_values(attn),
        **_relative(attn, refused),
    }
    if attn.proj.in_features != attn.proj.out_features:
        refused.append("attn_head_dim")
    return found


def _queries_keys_values(attn: Any) -> dict[str, Any]:
    if attn.qkv is None:
        return {
            "qkv": "separate",
            "qkv_bias": attn.q_proj.bias is not None,
            "key_bias": attn.k_proj.bias is not None or attn.q_proj.bias is None,
        }
    if getattr(attn, "q_bias", None) is not None:
        return {"qkv": "fused_no_key_bias", "qkv_bias": True}
    return {"qkv_bias": attn.qkv.bias is not None}


def _relative(attn: Any, refused: Refused) -> dict[str, Any]:
    if getattr(attn, "rel_pos", None) is not None:
        return {"relative": log_mlp_of(attn.rel_pos, refused, shared=False)}
    if getattr(attn, "relative_position_bias_table", None) is not None:
        return {"relative": RelativePositions(kind="table")}
    return {}


def _set(module: Any, name: str) -> bool:
    return not isinstance(getattr(module, name, nn.Identity()), nn.Identity)


# MLP -------------------------------------------------------------------------------------------


def _mlp(mlp: Any, refused: Refused) -> dict[str, Any]:
    found: dict[str, Any] = {"mlp_norm": _set(mlp, "norm"), "activation": activation_of(mlp.act)}
    if type(mlp) is Mlp and type(mlp.fc1) is nn.Linear:
        found["mlp_width"] = mlp.fc1.out_features
    elif type(mlp) is SwiGLU:
        found |= {"mlp": "swiglu", "mlp_width": mlp.fc1_g.out_features}
    elif type(mlp) is GluMlp and type(mlp.fc1) is nn.Linear and not mlp.gate_last:
        found |= {"mlp": "glu", "mlp_width": mlp.fc1.out_features // 2}
    else:
        refused.append(f"mlp_layer={type(mlp).__name__}")
    if found["activation"] is None:
        refused.append(f"act_layer={type(mlp.act).__name__}")
    return found


def _scales(block: Any) -> dict[str, Any]:
    if getattr(block, "gamma_1", None) is not None:
        both = block.gamma_2 is not None
        return {"layer_scale": True, "scale_names": "gamma", "mlp_scale": both}
    if not hasattr(block, "ls1"):
        return {"layer_scale": False}
    return {"layer_scale": isinstance(block.ls1, LAYER_SCALES)}


# blocks of more than one branch ----------------------------------------------------------------


def _branches(block: Any, refused: Refused) -> dict[str, Any]:
    """18x2: several attentions side by side, then several MLPs."""
    found = [
        {
            **_attention(attn.attn, refused),
            **_mlp(ffn.mlp, refused),
            "layer_scale": isinstance(attn.ls, LAYER_SCALES),
        }
        for attn, ffn in zip(block.attns, block.ffns, strict=True)
    ]
    if any(branch != found[0] for branch in found):
        refused.append("branches that differ from one another")
    return {**found[0], "block": "branches", "branches": block.num_parallel}


def _parallel(block: Any, refused: Refused) -> dict[str, Any]:
    """ViT-22B: attention and MLP of one norm and one linear."""
    activation = activation_of(block.mlp_act)
    if getattr(block, "out_proj", None) is not None:
        refused.append("fuse_out_proj")
        return {}
    if activation is None:
        refused.append(f"act_layer={type(block.mlp_act).__name__}")
    if getattr(block, "qkv_bias", None) is not None:  # before 1.0.25
        refused.append("a parallel block with an MLP bias that this timm adds in the wrong place")
    return {
        "block": "parallel",
        "heads": block.num_heads,
        "mlp_width": block.mlp_out_proj.in_features,
        "activation": activation,
        "qkv_bias": block.in_proj.bias is not None,
        "proj_bias": block.attn_out_proj.bias is not None,
        "qk_norm": _set(block, "q_norm"),
        "layer_scale": isinstance(block.ls, LAYER_SCALES),
    }
