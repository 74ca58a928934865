"""A folder as a hub has it: what its documents say of the model, and of its pictures.

    config.json               of transformers (`model_type`) or of timm (`architecture`)
    preprocessor_config.json  of transformers: pixels

From these follow a backbone of timm and arguments that make it the same, so that nobody has to
name one; and what no tensor tells: the epsilon of the norms, the activation, mean and deviation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.backbones.backbone_table import all_backbones
from vptkit.backbones.timm_arguments import require_timm_arguments, require_timm_name
from vptkit.errors import BackboneError
from vptkit.schema import choice, integer, list_of, number, require

from .weights_files import folder_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Pixels", "Snapshot", "read_snapshot"]

_FAMILIES = {
    "vit": "ViT",
    "vit_msn": "ViT",
    "vit_mae": "MAE",
    "deit": "DeiT",
    "dinov2": "DINOv2",
    "dinov2_with_registers": "DINOv2 with registers",
    "beit": "BEiT",
    "data2vec-vision": "BEiT",
    "clip_vision_model": "CLIP",
    "siglip_vision_model": "SigLIP",
}
_TOWERS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
_USUAL: dict[str, Any] = {  # where config.json leaves a value out: transformers' default
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
_USUAL_OF: dict[str, dict[str, Any]] = {
    "CLIP": {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "SigLIP": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    "DINOv2": {"patch_size": 14, "layer_norm_eps": 1e-6},
    "DINOv2 with registers": {"layer_norm_eps": 1e-6, "num_register_tokens": 4},
}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
}
_NAMES = {  # the family's names in timm, and the one that others are made of by arguments
    "ViT": ("vit_{size}_patch{patch}_{image}", "vit_base_patch16_224"),
    "MAE": ("vit_{size}_patch{patch}_{image}", "vit_base_patch16_224"),
    "DeiT": ("deit_{size}_distilled_patch{patch}_{image}", "deit_base_distilled_patch16_224"),
    "DINOv2": ("vit_{size}_patch{patch}_dinov2", "vit_base_patch14_dinov2"),
    "DINOv2 with registers": (
        "vit_{size}_patch{patch}_reg4_dinov2",
        "vit_base_patch14_reg4_dinov2",
    ),
    "BEiT": ("beit_{size}_patch{patch}_{image}", "beit_base_patch16_224"),
    "CLIP": ("vit_{size}_patch{patch}_clip_{image}", "vit_base_patch16_clip_224"),
    "SigLIP": ("vit_{size}_patch{patch}_siglip_{image}", "vit_base_patch16_siglip_224"),
}
_GIANTS = {  # of a SwiGLU, which no argument makes
    "DINOv2": "vit_giant_patch14_dinov2",
    "DINOv2 with registers": "vit_giant_patch14_reg4_dinov2",
}
_SIZES = {  # width, depth, heads, rows of the MLP → timm's word
    (192, 12, 3, 768): "tiny",
    (384, 12, 6, 1536): "small",
    (768, 12, 12, 3072): "base",
    (1024, 24, 16, 4096): "large",
    (1280, 32, 16, 5120): "huge",
    (1536, 40, 24, 4096): "giant",  # SwiGLU
    (1152, 27, 16, 4304): "so400m",
}
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # of Pillow, by number
_COUNT, _SIDE = integer(1, 8192), integer(1, 4096)


class Pixels(NamedTuple):
    """What a publisher does to images.

    Attributes:
        mean, std: per channel, for pixels in 0..1.
        interpolation, crop_pct: of `vptkit.images.preprocess.Preprocess`.
        size: (height, width); None where it is not said.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    size: tuple[int, int] | None


class Snapshot(NamedTuple):
    """What the documents of a folder say.

    Attributes:
        family: as "ViT"; "timm" of timm's.
        backbone, args: of `timm.create_model`; None where nothing follows.
        norm_eps, activation: None where nothing is said.
        pixels: None where nothing is said.
    """

    family: str
    backbone: str | None
    args: dict[str, Any]
    norm_eps: float | None
    activation: str | None
    pixels: Pixels | None


