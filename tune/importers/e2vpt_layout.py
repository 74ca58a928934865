"""What E²VPT's checkpoints mean, in ours (Han et al., ICCV 2023; ChengHan111/E2VPT).

VPT's names (`vpt_bpt_layouts`), and beside them, in the attention of some or all blocks:

    deep_QKV_embeddings                 [h, n, e] for keys and for values: shared, as the paper's models
    deep_QKV_embeddings_K, …_V          [h, n, e] each
    inherited_layer, inherited_layer_K  the same where blocks share them: values (or both), and keys
    prompt_soft_tokens_mask_cls_token          [m]: pruned tokens, of all blocks' prompts
    prompt_soft_tokens_pieces_mask_cls_token   [m, s]: pruned segments; channel j has mask j mod s

Keys and values stand beside the image's, behind the linears, and are scaled as those are. A pruned token
is a row of zeros there, no missing row: it stays one. Prompts of queries (`QUERY_PROMPT_MODE` 1 to 3)
make another attention and are refused; the shape tells them.
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
    require_shape,
)

from .vpt_bpt_layouts import from_vpt, without_prompts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["from_e2vpt"]

_LEARNED = re.compile(
    r"(?:.*\.)?(?:encoder\.layer|blocks)\.(?P<block>\d{1,3})\.attn\."
    r"(?P<name>deep_QKV_embeddings(?:_[KV])?|inherited_layer(?:_K)?)"
)
_OF_QUERIES = re.compile(r".*deep_QKV_embeddings_(?:addition|secondDim)")
_SHARED = re.compile(
    r"(?:.*\.)?encoder\.deep_QKV_embeddings(?:_[KV])?"
)  # its copies are what is run
_MASK = re.compile(r"(?:.*\.)?prompt_soft_tokens_(?P<pieces>pieces_)?mask_cls_token")
_KINDS = {  # a block's names → which of them are its keys and its values
    ("deep_QKV_embeddings",): ("deep_QKV_embeddings",) * 2,
    ("deep_QKV_embeddings_K", "deep_QKV_embeddings_V"): (
        "deep_QKV_embeddings_K",
        "deep_QKV_embeddings_V",
    ),
    ("inherited_layer",): ("inherited_layer",) * 2,
    ("inherited_layer", "inherited_layer_K"): ("inherited_layer_K", "inherited_layer"),
}


def from_e2vpt(state: Mapping[str, NDArray[Any]], spec: BackboneSpec) -> Foreign:
    """E²VPT's checkpoints.

    Raises:
        AdapterError: names that are missing or not known, shapes that do not fit, or prompts of queries.
    """
    if odd := next((name for name in state if _OF_QUERIES.fullmatch(name)), None):
        raise _of_queries(odd)
    learned: dict[int, dict[str, NDArray[Any]]] = {}
    masks: list[NDArray[np.float64]] = []
    rest: State = {}
    for name, value in state.items():
        if match := _LEARNED.fullmatch(name):
            learned.setdefault(int(match["block"]), {})[match["name"]] = value
        elif match := _MASK.fullmatch(name):
            masks.append(_mask(name, value, spec, pieces=bool(match["pieces"])))
        elif not _SHARED.fullmatch(name):
            rest[name] = value
    if not learned:
        raise missing_names(["….attn.deep_QKV_embeddings (without: --format vpt)"], "e2vpt", state)
    prompts = next((k for k in rest if k.rpartition(".")[2] == "prompt_embeddings"), None)
    bare = prompts is None or not rest[prompts].size
    found = without_prompts(rest, spec) if bare else from_vpt(rest, spec)
    found.method = "e2vpt"
    for mask in masks:
        _prune(found, mask)
    for i, tensors in sorted(learned.items()):
        found.tensors |= _keys_values(i, tensors, spec)
    return found


def _prune(found: Foreign, mask: NDArray[np.float64]) -> None:
    """Multiply the prompts of every block, as the authors' forward pass does."""
    if len(mask) != found.prompt_length:
        raise AdapterError(f"a mask is of {len(mask)} prompts, there are {found.prompt_length}")
    for name in [key for key in found.tensors if key.startswith("prompt.")]:
        found.tensors[name] = (found.tensors[name] * mask).astype(np.float32)


def _keys_values(
    i: int, tensors: Mapping[str, NDArray[Any]], spec: BackboneSpec
) -> dict[str, NDArray[np.float32]]:
    """A block's tensors [h, n, e] as our rows [n, h e]."""
    names = tuple(sorted(tensors))
    if names not in _KINDS:
        raise AdapterError(
            f"block {i} has {' and '.join(names)}, expected one or a pair of _K and _V"
        )
    if i >= spec.depth:
        raise AdapterError(f"keys and values of block {i}, the backbone has {spec.depth} blocks")
    for name in names:
        value, label = tensors[name], f"{name} of block {i}"
        queries = spec.tokens if value.ndim == 3 else -1
        if value.ndim == 3 and value.shape[1] >= queries and value.shape[2] != spec.head_width:
            raise _of_queries(label)
        require_shape(label, value, (spec.heads, None, spec.head_width))
        if len(names) == 1 and value.shape[1] >= queries:
            raise AdapterError(
                f"{label} {value.shape}: {value.shape[1]} keys and values, or as many queries' prompts "
                "(QUERY_PROMPT_MODE); the file does not tell which"
            )
    found = {}
    for kind, name in zip(("keys", "values"), _KINDS[names], strict=True):
        rows = tensors[name].transpose(1, 0, 2).reshape(tensors[name].shape[1], -1)
        found[f"prefix.{i}.{kind}"] = np.ascontiguousarray(rows, dtype=np.float32)
    return found


def _mask(
    name: str, value: NDArray[Any], spec: BackboneSpec, *, pieces: bool
) -> NDArray[np.float64]:
    """What each prompt's channels are multiplied by: [m, 1], or [m, d] of segments."""
    require_shape(name, value, (None, None) if pieces else (None,))
    mask = value.astype(np.float64).reshape(len(value), -1)
    if spec.width % mask.shape[1]:
        raise AdapterError(f"{name} has {mask.shape[1]} segments, which do not divide {spec.width}")
    return np.tile(mask, (1, spec.width // mask.shape[1])) if pieces else mask


def _of_queries(name: str) -> AdapterError:
    return AdapterError(
        f"{name}: prompts of queries (QUERY_PROMPT_MODE 1 to 3) make another attention; keys and values "
        "alone (mode 0, the paper's) can be imported"
    )
