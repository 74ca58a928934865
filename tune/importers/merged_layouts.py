"""Tuned tensors of SSF's and RepAdapter's code: they merge into weights, so that they cost nothing.

    ssf         {module}.ssf_scale_{1,2} and ssf_shift_{1,2} [n]: x * scale + shift behind the first and
                the second linear of `patch_embed`, `blocks.{i}.attn` and `blocks.{i}.mlp`, behind the
                two norms of `blocks.{i}`, and behind the final norm (dongzelian/SSF)
    repadapter  blocks.{i}.adapter_{attn,mlp}.conv_{A,B}.{weight,bias}: x + s (B (A x + a) + b) before
                the attention's or the MLP's first linear, B in groups (luogen1996/RepAdapter)

Both are timm models, with a classifier `head`. SSF's checkpoints hold the frozen model too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.checkpoints.hugging_face_names import Part
from vptkit.errors import AdapterError
from vptkit.formats.backbone_weights import norm_shapes
from vptkit.formats.weight_deltas import LowRank, WeightDelta
from vptkit.tune.foreign_tensors.imported_tensors import (
    Foreign,
    missing_names,
    require_shape,
    some,
)
from vptkit.tune.foreign_tensors.module_changes import changed_modules, changed_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

    Weights = Mapping[str, NDArray[np.float32]]

__all__ = ["from_repadapter", "from_ssf"]

_SSF = re.compile(r"(?:(.+)\.)?ssf_(scale|shift)_([12])")
_SSF_PLACES = (  # whose scale it is, which one, and what stands before it
    (r"patch_embed", "1", "patch_embed.proj"),
    (r"patch_embed", "2", "patch_embed.norm"),
    (r"(blocks\.\d+)", "1", r"\1.norm1"),
    (r"(blocks\.\d+)", "2", r"\1.norm2"),
    (r"(blocks\.\d+\.attn)", "1", r"\1.qkv"),
    (r"(blocks\.\d+\.attn)", "2", r"\1.proj"),
    (r"(blocks\.\d+\.mlp)", "1", r"\1.fc1"),
    (r"(blocks\.\d+\.mlp)", "2", r"\1.fc2"),
    (r"", "1", "norm"),
)
_REP = re.compile(r"(blocks\.\d+)\.adapter_(attn|mlp)\.(conv_[AB]\.(?:weight|bias))")
_BEHIND = {"attn": "attn.qkv", "mlp": "mlp.fc1"}


def from_ssf(state: Mapping[str, NDArray[Any]], spec: BackboneSpec, weights: Weights) -> Foreign:
    """SSF's checkpoints.

    Args:
        state: the file's tensors.
        spec, weights: of the backbone.

    Raises:
        AdapterError: names that are missing or not known, or shapes that do not fit.
    """
    pairs: dict[str, dict[str, NDArray[Any]]] = {}
    rest = {}
    for name, value in state.items():
        if match := _SSF.fullmatch(name):
            pairs.setdefault(_behind(name, match[1] or "", match[3], weights), {})[match[2]] = value
        else:
            rest[name] = value
    if not pairs:
        raise missing_names(["*.ssf_scale_1"], "ssf", state)
    found = Foreign("ssf")
    found.head = {k: rest.pop(f"head.{k}") for k in ("weight", "bias") if f"head.{k}" in rest}
    norms, changes = norm_shapes(spec), {}
    for module, pair in pairs.items():
        if set(pair) != {"scale", "shift"}:
            raise AdapterError(f"scale and shift behind {module} must both be there")
        out = weights[f"{module}.weight"].shape[0]
        for end, value in pair.items():
            require_shape(f"the {end} behind {module}", value, (out,))
        scale, shift = (pair[end].astype(np.float64) for end in ("scale", "shift"))
        if f"{module}.weight" in norms:
            new = weights[f"{module}.weight"] * scale
            found.tensors |= changed_tensor(f"{module}.weight", new, weights, norms)
        else:
            changes[Part(module)] = WeightDelta(out_scale=scale)
        if f"{module}.bias" not in weights:
            raise AdapterError(f"{module} has no bias in this backbone, to which a shift adds")
        new = weights[f"{module}.bias"] * scale + shift
        found.tensors |= changed_tensor(f"{module}.bias", new, weights, norms)
    found.tensors |= changed_modules(changes, weights)
    replaced = {name[3:] for name in found.tensors if name.startswith("ln.")}
    found.frozen = {name: value for name, value in rest.items() if name not in replaced}
    return found


def _behind(name: str, owner: str, number: str, weights: Weights) -> str:
    """The module whose output a scale or shift changes.

    Raises:
        AdapterError: SSF has none there, or the backbone lacks it.
    """
    for pattern, which, module in _SSF_PLACES:
        match = re.fullmatch(pattern, owner)
        if match and which == number and f"{match.expand(module)}.weight" in weights:
            return match.expand(module)
    raise AdapterError(f"{name} stands behind no module that this backbone has")


def from_repadapter(
    state: Mapping[str, NDArray[Any]], spec: BackboneSpec, weights: Weights, scale: float
) -> Foreign:
    """RepAdapter's files: what was trained, and the classifier.

    Args:
        state: the file's tensors.
        spec, weights: of the backbone.
        scale: s, which is in its configuration (configs/*/*.yaml) and in no file of tensors.

    Raises:
        AdapterError: names that are missing or not known, or shapes that do not fit.
    """
    adapters: dict[str, dict[str, NDArray[Any]]] = {}
    found, unknown = Foreign("repadapter"), []
    for name, value in state.items():
        match = _REP.fullmatch(name)
        if match and f"{match[1]}.{_BEHIND[match[2]]}.weight" in weights:
            adapters.setdefault(f"{match[1]}.{_BEHIND[match[2]]}", {})[match[3]] = value
        elif name in ("head.weight", "head.bias"):
            found.head[name.removeprefix("head.")] = value
        else:
            unknown.append(name)
    if unknown:
        raise AdapterError(f"names that RepAdapter or this backbone does not have: {some(unknown)}")
    kinds = {module.split(".", 2)[2] for module in adapters} or {"attn.qkv"}
    expected = {f"blocks.{i}.{kind}" for i in range(spec.depth) for kind in kinds}
    if missing := sorted(expected - set(adapters)):
        raise missing_names([f"an adapter before {m}" for m in missing], "repadapter", state)
    changes = {}
    for module, tensors in adapters.items():
        low, shift = _reparameterised(module, tensors, spec.width, scale)
        weight = weights[f"{module}.weight"].astype(np.float64)
        changes[Part(module)] = WeightDelta(low_rank=LowRank(low[0], weight @ low[1]))
        if f"{module}.bias" not in weights:
            raise AdapterError(f"{module} has no bias in this backbone, to which it would add")
        new = weights[f"{module}.bias"] + weight @ shift
        found.tensors |= changed_tensor(f"{module}.bias", new, weights, {})
    found.tensors |= changed_modules(changes, weights)
    return found


def _reparameterised(
    module: str, tensors: Mapping[str, NDArray[Any]], d: int, scale: float
) -> tuple[tuple[NDArray[Any], NDArray[Any]], NDArray[Any]]:
    """((A [r, d], s B [d, r]), s (B a + b) [d]): what an adapter adds to its input."""
    ends = {f"conv_{c}.{k}" for c in "AB" for k in ("weight", "bias")}
    if set(tensors) != ends:
        raise AdapterError(f"before {module}: missing {some(sorted(ends - set(tensors)))}")
    require_shape(f"conv_A before {module}", tensors["conv_A.weight"], (None, d, 1))
    r = len(tensors["conv_A.weight"])
    require_shape(f"conv_B before {module}", tensors["conv_B.weight"], (d, None, 1))
    width = tensors["conv_B.weight"].shape[1]
    groups, rest = divmod(r, width)
    if rest or d % groups:
        raise AdapterError(f"conv_B before {module} takes {width} of {r} numbers, no equal groups")
    for name, size in (("conv_A.bias", r), ("conv_B.bias", d)):
        require_shape(f"{name} before {module}", tensors[name], (size,))
    a, kernel, a_bias, b_bias = (
        tensors[n].astype(np.float64)
        for n in ("conv_A.weight", "conv_B.weight", "conv_A.bias", "conv_B.bias")
    )
    b = np.zeros((d, r))
    for g in range(groups):  # output g of a grouped convolution reads the numbers of group g
        rows, columns = (
            slice(g * d // groups, (g + 1) * d // groups),
            slice(g * width, (g + 1) * width),
        )
        b[rows, columns] = kernel[rows, :, 0]
    return (a[:, :, 0], scale * b), scale * (b @ a_bias + b_bias)
