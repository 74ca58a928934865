"""Weight deltas: how an adapter changes tensors of its backbone, and a tensor with its change.

What an adapter file holds of them, by timm name ({module}.weight is a linear's, [out, in], or the
patch embedding's [d, 3, ph, pw], which is read as [d, 3 ph pw]):

delta.{name}          the tensor's own shape: added to it
delta.{module}.a      [r, in], with
delta.{module}.b      [out, r]: b @ a is added to {module}.weight
scale.{module}.out    [out]
scale.{module}.in     [in]: weight' = diag(out) (weight + delta) diag(in)

Scales touch the weight only; whatever happens to a bias is a whole delta of it. Norms are not
here: an adapter brings them whole, as `ln.{name}`. numpy alone; no function changes what it is given.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .backbone_weights import norm_shapes, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from .backbone_spec import BackboneSpec

__all__ = [
    "LowRank",
    "WeightDelta",
    "changed",
    "delta_problems",
    "delta_shapes",
    "deltas_told",
    "is_delta",
    "weight_deltas",
]

_PARTS = re.compile(r"(?P<kind>delta|scale)\.(?P<module>.+)\.(?P<part>a|b|in|out)")
_SCALES = ("in", "out")
_NUMBER = r"(?:0|[1-9]\d{0,2})"
# All of a backbone but its norms, for any spec (`backbone_weights.tensor_shapes`). Groups: the block,
# and whether it is a linear's weight.
_TENSOR = re.compile(
    r"(?:cls_token|dist_token|reg_token|pos_embed|rope\.freqs|attn_pool\.latent"
    r"|rel_pos_bias\.relative_position_bias_table"
    rf"|(?:blocks\.(?P<block>{_NUMBER})\.)?"
    rf"(?:(?:ls[12]?\.gamma|gamma_[12]|mlp_bias|(?:attns|ffns)\.{_NUMBER}\.ls\.gamma)"
    rf"|(?:(?:attns\.{_NUMBER}\.)?attn\.)?(?:q_bias|v_bias|relative_position_bias_table)"
    r"|(?:patch_embed\.proj|in_proj|attn_out_proj|mlp_out_proj"
    rf"|(?:attns\.{_NUMBER}\.)?attn\.(?:qkv|[qkv]_proj|proj)"
    r"|(?:attn\.rel_pos|shared_rel_pos)\.mlp\.fc[12]|attn_pool\.(?:q|kv|proj|mlp\.fc[12])"
    rf"|(?:ffns\.{_NUMBER}\.)?mlp\.(?:fc1|fc1_g|fc1_x|fc2))\.(?:(?P<weight>weight)|bias)))"
)


class LowRank(NamedTuple):
    """Factors of a change: b @ a is added to a linear's weight [out, in]."""

    a: NDArray[Any]  # [r, in]
    b: NDArray[Any]  # [out, r]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDelta:
    """How one tensor is changed; None where nothing is done.

    Attributes:
        whole: added to it, of its shape.
        low_rank: factors of what is added; not beside `whole`.
        out_scale, in_scale: [out] and [in], by which rows and columns are multiplied afterwards.
    """

    whole: NDArray[Any] | None = None
    low_rank: LowRank | None = None
    out_scale: NDArray[Any] | None = None
    in_scale: NDArray[Any] | None = None

    def applied(self, value: NDArray[Any]) -> NDArray[np.float64]:
        """The tensor with its change, float64, of the same shape.

        Args:
            value: the backbone's own, float of any width; it is left as it is.
        """
        rows = np.asarray(value, dtype=np.float64)
        if self.whole is not None:
            rows = rows + np.asarray(self.whole, dtype=np.float64)
        if rows.ndim < 2:
            return rows
        rows = rows.reshape(len(rows), -1)  # [out, in]
        if self.low_rank is not None:
            a, b = (np.asarray(factor, dtype=np.float64) for factor in self.low_rank)
            rows = rows + b @ a
        if self.out_scale is not None:
            rows = rows * np.asarray(self.out_scale, dtype=np.float64)[:, None]
        if self.in_scale is not None:
            rows = rows * np.asarray(self.in_scale, dtype=np.float64)
        return rows.reshape(np.shape(value))


def changed(
    value: NDArray[Any], name: str, deltas: Mapping[str, WeightDelta]
) -> NDArray[np.float64]:
    """One tensor of a backbone as an adapter has it, float64.

    One at a time, so that a large backbone need not stand in memory in float64.

    Args:
        value: the backbone's own.
        name: of the tensor, timm's.
        deltas: `weight_deltas` of the adapter.
    """
    delta = deltas.get(name)
    return np.asarray(value, dtype=np.float64) if delta is None else delta.applied(value)


def is_delta(name: str) -> bool:
    """Whether an adapter's tensor is (a part of) a weight delta."""
    return name.startswith(("delta.", "scale."))


def weight_deltas(tensors: Mapping[str, NDArray[Any]]) -> dict[str, WeightDelta]:
    """The changes that an adapter's tensors describe, by timm name of the tensor that is changed.

    Args:
        tensors: of an adapter that was checked; all but deltas and scales are passed over.
    """
    found: dict[str, WeightDelta] = {}
    for name, value in tensors.items():
        if not is_delta(name):
            continue
        target, part = _target(name)
        before = found.get(target, WeightDelta())
        if part == "a":
            pair = LowRank(value, tensors[f"{name[:-2]}.b"])
            found[target] = replace(before, low_rank=pair)
        elif part == "whole":
            found[target] = replace(before, whole=value)
        elif part == "out":
            found[target] = replace(before, out_scale=value)
        elif part == "in":
            found[target] = replace(before, in_scale=value)
    return found


