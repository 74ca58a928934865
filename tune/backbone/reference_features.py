"""What the head reads, by the reference: an adapter whose head passes all of it on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .reference import reference_logits

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter

__all__ = ["reading_features", "reference_features"]


def reference_features(
    adapter: Adapter, weights: Path | None, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """The features f [B, f] of prepared images, of which logits = W f + b.

    Args:
        adapter, weights, images: as of `reference.reference_logits`.

    Raises:
        AdapterError, BackboneError: see there.
    """
    return reference_logits(reading_features(adapter), weights, images)


def reading_features(adapter: Adapter) -> Adapter:
    """The same adapter with the unit matrix as its head: its logits are the features, exactly."""
    size = np.asarray(adapter.tensors["head.weight"]).shape[1]
    kept = {k: v for k, v in adapter.tensors.items() if not k.startswith(("golden.", "head."))}
    head = {"head.weight": np.eye(size, dtype=np.float32), "head.bias": np.zeros(size, np.float32)}
    return replace(adapter, labels=tuple(map(str, range(size))), tensors={**kept, **head})
