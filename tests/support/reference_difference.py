"""How far a bundle is from the torch reference of the adapter that it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.formats.adapter import read_adapter
from vptkit.runtime import open_session
from vptkit.tune.backbone.reference import reference_logits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["agree"]


def agree(bundle: Path, adapter: Path, weights: Path, name: str | None = None) -> float:
    """Largest difference from the torch reference, relative to the logits."""
    images, _ = read_adapter(adapter).golden()
    wanted = reference_logits(adapter, weights, images)
    found = open_session(bundle).run(images, name)[:, : wanted.shape[1]]
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
