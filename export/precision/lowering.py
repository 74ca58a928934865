"""From the fp32 graph to the one that was asked for: the passes in order, and the gate."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from vptkit.errors import GateError, VptkitError
from vptkit.export.analysis.dataflow import groups_of, in_islands
from vptkit.export.analysis.qdq_placement import lint_placement
from vptkit.export.numerics.accuracy_gate import (
    MIN_AGREEMENT,
    MIN_AGREEMENT_MERGED,
    MIN_COSINE,
    compare,
    require_gate,
    with_features,
    with_split,
)
from vptkit.export.numerics.evidence import answers_of
from vptkit.export.numerics.fp16_overflow import overflow_islands, overflow_map
from vptkit.export.numerics.precision_simulation import needs_simulation, simulated
from vptkit.formats.manifest_schema import FEATURES, LOGITS
from vptkit.scores.feature_distance import feature_distance

from .half_precision import typed
from .pixel_centring import centre_pixels
from .quantize import QUANTIZED, quantize_best

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from vptkit.export.numerics.evidence import Evidence

__all__ = ["PRECISIONS", "Lowered", "Lowering", "Precision", "Target", "lower"]

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Target = Literal["auto", "cpu", "tensorrt"]
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """What to write.

    Attributes:
        precision: type of the graph.
        target: "cpu" (int8 over fp32), "tensorrt" (int8 and fp8 over fp16), or "auto": cpu for fp32
            and int8, tensorrt for the others.
        islands: groups that stay in fp32 (`dataflow.groups_of`).
        auto_islands: where fp16 has too little headroom on the given images, make islands; else
            refuse.
        min_agreement: bound of the gate; that of the precision unless given.
    """

    precision: Precision = "fp32"
    target: Target = "auto"
    islands: tuple[str, ...] = ()
    auto_islands: bool = True
    min_agreement: float | None = None

    @property
    def resolved_target(self) -> Literal["cpu", "tensorrt"]:
        """`target`, "auto" resolved."""
        if self.target != "auto":
            return self.target
        return "cpu" if self.precision in ("fp32", "int8") else "tensorrt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A graph of the wanted precision, and how it came to be.

    Attributes:
        model: the graph.
        plan: for the manifest: target, islands, what each pass did; None for fp32.
        gate: for the manifest: the gate's figures, or None if there were no images.
    """

    model: onnx.ModelProto
    plan: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None


def lower(
    name: str,
    model: onnx.ModelProto,
    wanted: Lowering,
    evidence: Evidence | None = None,
    *,
    thresholds: NDArray[np.float32] | None = None,
    whole: Callable[[], onnx.ModelProto] | None = None,
) -> Lowered:
    """Lower an fp32 graph.

    Args:
        name: of the adapter, for messages.
        model: fp32; not changed.
        wanted: what to make of it.
        evidence: images and a runner. int8 and fp8 need calibration images.
        thresholds: [C], of an adapter for several labels an image; None of one label.
        whole: makes a copy of the graph with all constants, where `model` has them not in memory.

    Raises:
        VptkitError: no calibration images, or an island that the graph does not have.
        GateError: the gate does not hold, or the headroom is too small and islands are not wanted.
    """
    if wanted.precision == "fp32":
        return Lowered(model=model)
    whole = whole or partial(deepcopy, model)
    plan: dict[str, Any] = {"target": wanted.resolved_target}
    low = _lowered(name, whole(), wanted, evidence, plan)
    plan["requires"] = _requires(low, wanted.precision)
    if wanted.precision in QUANTIZED and wanted.resolved_target == "tensorrt":
        plan["placement"] = lint_placement(low)
    gate = _gate(name, whole, low, wanted, evidence, thresholds)
    return Lowered(model=low, plan=plan, gate=gate)


def _lowered(
    name: str,
    base: onnx.ModelProto,
    wanted: Lowering,
    evidence: Evidence | None,
    plan: dict[str, Any],
) -> onnx.ModelProto:
    """The graph itself; `base` may be changed, and the plan is told what was done."""
    plan["centred"] = centre_pixels(base)
    plan["calibration"] = None if evidence is None else evidence.calibration_record()
    islands = _islands(name, base, wanted, evidence, plan)
    return precise(base, wanted, islands, evidence, plan)


def _requires(low: onnx.ModelProto, precision: str) -> dict[str, str]:
    """What TensorRT and the GPU must be, at least (`tensorrt.md` 1.4, 5.2)."""
    opset = next(entry.version for entry in low.opset_import if not entry.domain)
    capability = {"fp8": "8.9", "bf16": "8.0"}.get(precision, "5.3")
    old = opset <= 17 and precision != "bf16"
    return {"tensorrt": "8.6" if old else "10.0", "compute_capability": capability}


