"""Weights under the names of whoever published them → timm's names, as far as no model is needed.

What is done depends on the names alone: the tensor that embeds patches tells whose they are, and
what stands before its name is the prefix of them all. Of several models in one file (a student and
its teacher) one is taken, always the same.

What needs the model (another grid of positions, patches of another size, a few more projects'
names) is left to timm's `checkpoint_filter_fn`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.backbones.stored_tensor import joined
from vptkit.errors import BackboneError

from .hugging_face_names import is_left_out, timm_tensor

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from vptkit.backbones.stored_tensor import StoredTensor

    Numbers = NDArray[Any] | StoredTensor
    Arrays = Mapping[str, Numbers]

__all__ = ["HUGGING_FACE", "Renamed", "in_timm_names", "recognised"]

HUGGING_FACE = "Hugging Face"
_PATCHES = {  # the tensor that embeds patches → whose names these are
    "patch_embed.proj.weight": "timm",
    "embeddings.patch_embeddings.projection.weight": HUGGING_FACE,
    "embeddings.patch_embedding.weight": HUGGING_FACE,
    "conv1.weight": "CLIP",
}
_CLIP_TOKEN = "class_embedding"  # noqa: S105 -- no password
# Of several models in a file: the words that decide, the one to take first; none: between them
_TAKEN = re.compile(r"\b(?:teacher|ema\w*|\w+_ema|base_encoder|target_encoder)\.")
_NOT_TAKEN = re.compile(r"\b(?:student|momentum_encoder|online_encoder|decoder)\.")
_ROOT = re.compile(
    r"(?:vit|deit|beit|dinov2|dinov2_with_registers|data2vec_vision|vision_model)\.$"
)
_CHUNK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.*)")
_UNUSED = re.compile(
    r"decoder_\w+(?:\..*)?|mask_token|(?:.*\.)?relative_position_index|pre_logits\..*"
    r"|(?:dino|ibot)_head\..*|predictor\..*"
)
_MASK, _EVA = "mask_token", ("lm_head.", "storage_tokens", "rope")
_SWIGLU = (("mlp.w12.", "mlp.fc1."), ("mlp.w3.", "mlp.fc2."))
_IN_PROJ = re.compile(r"head\.attention\.in_proj_(weight|bias)")
_EPSILONS = {  # of Hugging Face's classes where no config.json says otherwise; timm's own is 1e-6
    "CLIP": 1e-5,
    "SigLIP": 1e-6,
    "DINOv2": 1e-6,
    "BEiT": 1e-12,
    "DeiT": 1e-12,
    "MAE": 1e-12,
    "ViT": 1e-12,
}


class Renamed(NamedTuple):
    """Tensors in timm's names.

    Attributes:
        arrays: name → numbers.
        project: whose names they had, as "Hugging Face" or "DINOv2"; "" if unknown.
        family: as "ViT", of Hugging Face's.
        prefix: what was taken off every name.
        left_out: names that no feature depends on.
        norm_eps: of the LayerNorms; None: the backbone's own.
        positions: how the project resizes them: "timm", "hf" or "hub".
    """

    arrays: dict[str, Numbers]
    project: str = ""
    family: str = ""
    prefix: str = ""
    left_out: tuple[str, ...] = ()
    norm_eps: float | None = None
    positions: str = "timm"


def recognised(names: Collection[str]) -> bool:
    """Whether names are those of a Vision Transformer of a known project, whatever their prefix."""
    return bool(_models(names))


def in_timm_names(arrays: Arrays) -> Renamed:
    """Tensors in timm's names; as they came where nothing is known of theirs.

    Raises:
        BackboneError: several models, of which none is the one to take; tensors that are no whole.
    """
    models = _models(arrays)
    if not models:
        return Renamed(dict(arrays))
    prefix = _choice(list(models))
    project = models[prefix]
    inner = {name[len(prefix) :]: arrays[name] for name in arrays if name.startswith(prefix)}
    outer = tuple(name for name in arrays if not name.startswith(prefix))
    if project == HUGGING_FACE:
        found = _hugging_face(inner, outer)
        return found._replace(prefix=_ROOT.sub("", prefix), left_out=(*outer, *found.left_out))
    if project == "CLIP":  # timm's filter knows these, behind "visual."
        named = {f"visual.{name}": value for name, value in inner.items()}
        shown = "" if prefix == "visual." else prefix.removesuffix("visual.")
        return Renamed(named, "CLIP", prefix=shown)
    found = _timm(inner)
    return found._replace(prefix=prefix, left_out=(*outer, *found.left_out))


def _models(names: Collection[str]) -> dict[str, str]:
    """The models in a table of tensors: prefix → whose names they are."""
    found = {}
    for name in names:
        for patches, project in _PATCHES.items():
            prefix = name.removesuffix(patches)
            if prefix == name or (prefix and not prefix.endswith(".")):
                continue
            if project != "CLIP" or f"{prefix}{_CLIP_TOKEN}" in names:
                found[prefix] = project
    return found


def _choice(prefixes: list[str]) -> str:
    ranked = sorted(prefixes, key=_rank)
    best = [prefix for prefix in ranked if _rank(prefix) == _rank(ranked[0])]
    if len(best) > 1:
        raise BackboneError(
            f"several models in one file, under {', '.join(best[:5])}: write the one that is meant "
            "into a file of its own"
        )
    return best[0]


def _rank(prefix: str) -> tuple[int, int]:
    if not prefix:
        return 0, 0
    if _TAKEN.search(prefix):
        return 1, int(_NOT_TAKEN.search(prefix) is not None)
    return 2 + int(_NOT_TAKEN.search(prefix) is not None), 0


# names of timm, and of those who write like it ---------------------------------------------------


def _timm(arrays: Arrays) -> Renamed:
    """MAE, DINO, MoCo v3 and DINOv2 name tensors as timm does, but for a few."""
    masked = any(name.startswith(_EVA) for name in arrays)  # timm asks for EVA's mask_token
    left_out = tuple(n for n in arrays if _UNUSED.fullmatch(n) and not (masked and n == _MASK))
    kept = {name: value for name, value in arrays.items() if name not in left_out}
    project = "timm"
    if _MASK in arrays and not masked and any(name.endswith(".ls1.gamma") for name in kept):
        project = "DINOv2"
    elif any(name.startswith("decoder_") for name in left_out):
        project = "MAE"
    chunked = _without_chunks(kept)
    for name in list(chunked):
        for theirs, ours in _SWIGLU:
            if theirs in name and name.startswith("blocks."):
                chunked[name.replace(theirs, ours)] = chunked.pop(name)
    if "register_tokens" in chunked:
        chunked["reg_token"] = chunked.pop("register_tokens")
        _fold_class_position(chunked)
    positions = "hub" if project == "DINOv2" else "timm"
    return Renamed(chunked, project, left_out=left_out, positions=positions)


def _without_chunks(arrays: Arrays) -> dict[str, Numbers]:
    """DINOv2's training keeps blocks in chunks, `blocks.CHUNK.N`, with N counted over all of them."""
    found: dict[str, Numbers] = {}
    for name, value in arrays.items():
        chunk = _CHUNK.fullmatch(name)
        plain = name if chunk is None else f"blocks.{chunk[2]}.{chunk[3]}"
        if plain in found:
            raise BackboneError(f"{plain} is there twice, in two chunks of blocks")
        found[plain] = value
    return found