def read_snapshot(folder: Path) -> Snapshot | None:
    """What a folder's documents say; None where it has no config.json that is known.

    Raises:
        BackboneError: a document is not readable, or says what cannot be.
    """
    config = folder_json(folder, "config.json")
    if config is None:
        return None
    source = folder / "config.json"
    if isinstance(config.get("architecture"), str):
        return _timm(config, source)
    kind = config.get("model_type")
    if kind in _TOWERS:
        kind, inner = _TOWERS[kind], config.get("vision_config")
        config = inner if isinstance(inner, dict) else {}
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        return None
    values = {**_USUAL, **_USUAL_OF.get(family, {}), **_said(config)}
    pixels = _pixels(folder_json(folder, "preprocessor_config.json"), folder)
    name, args = _backbone(family, values, pixels, source)
    require(values["layer_norm_eps"], number(1e-20, 1e-2), source, BackboneError, "layer_norm_eps")
    swiglu = family.startswith("DINOv2") and values.get("use_swiglu_ffn")
    activation = None if swiglu else _activation(values["hidden_act"], source)
    return Snapshot(family, name, args, float(values["layer_norm_eps"]), activation, pixels)


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}


def _activation(word: Any, source: Path) -> str:
    if word not in _ACTIVATIONS:
        raise BackboneError(
            f"{source}: hidden_act is {str(word)[:40]!r}, expected one of {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[word]


# the backbone --------------------------------------------------------------------------------------


def _backbone(
    family: str, values: Mapping[str, Any], pixels: Pixels | None, source: Path
) -> tuple[str, dict[str, Any]]:
    """Timm's name, and the arguments that make it what config.json says."""
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
        require(values[name], _COUNT, source, BackboneError, name)
    for name in ("image_size", "patch_size"):
        require(values[name], _SIDE, source, BackboneError, name)
    width, hidden = values["hidden_size"], _hidden(family, values, source)
    heads, depth = values["num_attention_heads"], values["num_hidden_layers"]
    size = _SIZES.get((width, depth, heads, hidden))
    image = values["image_size"]
    if family.startswith("DINOv2") and pixels is not None and pixels.size is not None:
        image = pixels.size[0]  # the others take images of their own size only
    args: dict[str, Any] = {}
    name, own = _named(family, size, values["patch_size"], image) or ("", -1)
    if not name:
        swiglu = bool(values.get("use_swiglu_ffn"))
        name = _GIANTS[family] if swiglu and family in _GIANTS else _NAMES[family][1]
        args = {"embed_dim": width, "depth": depth, "num_heads": heads}
        args |= {"mlp_ratio": hidden * (2 if swiglu else 1) / width}
        args |= {"patch_size": values["patch_size"]}
    if image != own:
        args["img_size"] = image
    args |= _switches(family, values)
    _require_of_timm(name, args, source)
    return name, args


def _require_of_timm(name: Any, args: Any, source: Path) -> None:
    try:
        require_timm_name(name)
        require_timm_arguments(args)
    except BackboneError as error:
        raise BackboneError(f"{source}: {error}") from error


def _hidden(family: str, values: Mapping[str, Any], source: Path) -> int:
    """Rows of the MLP's inner layer; of a SwiGLU of one of its halves."""
    if not family.startswith("DINOv2"):
        found = values.get("intermediate_size", 4 * 768)
    else:
        require(values.get("mlp_ratio", 4), number(0.01, 64), source, BackboneError, "mlp_ratio")
        found = int(values["hidden_size"] * values.get("mlp_ratio", 4))
        if values.get("use_swiglu_ffn"):
            found = (int(found * 2 / 3) + 7) // 8 * 8
    require(found, integer(1, 65536), source, BackboneError, "intermediate_size")
    return int(found)


def _named(family: str, size: str | None, patch: int, image: int) -> tuple[str, int] | None:
    """Timm's name of a usual size, and its image: of that size, or another of the same tensors."""
    template = _NAMES[family][0]
    if size is not None:
        known = {one.name: one.image[0] for one in all_backbones()}
        exact = template.format(size=size, patch=patch, image=image)
        if exact in known:
            return exact, known[exact]
        like = re.compile(template.format(size=size, patch=patch, image=r"(\d+)"))
        other = sorted((name for name in known if like.fullmatch(name)), key=lambda n: known[n])
        if other:
            return other[0], known[other[0]]
    return None


def _switches(family: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of what a model has or has not."""
    found: dict[str, Any] = {}
    if values.get("qkv_bias") is False:
        found["qkv_bias"] = False
    if family == "DINOv2 with registers" and values["num_register_tokens"] != 4:
        found["reg_tokens"] = values["num_register_tokens"]
    if family == "BEiT":
        for theirs, ours, usual in (
            ("use_absolute_position_embeddings", "use_abs_pos_emb", False),
            ("use_relative_position_bias", "use_rel_pos_bias", True),
            ("use_shared_relative_position_bias", "use_shared_rel_pos_bias", False),
        ):
            if bool(values.get(theirs, False)) is not usual:
                found[ours] = not usual
    return found


def _timm(config: Mapping[str, Any], source: Path) -> Snapshot:
    """A folder as timm's `push_to_hf_hub` writes it."""
    own = config.get("pretrained_cfg")
    own = own if isinstance(own, dict) else config  # before 2023 all in one
    args = config.get("model_args")
    args = dict(args) if isinstance(args, dict) else {}
    _require_of_timm(config["architecture"], args, source)
    mean, std = own.get("mean"), own.get("std")
    pixels = None
    if mean is not None and std is not None:
        size = own.get("input_size")
        sides = None
        if size is not None:
            require(size, list_of(_SIDE, 3, least=3), source, BackboneError, "input_size")
            sides = int(size[1]), int(size[2])
        pixels = Pixels(
            _three(mean, source, "mean"),
            _three(std, source, "std"),
            _filter(own.get("interpolation", "bicubic"), source),
            _share(own.get("crop_pct", 0.875), source),
            sides,
        )
    name = str(config["architecture"])
    usual = next((one.image for one in all_backbones() if one.name == name), None)
    if pixels is not None and pixels.size is not None and usual not in (None, pixels.size):
        args.setdefault("img_size", list(pixels.size))
    return Snapshot("timm", name, args, None, None, pixels)


# pixels --------------------------------------------------------------------------------------------


def _pixels(document: Mapping[str, Any] | None, folder: Path) -> Pixels | None:
    """Of preprocessor_config.json; older ones leave out most."""
    if document is None:
        return None
    source = folder / "preprocessor_config.json"
    factor = document.get("rescale_factor", 1 / 255)
    require(factor, number(0, 1e3), source, BackboneError, "rescale_factor")
    if document.get("do_rescale") is False or abs(factor * 255 - 1) > 1e-3:
        raise BackboneError(
            f"{source}: pixels are not scaled to 0..1 (rescale_factor {factor}), which is all that "
            "is known here: pass the file of weights instead of the folder"
        )
    if document.get("do_normalize", True):
        if document.get("image_mean") is None or document.get("image_std") is None:
            return None  # its class has defaults, of which the file says nothing
        mean = _three(document["image_mean"], source, "image_mean")
        std = _three(document["image_std"], source, "image_std")
    else:
        mean, std = (0.0,) * 3, (1.0,) * 3
    resample = document.get("resample", 2)
    if resample not in _FILTERS:
        raise BackboneError(f"{source}: resample is {resample!r}, expected one of {list(_FILTERS)}")
    size, crop = _side(document.get("size")), _side(document.get("crop_size"))
    cropped = document.get("do_center_crop", crop is not None) and crop is not None
    seen = crop if cropped else size
    share = min(1.0, crop[0] / size[0]) if cropped and crop and size else 1.0
    return Pixels(mean, std, _FILTERS[resample], share, seen)


def _side(size: Any) -> tuple[int, int] | None:
    """Height and width: a number, a pair by name, or the shorter side."""
    if isinstance(size, dict):
        short = size.get("shortest_edge")
        pair = (short, short) if short is not None else (size.get("height"), size.get("width"))
    else:
        pair = (size, size)
    whole = all(type(one) is int and 1 <= one <= 4096 for one in pair)
    return (int(pair[0]), int(pair[1])) if whole else None  # type: ignore[arg-type]


def _three(values: Any, source: Path, name: str) -> tuple[float, ...]:
    require(values, list_of(number(-1e3, 1e3), 3, least=3), source, BackboneError, name)
    return tuple(map(float, values))


def _filter(value: Any, source: Path) -> str:
    require(value, choice(*_FILTERS.values()), source, BackboneError, "interpolation")
    return str(value)


def _share(value: Any, source: Path) -> float:
    require(value, number(0.1, 1), source, BackboneError, "crop_pct")
    return float(value)