def precise(
    base: onnx.ModelProto,
    wanted: Lowering,
    islands: tuple[str, ...],
    evidence: Evidence | None,
    plan: dict[str, Any],
) -> onnx.ModelProto:
    """The graph of one precision with given islands; the plan is told what the passes did."""
    plan["islands"] = list(islands)
    groups = list(dict.fromkeys(groups_of(base).values()))
    for island in islands:
        if not any(in_islands(group, (island,)) for group in groups):
            raise VptkitError(
                f"island {island!r}: the graph has no such part; it has {', '.join(groups)}"
            )
    low: onnx.ModelProto = base
    elem: Literal["fp32", "fp16", "bf16"] = "fp32"
    if wanted.precision in QUANTIZED:
        if evidence is None or evidence.calibration is None:
            raise VptkitError(
                f"--precision {wanted.precision} needs real images to find the ranges of its "
                "activations: pass --calibration DIR (some hundred images like those to come)."
            )
        over_fp16 = wanted.resolved_target == "tensorrt" or wanted.precision == "fp8"
        high: Literal["fp32", "fp16"] = "fp16" if over_fp16 else "fp32"
        elem = high
        low, plan["quantized"] = quantize_best(base, wanted.precision, islands, evidence, high=high)
    elif wanted.precision == "fp16" or wanted.precision == "bf16":
        elem = wanted.precision
    if elem != "fp32":
        low, report = typed(low, elem, islands)
        plan["typed"] = report.to_json()
    return low


def _islands(
    name: str,
    base: onnx.ModelProto,
    wanted: Lowering,
    evidence: Evidence | None,
    plan: dict[str, Any],
) -> tuple[str, ...]:
    """The islands asked for, and those that fp16 needs on the calibration (or gate) images."""
    fp16 = wanted.precision == "fp16" or (
        wanted.precision in QUANTIZED and wanted.resolved_target == "tensorrt"
    )
    images = None if evidence is None else evidence.calibration or evidence.gate
    plan["overflow"] = None
    if not fp16 or evidence is None or images is None:
        return wanted.islands
    with evidence.phase("overflow", images.count) as bar:
        found = overflow_map(base, evidence.run, images, bar.update)
    needed = overflow_islands(found)
    largest = max(found.groups.values())
    plan["overflow"] = {
        "images": found.count,
        "images_digest": found.images,
        "largest": largest,
        "worst": found.worst,
        "headroom": found.headroom(largest),
        "islands": list(needed),
    }
    if needed and not wanted.auto_islands:
        raise GateError(
            f"{name}: {found.worst} reaches {largest:.4g} on real images, fp16 ends at 65504: too "
            f"little headroom in {', '.join(needed)}. Leave out --no-islands to keep these in "
            "fp32, or use --precision bf16."
        )
    return tuple(dict.fromkeys([*wanted.islands, *needed]))


def _bound(low: onnx.ModelProto, wanted: Lowering) -> float:
    """On agreement with fp32, as asked for or by default; lower where a graph chooses tokens."""
    if wanted.min_agreement is not None:
        return wanted.min_agreement
    usual = MIN_AGREEMENT[wanted.precision]
    chooses = any(node.op_type == "TopK" for node in low.graph.node)
    return min(usual, MIN_AGREEMENT_MERGED) if chooses else usual


def _gate(
    name: str,
    whole: Callable[[], onnx.ModelProto],
    low: onnx.ModelProto,
    wanted: Lowering,
    evidence: Evidence | None,
    thresholds: NDArray[np.float32] | None,
) -> dict[str, Any] | None:
    if evidence is None or evidence.gate is None:
        return None
    imitated = needs_simulation(low)
    with evidence.phase("gate", 2 * evidence.gate.count) as bar:
        expected = answers_of(evidence.run(whole()), evidence.gate, bar.update)
        run = evidence.run(simulated(low) if imitated else low)
        found = answers_of(run, evidence.gate, bar.update)
    result = compare(
        expected[LOGITS],
        found[LOGITS],
        evidence.gate.truth,
        min_agreement=_bound(low, wanted),
        simulated=imitated,
        images=evidence.gate.digest,
        thresholds=thresholds,
    )
    result = with_split(result, evidence)
    if FEATURES in expected:
        distance = feature_distance(expected[FEATURES], found[FEATURES])
        result = with_features(result, distance, MIN_COSINE[wanted.precision])
    require_gate(name, wanted.precision, result)
    return result.to_json()