def _target(name: str) -> tuple[str, str]:
    """Of a delta's name: the timm tensor that it changes; and a, b, in, out or whole."""
    match = _PARTS.fullmatch(name)
    if match and (match["part"] in _SCALES) == (match["kind"] == "scale"):
        return f"{match['module']}.weight", match["part"]
    return name.partition(".")[2], "whole"


def deltas_told(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
    """What the deltas among an adapter's tensors are, JSON-ready, for people; None without any.

    Returns:
        numbers: how many there are in all; low_rank, whole, scales: timm module or tensor, blocks
        counted together as `blocks.*.attn.qkv` → how many; ranks: least and largest, or None.
    """
    deltas = weight_deltas(tensors)
    if not deltas:
        return None
    ranks = [len(delta.low_rank.a) for delta in deltas.values() if delta.low_rank is not None]
    low = [name for name, delta in deltas.items() if delta.low_rank is not None]
    whole = [name for name, delta in deltas.items() if delta.whole is not None]
    scaled = [
        name
        for name, delta in deltas.items()
        if delta.out_scale is not None or delta.in_scale is not None
    ]
    return {
        "numbers": sum(int(value.size) for name, value in tensors.items() if is_delta(name)),
        "low_rank": _counted(name.removesuffix(".weight") for name in low),
        "ranks": [min(ranks), max(ranks)] if ranks else None,
        "whole": _counted(whole),
        "scales": _counted(name.removesuffix(".weight") for name in scaled),
    }


def _counted(names: Iterable[str]) -> dict[str, int]:
    """How many of each there are, the number of the block left out."""
    return dict(sorted(Counter(re.sub(r"^blocks\.\d+\.", "blocks.*.", n) for n in names).items()))


# checks -------------------------------------------------------------------------------------------


def delta_shapes(
    tensors: Mapping[str, NDArray[Any]], spec: BackboneSpec | None, blocks: int
) -> dict[str, tuple[int, ...]]:
    """Shapes that the deltas among some tensors should have; -1 for any size.

    What no backbone can have, or this one lacks, is left out, and so is a whole delta beside a
    low-rank one (`delta_problems` says why). Of a pair that is half there both halves are named.

    Args:
        tensors: of an adapter.
        spec: of its backbone, or None if it is not known.
        blocks: L, or what it is at most.
    """
    own = None if spec is None else tensor_shapes(spec)
    norms = {} if spec is None else norm_shapes(spec)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in filter(is_delta, tensors):
        target, part = _target(name)
        if name.startswith("scale.") and part == "whole":
            continue
        shape = _plausible_shape(target, blocks, tensors[name]) if own is None else own.get(target)
        if shape is None or target in norms or (part == "whole" and _is_factored(target, tensors)):
            continue
        if part == "whole":
            shapes[name] = shape
        elif target.endswith(".weight") and len(shape) >= 2:
            shapes |= _part_shapes(name, part, shape, tensors)
    return shapes


def _part_shapes(
    name: str, part: str, shape: tuple[int, ...], tensors: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """Of a part of a linear's change: its shape; of a factor, that of the other one too."""
    out, inner = shape[0], -1 if -1 in shape else int(np.prod(shape[1:]))
    if part in _SCALES:
        return {name: (out if part == "out" else inner,)}
    a = tensors.get(f"{name[:-2]}.a")
    rank = a.shape[0] if a is not None and a.ndim == 2 else -1
    return {f"{name[:-2]}.a": (rank, inner), f"{name[:-2]}.b": (out, rank)}


def _plausible_shape(name: str, blocks: int, value: NDArray[Any]) -> tuple[int, ...] | None:
    """Without a spec: a shape for a tensor as timm names them, of a block that can be there."""
    match = _TENSOR.fullmatch(name)
    if match is None or (match["block"] is not None and int(match["block"]) >= blocks):
        return None
    if match["weight"]:
        return (-1,) * (4 if name.startswith("patch_embed.") else 2)
    return (-1,) * value.ndim


def _is_factored(target: str, tensors: Mapping[str, NDArray[Any]]) -> bool:
    head = f"delta.{target.removesuffix('.weight')}"
    return target.endswith(".weight") and bool({f"{head}.a", f"{head}.b"} & set(tensors))


def delta_problems(
    tensors: Mapping[str, NDArray[Any]], spec: BackboneSpec | None, *, unknown: set[str]
) -> dict[str, str]:
    """Why deltas among some tensors are not known, in words: name → sentence.

    Args:
        tensors: of an adapter.
        spec: of its backbone, or None.
        unknown: those of its tensors that `delta_shapes` has no shape for.
    """
    own = {} if spec is None else tensor_shapes(spec)
    problems = {}
    for name in sorted(filter(is_delta, unknown)):
        target, part = _target(name)
        if name.startswith("scale.") and part == "whole":
            problems[name] = f"{name} is not known, expected scale.MODULE.out or scale.MODULE.in"
        elif part == "whole" and _is_factored(target, tensors):
            problems[name] = f"{name} stands beside low-rank factors of the same tensor; keep one"
        elif spec is not None and target in norm_shapes(spec):
            problems[name] = f"{name} is of a norm, which an adapter brings whole as ln.{target}"
        elif target in own and part != "whole":
            problems[name] = f"{name}: {target} is no linear, so it has neither factors nor scales"
        elif spec is not None:
            problems[name] = f"{name} is not known: the backbone has no tensor {target}"
    return problems
