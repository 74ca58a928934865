"""Rotary positions in the folded graph: constants, or of merged tokens the means over their patches.

Defined in `vptkit.tune.backbone.token_merging`. Until tokens are merged, cosines and sines are
constants. Then they are merged as the tokens are: where all blocks turn alike, the cosines and sines
themselves; where each block has its own (`Rotary.kind` "mixed"), which share of a token each of the
first tokens is, by which a block multiplies its table. All numbers lie in -1..1, so low types hold
them as well as they hold the constants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vptkit.export.fold.block_tensors import Array
    from vptkit.export.fold.position_encoding import Rotation
    from vptkit.formats.backbone_spec import BackboneSpec

    from .merge_writer import TokenMerger
    from .onnx_builder import Builder

__all__ = ["RotationWriter"]


class RotationWriter:
    """Writes what queries and keys are multiplied by; names of graph values throughout."""

    def __init__(self, b: Builder, spec: BackboneSpec, merger: TokenMerger | None) -> None:
        self.b, self.spec, self.merger = b, spec, merger
        self.own = spec.rotary is not None and spec.rotary.kind == "mixed"  # each block its own
        self._written: dict[tuple[str, int], tuple[str, str]] = {}

    def factors(self, rotation: Rotation, length: int) -> tuple[str, str]:
        """Cosines and signed sines of the first `length` rows, [1 or B, 1 or h, length, e].

        Rows that are no patches are not turned: the prefix tokens before them, prompts behind.
        """
        if self.merger is not None and self.merger.carried is not None:
            return self._merged(rotation, self.merger, self.merger.carried, length)
        b, behind = self.b, length - self.spec.tokens
        cos, sin = (
            b.const(f"{rotation.name}.{kind}.{length}", self._rows(table, behind, fill)[None])
            for kind, table, fill in (("cos", rotation.cos, 1.0), ("sin", rotation.sin, 0.0))
        )
        return cos, sin

    def first_rows(self, rotation: Rotation) -> Array:
        """What is carried along, of the tokens before any merging: [1, T, e], or [1, T, T]."""
        if self.own:
            return np.eye(self.spec.tokens)[None]
        return self._table(rotation)

    def _merged(
        self, rotation: Rotation, merger: TokenMerger, carried: str, length: int
    ) -> tuple[str, str]:
        label, behind = (rotation.name if self.own else carried), length - merger.tokens
        if (label, length) not in self._written:
            cos, sin = self._of_tokens(rotation, merger.tokens, carried, label)
            if behind:
                pads = self.b.ints([0, 0, 0, 0, 0, 0, behind, 0])
                one = self.b.const("scalar/1.0", np.asarray(1.0))
                cos = self.b.op("Pad", [cos, pads, one], f"{label}/cos/{length}")
                sin = self.b.op("Pad", [sin, pads], f"{label}/sin/{length}")
            self._written[label, length] = cos, sin
        return self._written[label, length]

    def _of_tokens(
        self, rotation: Rotation, tokens: int, carried: str, label: str
    ) -> tuple[str, str]:
        """Of the image's tokens: [B, 1 or h, T, e] each."""
        key = label, 0
        if key not in self._written:
            b, e = self.b, self.spec.head_width
            both = b.reshape(carried, (0, 1, tokens, -1), f"{label}/rows")
            if self.own:
                table = b.const(f"{label}.table", self._table(rotation)[None])
                both = b.op("MatMul", [both, table], f"{label}/mean")
            cos = b.slice(both, 3, 0, e // 2, f"{label}/cos/half")
            sin = b.slice(both, 3, e // 2, e, f"{label}/sin/half")
            minus = b.op("Neg", [sin], f"{label}/sin/minus")
            self._written[key] = (
                b.op("Concat", [cos, cos], f"{label}/cos", axis=3),
                b.op("Concat", [minus, sin], f"{label}/sin", axis=3),
            )
        return self._written[key]

    def _table(self, rotation: Rotation) -> Array:
        """Cosine and sine of each pair of channels: [1 or h, T, e]."""
        half = self.spec.head_width // 2
        cos = self._rows(rotation.cos[..., :half], 0, 1.0)
        return np.concatenate([cos, self._rows(rotation.sin[..., half:], 0, 0.0)], axis=-1)

    def _rows(self, table: Array, behind: int, fill: float) -> Array:
        """[h, N, n] → [h, T + behind, n]."""
        around = ((0, 0), (self.spec.prefix, behind), (0, 0))
        return np.pad(table, around, constant_values=fill)
