"""What `export` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vptkit.backbones.merge_schedule import MERGE_ATTENTIONS
from vptkit.errors import VptkitError
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.manifest_schema import FEATURES, LOGITS, OUTPUT_CHOICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vptkit.backbones.merge_schedule import MergeAttention, TokenMerging
    from vptkit.export.fold.last_block import LastBlock

__all__ = ["ExportOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to write.

    Attributes:
        input: see `GraphOptions`.
        batch: a fixed batch size, or None for any.
        fold: "all", or "none" for the graph that others would export.
        last_block: see `GraphOptions`; "auto" is "absorbed" for a CPU (docs/benchmarks.md) and
            "query" for TensorRT (keeps attention fused).
        lowering: precision and what belongs to it.
        output: what the graph gives: logits, the vector that the head reads, or both.
        normalize_features: divide that vector by its length.
        merge: tokens that each block merges: a number for all but the last block, one a block
            ("0,0,8,8", or a list), or a share of the multiply-accumulates ("0.7x"); as the adapter was
            tuned unless given (`merge_plan`).
        merge_attention: whether attention looks at a token as often as it has patches in it
            ("proportional"), or once ("plain"); as tuned, or proportional, unless given.
        min_merge_agreement: bound of the gate on merging (`merge_gate`).
        merging: what these become for one backbone; set by `merge_plan.with_merging`.
    """

    input: Literal["uint8", "float32"] = "uint8"
    batch: int | None = None
    fold: Literal["all", "none"] = "all"
    last_block: LastBlock | Literal["auto"] = "auto"
    lowering: Lowering = field(default_factory=Lowering)
    output: Literal["logits", "features", "both"] = "logits"
    normalize_features: bool = False
    merge: str | int | Sequence[int] | None = None
    merge_attention: MergeAttention | None = None
    min_merge_agreement: float | None = None
    merging: TokenMerging | None = None

    def __post_init__(self) -> None:
        """Refuse an output that there is not.

        Raises:
            VptkitError: another word, nothing to normalise, or a bound that is no share.
        """
        if self.merge_attention not in (None, *MERGE_ATTENTIONS):
            raise VptkitError(
                f"merge_attention is {self.merge_attention!r}, expected one of "
                f"{', '.join(MERGE_ATTENTIONS)}"
            )
        bound = self.min_merge_agreement
        if bound is not None and not 0 <= bound <= 1:
            raise VptkitError(f"--min-merge-agreement {bound}: expected a share from 0 to 1")
        if self.output not in OUTPUT_CHOICES:
            raise VptkitError(
                f"output is {self.output!r}, expected one of {', '.join(OUTPUT_CHOICES)}"
            )
        if self.normalize_features and self.output == LOGITS:
            raise VptkitError(
                "--normalize-features has no effect here: it goes with --output features or both. "
                "Leave it away, or add --output both."
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return (LOGITS, FEATURES) if self.output == "both" else (self.output,)

    def graph(self) -> GraphOptions:
        """For the graph writers."""
        on_cpu = self.lowering.resolved_target == "cpu"
        best: LastBlock = "absorbed" if on_cpu else "query"
        last = best if self.last_block == "auto" else self.last_block
        # ONNX Runtime fuses an int8 product only if nothing else reads its input; TensorRT keeps
        # one with scales by channel in int8 only if queries, keys and values are apart.
        quantized = self.lowering.precision in ("int8", "fp8")
        qkv: Literal["separate", "fused"] = "fused" if on_cpu == quantized else "separate"
        return GraphOptions(
            input=self.input,
            batch=self.batch,
            last_block=last,
            qkv=qkv,
            features=self.output != LOGITS,
            normalize_features=self.normalize_features,
            merging=self.merging,
        )
