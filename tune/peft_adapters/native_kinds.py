"""What the tensors of PEFT's commonest kinds mean, each as one formula (PEFT 0.21, [out, in] weights W).

LORA    W + s B A, s = alpha / r, or alpha / sqrt(r) of rsLoRA; bias + s b
DoRA    diag(m / |W + s B A| of each row) (W + s B A)
IA3     diag(l) W and l * bias; of a feed-forward module W diag(l)
BEFT    bias + b
SHIRA   W with numbers added at some places
LN_TUNING  other weights and biases of norms (`peft_adapter` takes them)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import AdapterError
from vptkit.formats.weight_deltas import LowRank, WeightDelta
from vptkit.tune.foreign_tensors.imported_tensors import require_shape, some

from .adapter_folder import pattern_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["NATIVE", "Layer", "Outcome", "outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A module that an adapter changes.

    Attributes:
        name: the stranger's.
        weight: [out, in], or [out, channels, height, width] of a convolution: its own rows.
        ends: the file's tensors of it, by what stands behind the name.
    """

    name: str
    weight: Array
    ends: Mapping[str, NDArray[Any]]

    @property
    def matrix(self) -> Array:
        """[out, in], in = channels x height x width of a convolution."""
        return self.weight.reshape(len(self.weight), -1)

    def take(self, end: str, shape: tuple[int | None, ...]) -> Array:
        """A tensor of this shape, None for any size, as float64.

        Raises:
            AdapterError: it is not there, of another shape, or not floating point.
        """
        if end not in self.ends:
            raise AdapterError(f"{self.name}.{end} is missing")
        value = self.ends[end]
        require_shape(f"{self.name}.{end}", value, shape)
        return value.astype(np.float64)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What becomes of a module: of its weight, and (factor * bias + added) of its bias."""

    change: WeightDelta = field(default_factory=WeightDelta)
    factor: Array | None = None
    added: Array | None = None


def outcome(kind: str, layer: Layer, config: Mapping[str, Any]) -> Outcome:
    """What an adapter of a kind in NATIVE makes of one module.

    Raises:
        AdapterError: tensors that are missing, not known, or of other shapes or numbers.
    """
    known, formula = NATIVE[kind]
    if unknown := sorted(set(layer.ends) - set(known)):
        names = [f"{layer.name}.{end}" for end in unknown]
        raise AdapterError(f"not tensors of {kind}: {some(names)}")
    return formula(layer, config)


def _lora(layer: Layer, config: Mapping[str, Any]) -> Outcome:
    out, *inner = layer.weight.shape
    a = layer.take("lora_A.weight", (None, *inner))
    rank = len(a)
    b = layer.take("lora_B.weight", (out, rank, *(1 for _ in inner[1:])))
    expected = pattern_value(layer.name, config, "r", "rank_pattern", 8)
    if rank != expected:
        raise AdapterError(f"{layer.name} is of rank {rank}, the configuration says {expected}")
    alpha = pattern_value(layer.name, config, "lora_alpha", "alpha_pattern", 8)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    low = LowRank(a.reshape(rank, -1), scale * b.reshape(out, rank))
    if rank > min(layer.matrix.shape):  # no low rank at all
        found = Outcome(change=WeightDelta(whole=low.b @ low.a))
    else:
        found = Outcome(change=WeightDelta(low_rank=low))
    if "lora_B.bias" in layer.ends:
        found.added = scale * layer.take("lora_B.bias", (out,))
    magnitude = _magnitude(layer, out)
    if (magnitude is not None) != bool(config.get("use_dora")):
        raise AdapterError(f"{layer.name}: use_dora and lora_magnitude_vector do not go together")
    if magnitude is not None:
        rows = np.linalg.norm(found.change.applied(layer.matrix), axis=1)
        if not rows.all():
            raise AdapterError(f"{layer.name}: a row of its weight is zero, which DoRA divides by")
        found.change = replace(found.change, out_scale=magnitude / rows)
    return found


def _magnitude(layer: Layer, out: int) -> Array | None:
    """[out] of DoRA; of a convolution it is saved as [1, out, 1, 1]."""
    for end in ("lora_magnitude_vector", "lora_magnitude_vector.weight"):
        if end in layer.ends:
            convolution = layer.weight.ndim == 4 and layer.ends[end].ndim == 4
            return layer.take(end, (1, out, 1, 1) if convolution else (out,)).ravel()
    return None


def _ia3(layer: Layer, _config: Mapping[str, Any]) -> Outcome:
    out, inner, *kernel = layer.weight.shape
    value = layer.ends.get("ia3_l")
    rows: tuple[int, ...] = (1, out, 1, 1) if kernel else (out, 1)
    columns: tuple[int, ...] = (1, inner, 1, 1) if kernel else (1, inner)
    if value is not None and value.shape == columns and columns != rows:
        scale = layer.take("ia3_l", columns).ravel()
        return Outcome(change=WeightDelta(in_scale=np.repeat(scale, math.prod(kernel))))
    scale = layer.take("ia3_l", rows).ravel()
    return Outcome(change=WeightDelta(out_scale=scale), factor=scale)


def _beft(layer: Layer, _config: Mapping[str, Any]) -> Outcome:
    return Outcome(added=layer.take("beft_bias", (1, len(layer.weight))).ravel())


def _shira(layer: Layer, _config: Mapping[str, Any]) -> Outcome:
    values = layer.take("shira_weight", (None,))
    places = layer.ends.get("shira_indices")
    if places is None or places.dtype.kind not in "iu" or places.shape != (2, len(values)):
        raise AdapterError(f"{layer.name}.shira_indices: expected whole numbers (2, {len(values)})")
    rows, columns = places.astype(np.int64)
    if (
        min(rows.min(), columns.min()) < 0
        or rows.max() >= layer.weight.shape[0]
        or columns.max() >= layer.weight.shape[1]
    ):
        raise AdapterError(f"{layer.name}.shira_indices lie outside {layer.weight.shape}")
    whole = np.zeros(layer.weight.shape)
    np.add.at(whole, (rows, columns), values)
    return Outcome(change=WeightDelta(whole=whole))


_LORA = """
    lora_A.weight lora_B.weight lora_B.bias lora_magnitude_vector lora_magnitude_vector.weight
"""
# kind → the ends of its tensors' names, and what they mean
NATIVE: dict[str, tuple[frozenset[str], Callable[[Layer, Mapping[str, Any]], Outcome]]] = {
    "LORA": (frozenset(_LORA.split()), _lora),
    "IA3": (frozenset({"ia3_l"}), _ia3),
    "BEFT": (frozenset({"beft_bias"}), _beft),
    "SHIRA": (frozenset({"shira_weight", "shira_indices"}), _shira),
}
