"""What modules become, as an adapter keeps it: `delta.*`, `scale.*` and `ln.*`.

    weight' = diag(out) (weight + delta) diag(in),   bias' = bias + delta of the bias

Separate queries, keys and values of transformers are rows of timm's one linear: their low-rank
factors are stacked, of each the rows of the others are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import AdapterError

from .module_names import rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.checkpoints.hugging_face_names import Part

    Array = NDArray[np.float64]

__all__ = ["Change", "changed_modules", "changed_tensor", "merged_weight"]


@dataclass(slots=True, kw_only=True)
class Change:
    """What becomes of one linear, or of rows of one; None: nothing.

    Attributes:
        low: (a [r, in], b [out, r]): weight + b @ a.
        whole: [out, in]: weight + whole.
        out: [out], a factor of each row behind that.
        inner: [in], a factor of each column.
    """

    low: tuple[Array, Array] | None = None
    whole: Array | None = None
    out: Array | None = None
    inner: Array | None = None


def merged_weight(weight: Array, change: Change) -> Array:
    """[out, in]: what a weight becomes."""
    result = weight.astype(np.float64)
    if change.low is not None:
        result = result + change.low[1] @ change.low[0]
    if change.whole is not None:
        result = result + change.whole
    if change.out is not None:
        result = change.out[:, None] * result
    return result if change.inner is None else result * change.inner


def changed_modules(
    changes: Mapping[Part, Change], weights: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """The tensors of an adapter that do this to a backbone; what changes nothing is left out.

    Args:
        changes: by what they change, as no two change the same.
        weights: the backbone's by timm name.

    Raises:
        AdapterError: a module is changed as a whole and in parts, or numbers are no float32.
    """
    modules: dict[str, dict[Part, Change]] = {}
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
            name, delta = f"delta.{module}.weight", merged_weight(weight, joined) - weight
            found |= _unless(name, delta.reshape(whole.shape), 0)
            continue
        if joined.low is not None and np.any(joined.low[1] @ joined.low[0]):
            found[f"delta.{module}.a"] = single(f"delta.{module}.a", joined.low[0])
            found[f"delta.{module}.b"] = single(f"delta.{module}.b", joined.low[1])
        for end, scale in (("out", joined.out), ("in", joined.inner)):
            if scale is not None:
                found |= _unless(f"scale.{module}.{end}", scale, 1)
    return found


def _joined(parts: Mapping[Part, Change], weight: Array) -> Change:
    """One change of the whole module; what low ranks and scales can't say becomes a whole one."""
    if all(part.count == 1 for part in parts):
        return next(iter(parts.values()))
    places = {part: rows_of(part, weight) for part in parts}
    if any(change.whole is not None or change.inner is not None for change in parts.values()):
        delta = np.zeros(weight.shape)
        for part, change in parts.items():
            rows = places[part]
            delta[rows] = merged_weight(weight[rows], change) - weight[rows]
        return Change(whole=delta)
    low = [(places[part], *change.low) for part, change in parts.items() if change.low is not None]
    out = np.ones(len(weight))
    for part, change in parts.items():
        if change.out is not None:
            out[places[part]] = change.out
    if not low:
        return Change(out=out)
    a = np.concatenate([a for _, a, _ in low])
    b, column = np.zeros((len(weight), len(a))), 0
    for rows, _, factor in low:
        b[rows, column : column + factor.shape[1]] = factor
        column += factor.shape[1]
    return Change(low=(a, b), out=out)


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
