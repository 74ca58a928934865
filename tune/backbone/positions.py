"""Positions of another grid, resized as their publisher does: three ways, three answers.

hf     transformers: bicubic, by size, no antialias; in float32
hub    DINOv2's own code: bicubic, by a factor of (size + 0.1) / old size, no antialias; with
registers: by size, antialiased (dinov2/models/vision_transformer.py, hub/backbones.py)
timm   bicubic, by size, antialiased; done by timm itself
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["resized"]

_OFFSET = 0.1  # of DINOv2's code, against a size that is rounded down


def resized(state: Mapping[str, torch.Tensor], model: Any, way: str) -> torch.Tensor | None:
    """The positions of some weights on the grid of a model.

    Args:
        state: holds `pos_embed`, [1, prefix + M M, d].
        model: of timm.
        way: "hf" or "hub".

    Returns:
        [1, prefix + rows · columns, d]; None where they are of another kind: nothing to resize, another
        number of prefix tokens, a grid that is no square.
    """
    old, new = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if old is None or new is None or old.ndim != 3 or old.shape[-1] != new.shape[-1]:
        return None
    rows, columns = model.patch_embed.grid_size
    prefix = new.shape[1] - rows * columns
    side = round(max(old.shape[1] - prefix, 0) ** 0.5)
    if side == 0 or side**2 + prefix != old.shape[1]:
        return None
    grid = old[:, prefix:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # [1, d, M, M]
    if way == "hf":
        found = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
    elif getattr(model, "reg_token", None) is not None:
        found = F.interpolate(
            grid, size=(rows, columns), mode="bicubic", align_corners=False, antialias=True
        )
    else:
        factors = (rows + _OFFSET) / side, (columns + _OFFSET) / side
        found = F.interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
        if found.shape[-2:] != (rows, columns):
            return None
    tokens = found.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)
    return torch.cat([old[:, :prefix], tokens], dim=1)
