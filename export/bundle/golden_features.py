"""The features of the golden images: computed once, proven by the golden logits, then a yardstick.

An adapter carries the reference's logits, not its features, and the exporter has no torch. But
logits = W f + b: what the fp32 graph gives as f is right where the reference's logits follow from
it. The bundle keeps it, so that a board compares all directions of f, also those that no class
reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import GateError
from vptkit.formats.manifest_schema import FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vptkit.export.numerics.evidence import Run
    from vptkit.formats.adapter import Adapter

__all__ = ["golden_features"]

_TOLERANCE = 1e-4  # of the largest logit; that of an fp32 bundle's parity


def golden_features(adapter: Adapter, run: Run, *, normalized: bool) -> NDArray[np.float32] | None:
    """The features [G, f] of the adapter's golden images; None if it has none.

    Args:
        adapter: with or without golden answers.
        run: its opened fp32 graph, with the output `features`.
        normalized: the features have the length 1.

    Raises:
        GateError: the golden logits do not follow from them.
    """
    golden = adapter.golden()
    if golden is None or len(golden[0]) == 0:
        return None
    features = np.asarray(run(golden[0])[FEATURES], dtype=np.float32)
    found = _logits_of(adapter, features.astype(np.float64), golden[1], normalized=normalized)
    largest, scale = np.abs(found - golden[1]).max(), np.abs(golden[1]).max()
    if not largest <= _TOLERANCE * scale:
        raise GateError(
            f"{adapter.name}: the golden logits do not follow from the graph's features: largest "
            f"difference {largest:.2e}, largest logit {scale:.2e}, allowed {_TOLERANCE:.0e} of it"
        )
    return features


def _logits_of(
    adapter: Adapter, features: NDArray[Any], logits: NDArray[Any], *, normalized: bool
) -> NDArray[np.float64]:
    """W f + b in float64 [G, C]; of normalised features each length is what fits the logits best."""
    weight = np.asarray(adapter.tensors["head.weight"], dtype=np.float64)
    bias = np.asarray(adapter.tensors["head.bias"], dtype=np.float64)
    products = features @ weight.T
    if normalized:
        squares = np.maximum((products**2).sum(axis=1), np.finfo(np.float64).tiny)
        lengths = (products * (logits - bias)).sum(axis=1) / squares
        products = products * np.maximum(lengths, 0.0)[:, None]
    return np.asarray(products + bias)