def _fold_class_position(arrays: dict[str, Numbers]) -> None:
    """DINOv2's registers have no position; timm then keeps positions of patches alone.

    The class token's position is added to the class token, which is the same sum.
    """
    positions, token = arrays.get("pos_embed"), arrays.get("cls_token")
    if positions is None or token is None or positions.ndim != 3 or token.ndim != 3:
        return
    rows = np.asarray(positions)
    arrays["cls_token"] = np.asarray(token) + rows[:, :1]
    arrays["pos_embed"] = rows[:, 1:]


# names of transformers -----------------------------------------------------------------------------


def _hugging_face(arrays: Arrays, outer: Collection[str]) -> Renamed:
    family = _family(arrays, outer)
    parts: dict[str, dict[int, Numbers]] = {}
    counts: dict[str, int] = {}
    found: dict[str, Numbers] = {}
    left_out = []
    for name, value in arrays.items():
        part = timm_tensor(name)
        in_proj = _IN_PROJ.fullmatch(name)
        if in_proj is not None:
            rows = np.asarray(value)
            third = len(rows) // 3
            found[f"attn_pool.q.{in_proj[1]}"] = rows[:third]
            found[f"attn_pool.kv.{in_proj[1]}"] = rows[third:]
        elif part is not None:
            parts.setdefault(part.name, {})[part.index] = value
            counts[part.name] = part.count
        elif is_left_out(name):
            left_out.append(name)
        else:
            found[name] = value
    for name, pieces in parts.items():
        found |= _joined(name, pieces, counts[name])
    _shape_tokens(found)
    if "reg_token" in found:
        _fold_class_position(found)
    return Renamed(
        found,
        HUGGING_FACE,
        family,
        left_out=tuple(left_out),
        norm_eps=_EPSILONS[family],
        positions="hf",
    )


def _family(arrays: Arrays, outer: Collection[str]) -> str:
    names = set(arrays)
    if "embeddings.class_embedding" in names:
        return "CLIP"
    if "embeddings.position_embedding.weight" in names:
        return "SigLIP"
    if any(name.endswith(".norm1.weight") for name in names):
        return "DINOv2"
    if any(name.endswith(".lambda_1") or "relative_position" in name for name in names):
        return "BEiT"
    if "embeddings.distillation_token" in names:
        return "DeiT"
    return "MAE" if any(name.startswith("decoder.") for name in outer) else "ViT"


def _joined(name: str, pieces: dict[int, Numbers], count: int) -> dict[str, Numbers]:
    """One tensor of timm's of its parts; of a bias that the keys lack, BEiT's two."""
    if sorted(pieces) == list(range(count)):
        several = [pieces[i] for i in range(count)]
        return {name: several[0] if count == 1 else joined(several)}
    if name.endswith("attn.qkv.bias") and sorted(pieces) == [0, 2]:
        head = name.removesuffix("qkv.bias")
        return {f"{head}q_bias": pieces[0], f"{head}v_bias": pieces[2]}
    raise BackboneError(f"of {name} only {len(pieces)} of {count} parts are there")


def _shape_tokens(arrays: dict[str, Numbers]) -> None:
    """CLIP and SigLIP have tokens and positions without the first axis."""
    token, positions = arrays.get("cls_token"), arrays.get("pos_embed")
    if token is not None and token.ndim == 1:
        arrays["cls_token"] = np.asarray(token)[None, None]
    if positions is not None and positions.ndim == 2:
        arrays["pos_embed"] = np.asarray(positions)[None]
    patches = arrays.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 2:
        raise BackboneError(
            "the patch embedding is a linear of flat patches, as NaFlex models of any size have: "
            "timm has these under names of their own (vptkit backbones naflex)"
        )
