"""How a graph is written, and what comes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.formats.manifest_schema import FEATURES

from .onnx_builder import FLOAT, UINT8, Builder

if TYPE_CHECKING:
    from vptkit.backbones.merge_schedule import TokenMerging
    from vptkit.export.fold.last_block import LastBlock
    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["GraphOptions", "Rows", "feature_output", "input_signature"]
_SHORTEST = 1e-12  # a length is taken to be at least this, as torch.nn.functional.normalize does
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
        features: give the vector that the head reads, too, as the output `features`; the final
            norm's affine is then in the norm, not in the head.
        normalize_features: divide it by its length.
        merging: how many tokens each block merges, and how attention sees it; None of none.
        dtype: type of all floating-point numbers.
    """

    input: Literal["uint8", "float32"] = "uint8"
    batch: int | None = None
    last_block: LastBlock = "absorbed"
    qkv: Literal["separate", "fused"] = "separate"
    features: bool = False
    normalize_features: bool = False
    merging: TokenMerging | None = None
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


def feature_output(b: Builder, f: str, options: GraphOptions) -> str:
    """The output `features` [B, f]: f, or f / max(|f|, 1e-12).

    Args:
        b: writes it.
        f: name of what the head reads.
        options: whether its length is divided by.
    """
    if not options.normalize_features:
        return b.op("Identity", [f], FEATURES)
    length = b.op("ReduceL2", [f], f"{FEATURES}/length", axes=[1], keepdims=1)
    least = b.const(f"{FEATURES}/least", np.asarray(_SHORTEST))
    return b.op("Div", [f, b.op("Max", [length, least], f"{FEATURES}/scale")], FEATURES)
