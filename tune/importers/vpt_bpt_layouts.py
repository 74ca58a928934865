"""What other people's tuned tensors mean, in ours: the layouts of VPT's and BPT's code.

    vpt      prompt_embeddings [1, m, q], deep_prompt_embeddings [L - 1, m, q] and perhaps
             prompt_proj (P = E Wᵀ + b), below `enc.transformer.` (supervised) or `enc.` (MAE,
             MoCo-v3), head.last_layer; or shallow_prompt and deep_prompt, as its trainer saves them
    bpt      random_vectors [1 or L, m, p]; conv1x1.weight, or one conv1x1.{i}.weight for each
             block, [d, p, 1, 1] or [d, p]; head: P~ = A Bᵀ, whatever the released code starts
             B from (`methods` 1.8 concerns the start and the loops, not the product)

Prompts stand between the class token and the patches and take no position, as ours. A checkpoint of
VPT or BPT holds the whole model: its frozen part comes back too, to be compared.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import AdapterError
from vptkit.tune.foreign_tensors.imported_tensors import (
    Foreign,
    State,
    missing_names,
    renamed,
    require_shape,
    some,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["from_bpt", "from_vpt", "without_prompts"]
_VPT_PREFIXES = ("enc.transformer.", "transformer.", "enc.", "")
_HEAD = re.compile(r"head\.last_layer\.(weight|bias)")
_JAX_NAMES = (  # VPT's supervised ViT, below enc.transformer. → timm
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.patch_embeddings\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.encoder_norm\.(.*)", r"norm.\1"),
    (r"encoder\.layer\.(\d+)\.attention_norm\.(.*)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.ffn_norm\.(.*)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.ffn\.(fc[12]\..*)", r"blocks.\1.mlp.\2"),
    (r"encoder\.layer\.(\d+)\.attn\.out\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.attn\.(query|key|value)\.(.*)", r"blocks.\1.attn.\2.\3"),
)


def from_vpt(state: Mapping[str, NDArray[Any]], spec: BackboneSpec) -> Foreign:
    """VPT's checkpoints (KMnP/vpt).

    Raises:
        AdapterError: names that are missing or not known, or shapes that do not fit.
    """
    rest = dict(state)
    found = Foreign("vpt")
    if more := [name for name in rest if "deep_QKV_embeddings" in name or "soft_tokens" in name]:
        raise AdapterError(f"has E²VPT's {more[0]}: pass --format e2vpt")
    if "shallow_prompt" in rest:
        embeddings, deep = rest.pop("shallow_prompt"), rest.pop("deep_prompt", None)
        prefix = ""
    else:
        prefix = _prefix(rest)
        embeddings = rest.pop(f"{prefix}prompt_embeddings")
        deep = rest.pop(f"{prefix}deep_prompt_embeddings", None)
    weight = rest.pop(f"{prefix}prompt_proj.weight", None)
    bias = rest.pop(f"{prefix}prompt_proj.bias", None)
    if (weight is None) != (bias is None):
        raise AdapterError(f"{prefix}prompt_proj: weight and bias must both be there")
    found.head = {m[1]: rest.pop(k) for k in list(rest) if (m := _HEAD.fullmatch(k))}
    require_shape("prompt_embeddings", embeddings, (1, None, None))
    rows = [embeddings[0]]
    if deep is not None:
        expected = (spec.depth - 1, *embeddings.shape[1:])
        require_shape("deep_prompt_embeddings", deep, expected)
        rows += list(deep)
    if weight is not None and bias is not None:
        require_shape("prompt_proj.weight", weight, (spec.width, embeddings.shape[2]))
        rows = [row.astype(np.float64) @ weight.T.astype(np.float64) + bias for row in rows]
    for i, row in enumerate(rows):
        require_shape(f"prompts of block {i}", row, (None, spec.width))
        found.tensors[f"prompt.{i}"] = row.astype(np.float32)
    found.insert = "shallow" if deep is None else "deep"
    found.prompt_length = embeddings.shape[1]
    _take_backbone(found, rest, prefix, spec)
    if not found.frozen and "shallow_prompt" in state:
        found.pool = "token"
    return found


def without_prompts(state: Mapping[str, NDArray[Any]], spec: BackboneSpec) -> Foreign:
    """A checkpoint of VPT's models that has no prompts: its head and its backbone.

    Raises:
        AdapterError: names that are not known.
    """
    rest = {k: v for k, v in state.items() if not k.endswith("prompt_embeddings")}
    found = Foreign("vpt")
    found.head = {m[1]: rest.pop(k) for k in list(rest) if (m := _HEAD.fullmatch(k))}
    heads = (
        p
        for p in _VPT_PREFIXES
        if any(k.startswith((f"{p}embeddings.", f"{p}patch_embed.")) for k in rest)
    )
    _take_backbone(found, rest, next(heads, ""), spec)
    return found


def _take_backbone(found: Foreign, rest: State, prefix: str, spec: BackboneSpec) -> None:
    """The frozen part, and how its model pools, as far as it tells."""
    found.frozen = _frozen_of_vpt(rest, prefix)
    fresh = {k: found.frozen.pop(f"fc_norm.{k}", None) for k in ("weight", "bias")}
    if fresh["weight"] is not None:  # MAE: a new norm stands behind the mean, not the backbone's
        found.pool = "avg_prompts"
        found.tensors |= {
            f"ln.{spec.final_norm}.{k}": v.astype(np.float32)
            for k, v in fresh.items()
            if v is not None
        }
    elif found.frozen:
        found.pool = "token"


def from_bpt(state: Mapping[str, NDArray[Any]], spec: BackboneSpec) -> Foreign:
    """BPT's checkpoints (WangYZ1608/BPT).

    Raises:
        AdapterError: names that are missing or not known, or shapes that do not fit.
    """
    rest = dict(state)
    if "random_vectors" not in rest:
        raise missing_names(["random_vectors"], "bpt", state)
    vectors = rest.pop("random_vectors")
    deep = "conv1x1.weight" not in rest
    names = [f"conv1x1.{i}.weight" for i in range(spec.depth)] if deep else ["conv1x1.weight"]
    if missing := [name for name in names if name not in rest]:
        raise missing_names(missing, "bpt", state)
    require_shape("random_vectors", vectors, (len(names), None, None))
    _, m, rank = vectors.shape
    found = Foreign("bpt", insert="deep" if deep else "shallow", prompt_length=m)
    for i, name in enumerate(names):
        kernel = rest.pop(name)
        shape = (spec.width, rank, 1, 1)
        require_shape(name, kernel, shape[: kernel.ndim] if kernel.ndim == 2 else shape)
        found.tensors[f"prompt.{i}.a"] = vectors[i].astype(np.float32)
        found.tensors[f"prompt.{i}.b"] = kernel.reshape(spec.width, rank).astype(np.float32)
    found.head = {k: rest.pop(f"head.{k}") for k in ("weight", "bias") if f"head.{k}" in rest}
    found.frozen = rest
    return found


def _prefix(state: State) -> str:
    for prefix in _VPT_PREFIXES:
        if f"{prefix}prompt_embeddings" in state:
            return prefix
    raise missing_names(["prompt_embeddings or shallow_prompt"], "vpt", state)


def _frozen_of_vpt(rest: State, prefix: str) -> State:
    """The backbone under timm's names; q, k and v of the supervised ViT joined."""
    own = {k.removeprefix(prefix): v for k, v in rest.items() if k.startswith(prefix)}
    if unknown := sorted(set(rest) - {prefix + k for k in own}):
        raise AdapterError(f"names that VPT does not have: {some(unknown)}")
    named = {renamed(k, _JAX_NAMES): v for k, v in own.items()}
    for key in [k for k in named if ".attn.query." in k]:
        parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if missing := [part for part in parts if part not in named]:
            raise AdapterError(f"names are missing: {some(missing)}")
        joined = np.concatenate([named.pop(part) for part in parts])
        named[key.replace(".query.", ".qkv.")] = joined
    return named
