"""What modules become, as an adapter keeps it: `delta.*`, `scale.*` and `ln.*`.

    weight' = diag(out) (weight + delta) diag(in),   bias' = bias + delta of the bias

Separate queries, keys and values of transformers are rows of timm's one linear: their low-rank
factors are stacked, of each the rows of the others are zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import AdapterError
from vptkit.formats.weight_deltas import LowRank, WeightDelta

from .module_names import rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.checkpoints.hugging_face_names import Part

    Array = NDArray[np.float64]

__all__ = ["changed_modules", "changed_tensor"]


def changed_modules(
    changes: Mapping[Part, WeightDelta], weights: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """The tensors of an adapter that do this to a backbone; what changes nothing is left out.

    Args:
        changes: by the linear, or the rows of one, that they change, as no two change the same.
        weights: the backbone's by timm name.

    Raises:
        AdapterError: a module is changed as a whole and in parts, or numbers are no float32.
    """
    modules: dict[str, dict[Part, WeightDelta]] = {}
    for part, change in changes.items():
        modules.setdefault(part.name, {})[part] = change
    found: dict[str, NDArray[np.float32]] = {}
    for module, parts in modules.items():
        whole = weights[f"{module}.weight"]
        weight = whole.reshape(len(whole), -1).astype(np.float64)  # of a convolution, too
        if len({part.count for part in parts}) > 1:
            raise AdapterError(f"{module} is changed as a whole and in parts")
        joined = _joined(parts, weight)
        if joined.whole is not None:
            name, delta = f"delta.{module}.weight", joined.applied(weight) - weight
            found |= _unless(name, delta.reshape(whole.shape), 0)
            continue
        low = joined.low_rank
        if low is not None and np.any(low.b @ low.a):
            found[f"delta.{module}.a"] = single(f"delta.{module}.a", low.a)
            found[f"delta.{module}.b"] = single(f"delta.{module}.b", low.b)
        for end, scale in (("out", joined.out_scale), ("in", joined.in_scale)):
            if scale is not None:
                found |= _unless(f"scale.{module}.{end}", scale, 1)
    return found


def _joined(parts: Mapping[Part, WeightDelta], weight: Array) -> WeightDelta:
    """One change of the whole module; what low ranks and scales can't say becomes a whole one."""
    if all(part.count == 1 for part in parts):
        return next(iter(parts.values()))
    places = {part: rows_of(part, weight) for part in parts}
    if any(change.whole is not None or change.in_scale is not None for change in parts.values()):
        delta = np.zeros(weight.shape)
        for part, change in parts.items():
            rows = places[part]
            delta[rows] = change.applied(weight[rows]) - weight[rows]
        return WeightDelta(whole=delta)
    low = [
        (places[part], *change.low_rank)
        for part, change in parts.items()
        if change.low_rank is not None
    ]
    out = np.ones(len(weight))
    for part, change in parts.items():
        if change.out_scale is not None:
            out[places[part]] = change.out_scale
    if not low:
        return WeightDelta(out_scale=out)
    a = np.concatenate([a for _, a, _ in low])
    b, column = np.zeros((len(weight), len(a))), 0
    for rows, _, factor in low:
        b[rows, column : column + factor.shape[1]] = factor
        column += factor.shape[1]
    return WeightDelta(low_rank=LowRank(a, b), out_scale=out)


def changed_tensor(
    name: str, new: Array, weights: Mapping[str, NDArray[Any]], norms: Mapping[str, Any]
) -> dict[str, NDArray[np.float32]]:
    """A whole tensor's new numbers, as an adapter keeps them: a norm's themselves, else how they differ.

    Args:
        name: timm's.
        new: of the tensor's shape.
        weights: the backbone's by timm name.
        norms: the names of those that are of norms.

    Raises:
        AdapterError: numbers that are no float32.
    """
    if name in norms:
        return {f"ln.{name}": single(f"ln.{name}", new)}
    return _unless(f"delta.{name}", new - weights[name].astype(np.float64), 0)


def _unless(name: str, value: Array, nothing: int) -> dict[str, NDArray[np.float32]]:
    return {} if np.all(value == nothing) else {name: single(name, value)}


def single(name: str, value: Array) -> NDArray[np.float32]:
    """As float32.

    Raises:
        AdapterError: NaN, an infinity, or too large a number.
    """
    with np.errstate(over="ignore"):
        result = value.astype(np.float32)
    if not np.isfinite(result).all():
        raise AdapterError(f"what it makes of {name} is not finite in float32")
    return result
