"""What of a file or of settings reaches `timm.create_model`: a model's name, and its architecture.

timm takes more than that: other places to fetch weights from and folders to put them into
(`pretrained_cfg`, `cache_dir`), files to load (`checkpoint_path`), names that are repositories or
folders (`hf-hub:…`, `local-dir:…`). An adapter is a stranger's text, so what is not in the table
below is refused. The numbers are bounded, too: a model is built before its weights are read.

Beside them stand two words of our own, for what timm has no argument of: `norm_eps`, the epsilon of
all norms, and `positions`, whose way of resizing a grid of positions is followed.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from vptkit.errors import BackboneError
from vptkit.schema import abridged, choice, flag, integer, list_of, number, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.schema import Kind

__all__ = ["MOST_PARAMETERS", "POSITIONS", "of_timm", "require_timm_arguments", "require_timm_name"]

MOST_PARAMETERS = 10**10  # timm's largest ViTs have 7 · 10^9
_MOST_PATCHES = 2**14  # 128 x 128; twice the pixels of the largest of timm's ViTs
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_-]{1,100})?")  # architecture and tag


def _one_or(one: Kind, least: int, most: int, many: str) -> Kind:
    """A value, or a list of so many of it."""
    several = list_of(one, most, least=least)

    def kind(value: Any, place: str) -> tuple[str, Any, str] | None:
        problem = one(value, place)
        if problem is None or several(value, place) is None:
            return None
        return place, value, f"{problem[2]}, or {many}"

    return kind


def _size(high: int) -> Kind:
    return _one_or(integer(1, high), 2, 2, "two of them")


_SWITCH = flag()
_RATIO = number(0.01, 64)
_RATE = number(0, 0.99)  # of dropout: frozen backbones have none, whatever it says
_NORM = choice("layernorm", "rmsnorm")
_SWITCHES = (  # VisionTransformer's, then Eva's, BEiT's and those of relative positions
    "attn_only_layer_scale class_token dynamic_img_pad dynamic_img_size fc_norm final_norm fix_init"
    " no_embed_class pool_include_prefix pre_norm proj_bias qk_norm qkv_bias scale_attn_norm"
    " scale_mlp_norm"
    " qkv_fused rope_rotate_half scale_attn_inner scale_mlp swiglu_mlp use_abs_pos_emb use_fc_norm"
    " use_post_norm use_post_transformer_norm use_pre_transformer_norm use_rot_pos_emb"
    " use_rel_pos_bias use_shared_rel_pos_bias"
    " shared_rel_pos"
)
_RATES = "attn_drop_rate drop_path_rate drop_rate patch_drop_rate pos_drop_rate proj_drop_rate"

_ARGUMENTS: dict[str, Kind] = {
    "img_size": _size(4096),
    "patch_size": _size(256),
    "in_chans": integer(1, 4),
    "embed_dim": integer(1, 8192),
    "depth": integer(1, 256),
    "num_heads": integer(1, 256),
    "num_kv_heads": _one_or(integer(1, 256), 1, 256, "one for each block"),
    "mlp_ratio": _RATIO,
    "swiglu_align_to": integer(0, 4096),
    "attn_pool_num_heads": integer(1, 256),
    "attn_pool_mlp_ratio": _RATIO,
    "reg_tokens": integer(0, 1024),
    "num_reg_tokens": integer(0, 1024),
    "rel_pos_dim": integer(1, 4096),
    "ref_feat_shape": _size(4096),
    "init_values": number(-1e3, 1e3),
    "rope_temperature": number(1e-3, 1e9),
    "rope_grid_offset": number(-4096, 4096),
    "rope_grid_indexing": choice("ij", "xy"),
    "rope_type": choice("cat", "mixed", "dinov3"),
    "attn_type": choice("eva", "rope"),
    "rel_pos_type": choice("mlp", "mlp-swin", "bias"),
    "pos_embed": choice("learn", "none", ""),
    "global_pool": choice("", "avg", "avgmax", "max", "token", "map"),
    "act_layer": choice("gelu", "gelu_tanh", "quick_gelu", "silu", "swish", "relu"),
    "norm_layer": _NORM,
    "embed_norm_layer": _NORM,
    **dict.fromkeys(_SWITCHES.split(), _SWITCH),
    **dict.fromkeys(_RATES.split(), _RATE),
}
POSITIONS = ("timm", "hf", "hub")
_OWN: dict[str, Kind] = {"norm_eps": number(1e-20, 1e-2), "positions": choice(*POSITIONS)}


def of_timm(args: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a backbone's arguments that `timm.create_model` takes."""
    return {name: value for name, value in args.items() if name not in _OWN}


def require_timm_name(name: Any) -> None:
    """Refuse what is not the name of one of timm's own models, whether or not there is such a one.

    Raises:
        BackboneError: a repository, a folder, a URL, or no name at all.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BackboneError(
            f"backbone: the name is {abridged(name)}, expected one of timm's models, as "
            "vit_small_patch16_224. Repositories, folders and URLs are not taken."
        )


def require_timm_arguments(args: Any) -> None:
    """Refuse arguments that are not in the table, or out of range.

    Args:
        args: of `timm.create_model`, by name; None leaves an argument at timm's default.

    Raises:
        BackboneError: names the argument, and what is allowed.
    """
    if not isinstance(args, dict):
        raise BackboneError(f"backbone: args is {abridged(args)}, expected arguments by name")
    for name, value in args.items():
        kind = {**_ARGUMENTS, **_OWN}.get(name) if isinstance(name, str) else None
        if kind is None:
            raise BackboneError(
                f"backbone: args has {abridged(name)}, which is no argument of an architecture. "
                f"Allowed are {', '.join(sorted({**_ARGUMENTS, **_OWN}))}."
            )
        if value is not None:
            require(value, kind, "backbone: args", BackboneError, name)
    _require_size({name: value for name, value in args.items() if value is not None})


def _require_size(args: Mapping[str, Any]) -> None:
    """What all numbers together ask for, with those of a usual ViT for what is not said."""
    width, ratio = args.get("embed_dim", 768), args.get("mlp_ratio", 4)
    parameters = args.get("depth", 12) * width**2 * (4 + 3 * ratio)
    if parameters > MOST_PARAMETERS:
        raise BackboneError(
            f"backbone: args: embed_dim, depth and mlp_ratio make {parameters:.2g} parameters; the "
            f"most is {MOST_PARAMETERS:.2g}"
        )
    image, patch = _pair(args.get("img_size", 224)), _pair(args.get("patch_size", 16))
    patches = math.prod(n // size for n, size in zip(image, patch, strict=True))
    if patches > _MOST_PATCHES:
        raise BackboneError(
            f"backbone: args: img_size and patch_size make {patches} patches; the most is "
            f"{_MOST_PATCHES}"
        )


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
