"""How a graph is written, and what comes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .onnx_builder import FLOAT, UINT8, Builder

if TYPE_CHECKING:
    from vptkit.export.fold.last_block import LastBlock
    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["GraphOptions", "Rows", "input_signature"]
# Which rows of a block are read behind it: the image's, only the first, or the prompts' as well
Rows = Literal["all", "first", "joined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """How a graph is written.

    Attributes:
        input: "uint8" pixels [B, H, W, 3], or "float32" normalised [B, 3, H, W].
        batch: a fixed batch size, or None for any.
        last_block: with token pooling: "absorbed" (fewest multiply-accumulates), "query" (one
            query, ordinary keys and values: keeps fused attention on a GPU), "full".
        qkv: "separate" linears for queries, keys and values (good for ONNX Runtime, needed for
            int8), or one "fused" (some 24 TensorRT layers fewer in a ViT of 12 blocks).
        dtype: type of all floating-point numbers.
    """

    input: Literal["uint8", "float32"] = "uint8"
    batch: int | None = None
    last_block: LastBlock = "absorbed"
    qkv: Literal["separate", "fused"] = "separate"
    dtype: type[np.floating[Any]] = np.float32


def input_signature(
    spec: BackboneSpec, options: GraphOptions
) -> tuple[str, int, tuple[int | str, ...]]:
    """(name, element type, shape) of the graph's input."""
    height, width = spec.image_size
    batch = options.batch or "batch"
    if options.input == "uint8":
        return "images", UINT8, (batch, height, width, 3)
    elem = Builder(options.dtype).elem if options.dtype is not np.float32 else FLOAT
    return "pixels", elem, (batch, 3, height, width)
