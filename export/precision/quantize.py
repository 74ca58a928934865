"""int8 and fp8: QuantizeLinear and DequantizeLinear around what multiplies.

Quantized are the inputs of linears with constant weights, never an output, a bias, attention's own
products, LayerNorm, softmax, activation, residual or head (`tensorrt.md` 5.4). Symmetric, zero
point 0; weights by output channel, activations by tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from vptkit.export.analysis.dataflow import Dataflow, groups_of, in_islands, replace_nodes
from vptkit.export.numerics.accuracy_gate import sqnr_db
from vptkit.export.numerics.calibration import RangeMethod, Spread, choose_range, observe
from vptkit.export.numerics.evidence import logits_of
from vptkit.export.numerics.precision_simulation import simulated

from .half_precision import numpy_type, typed
from .opset_upgrade import raise_opset
from .pixel_centring import CENTRED
from .smoothquant import SMOOTHED, smooth

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vptkit.export.numerics.evidence import Evidence, Images

__all__ = ["QUANTIZED", "quantize", "quantize_best"]

QUANTIZED = frozenset({"int8", "fp8"})
_ELEMENTS = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
_TREATMENTS: tuple[tuple[float, RangeMethod], ...] = (
    (0.9, "max"),
    (0.8, "percentile"),
    (1.0, "mse"),
)
_LARGEST = {"int8": 127.0, "fp8": 448.0}


def quantize(
    model: onnx.ModelProto,
    precision: str,
    islands: tuple[str, ...],
    evidence: Evidence,
    *,
    high: Literal["fp32", "fp16"],
    method: RangeMethod = "mse",
    smoothing: float | None = 0.8,
    behind: tuple[float, RangeMethod] = (0.9, "max"),
    spreads: dict[str, Spread] | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A copy of an fp32 graph with Q/DQ; `half_precision.typed` comes after, if fp16 is wanted.

    Args:
        model: fp32, pixels centred.
        precision: "int8" or "fp8".
        islands: groups that are left alone.
        evidence: runner and calibration images.
        high: type of everything else; scales are rounded to it, fp16 ones need opset 19.
        method: how int8's activation ranges are chosen.
        behind: share and method behind activations, where a few channels are huge.
        smoothing: share of an activation's channel scale that moves into the weights, or None.
        spreads: of `input_spreads`, where they are known already.
        tick: told how many images are done, after each batch of each pass.

    Returns:
        The graph and what was done, for the manifest.
    """
    if evidence.calibration is None:
        raise ValueError("quantization needs calibration images")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if spreads is None:
        spreads = input_spreads(copy, islands, evidence, evidence.calibration, tick)
    smoothed = 0
    if smoothing is not None and precision == "int8":
        smoothed = smooth(copy, spreads, smoothing, behind[0])
        if smoothed:
            spreads = input_spreads(copy, islands, evidence, evidence.calibration, tick)
        else:
            tick(evidence.calibration.count)  # the second pass, which is not needed
    flow = Dataflow.of(copy)
    chosen = _linears(flow, islands)
    method = "max" if precision == "fp8" else method
    centred = _centred_values(flow)
    ends = {
        name: 127.0 / 128.0
        if name in centred
        else choose_range(spread, behind[1] if name.endswith(SMOOTHED) else method)
        for name, spread in spreads.items()
    }
    if high == "fp16" or precision == "fp8":
        raise_opset(copy)
    weights = {flow.weight_of(node) for node in chosen}
    _insert(copy, flow, chosen, ends, precision, high)
    return copy, {
        "weights": len(weights),
        "activations": len(ends),
        "calibration": evidence.calibration.digest,
        "images": evidence.calibration.count,
        "ranges": method,
        "smoothed": smoothed,
        "behind_activations": list(behind),
    }


def quantize_best(
    model: onnx.ModelProto,
    precision: str,
    islands: tuple[str, ...],
    evidence: Evidence,
    *,
    high: Literal["fp32", "fp16"],
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """`quantize` with the treatment behind activations that the calibration images like best.

    Whether to cut the largest numbers there differs between networks (ViT-Ti/16: 23.7 dB of SQNR
    cut, 20.1 dB not; ViT-S/14: 18.4 and 26.7), so both are tried.
    """
    if evidence.calibration is None:
        raise ValueError("quantization needs calibration images")
    passes = 2 + 2 * len(_TREATMENTS) if precision == "int8" else 1
    with evidence.phase("calibration", passes * evidence.calibration.count) as bar:
        if precision != "int8":
            return quantize(model, precision, islands, evidence, high=high, tick=bar.update)
        return _best_treatment(model, islands, evidence, evidence.calibration, high, bar.update)


def _best_treatment(
    model: onnx.ModelProto,
    islands: tuple[str, ...],
    evidence: Evidence,
    images: Images,
    high: Literal["fp32", "fp16"],
    tick: Callable[[int], None],
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """int8 with each of the treatments, judged on the images that it was calibrated on."""
    expected = logits_of(evidence.run(model), images, tick)
    spreads = input_spreads(model, islands, evidence, images, tick)  # alike for all of them
    best: tuple[float, onnx.ModelProto, dict[str, Any]] | None = None
    for behind in _TREATMENTS:
        low, plan = quantize(
            model,
            "int8",
            islands,
            evidence,
            high=high,
            behind=behind,
            spreads=spreads,
            tick=tick,
        )
        # over fp16 the scales are fp16 too; what is compared here is the quantization alone
        judged = simulated(typed(low, "fp16")[0]) if high == "fp16" else low
        found = logits_of(evidence.run(judged), images, tick)
        noise = sqnr_db(expected, found)
        plan["sqnr_db"] = noise
        quality = float("inf") if noise is None else noise
        if best is None or quality > best[0]:
            best = quality, low, plan
    if best is None:
        raise AssertionError("no treatment was tried")
    return best[1], best[2]


def input_spreads(
    model: onnx.ModelProto,
    islands: tuple[str, ...],
    evidence: Evidence,
    images: Images,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, Spread]:
    """What goes into the linears that are quantized, by name, over some images."""
    chosen = _linears(Dataflow.of(model), islands)
    names = list(dict.fromkeys(node.input[0] for node in chosen))
    return observe(model, names, evidence.run, images, tick)


def _linears(flow: Dataflow, islands: tuple[str, ...]) -> list[onnx.NodeProto]:
    """What is quantized: every linear with a weight of its own, but the head and islands."""
    groups = groups_of(flow.model)
    return [
        node
        for node in flow.model.graph.node
        if flow.weight_of(node) is not None
        and groups[node.name] != "head"
        and not in_islands(groups[node.name], islands)
    ]


def _centred_values(flow: Dataflow) -> set[str]:
    """Values that are centred pixels, moved about: steps of 1/128 hold them exactly."""
    return {
        node.output[0]
        for node in flow.model.graph.node
        if any(source.name == CENTRED for source in flow.sources(node.output[0]))
    }


def _insert(
    model: onnx.ModelProto,
    flow: Dataflow,
    chosen: list[onnx.NodeProto],
    ends: dict[str, float],
    precision: str,
    high: str,
) -> None:
    elem, largest = _ELEMENTS[precision], _LARGEST[precision]
    zero = "quantized/zero"
    _constant(model, zero, np.zeros((), numpy_type(elem)), elem)
    names = {node.name for node in chosen}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    weights: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        if node.name in names:
            x, w = node.input[0], node.input[1]
            if x not in done:
                done.add(x)
                scale = _scale(np.asarray(ends[x] / largest), high)
                _constant(model, f"{x}/scale", scale.astype(np.float32), TensorProto.FLOAT)
                inputs = [x, f"{x}/scale", zero]
                nodes.append(helper.make_node("QuantizeLinear", inputs, [f"{x}/q"], name=f"{x}/q"))
            # one for each reader
            inputs, one = [f"{x}/q", f"{x}/scale", zero], f"{node.name}/x/dq"
            nodes.append(helper.make_node("DequantizeLinear", inputs, [one], name=one))
            if w not in weights:
                weights[w] = flow.constants[w]
                nodes.append(_quantized_weight(model, node, flow, w, precision, high))
            node.input[0], node.input[1] = one, f"{w}/dq"
        nodes.append(node)
    replace_nodes(model, nodes)
    _keep_from_gemm(model, {node.output[0] for node in chosen})
    _drop_unused(model)


def _keep_from_gemm(model: onnx.ModelProto, products: set[str]) -> None:
    """Give the biases behind quantized products in the blocks three dimensions, [1, 1, n].

    ONNX Runtime makes a float Gemm of a MatMul and a bias of one dimension, before it looks for
    int8 products; then none of them is one (ViT-B/16: 1 of 50 instead of 49, and slower than fp32).
    """
    biases = {
        name
        for node in model.graph.node
        if node.op_type == "Add" and node.name.startswith("blocks.")
        for name in node.input
        if products & set(node.input)
    }
    for tensor in model.graph.initializer:
        if tensor.name in biases and len(tensor.dims) == 1:
            size = tensor.dims[0]
            del tensor.dims[:]
            tensor.dims.extend([1, 1, size])


def _quantized_weight(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    flow: Dataflow,
    name: str,
    precision: str,
    high: str,
) -> onnx.NodeProto:
    """The weight as small numbers with a scale for each output channel, and its DequantizeLinear.

    One fused QKV linear in this form makes TensorRT dequantize it; ours are three.
    """
    elem, largest = _ELEMENTS[precision], _LARGEST[precision]
    w = np.asarray(flow.array(name), dtype=np.float64)
    axis = _output_axis(node)
    others = tuple(i for i in range(w.ndim) if i != axis)
    scale = _scale(np.abs(w).max(axis=others) / largest, high)
    shape = [-1 if i == axis else 1 for i in range(w.ndim)]
    steps = np.clip(w / scale.reshape(shape), -largest, largest)
    steps = np.rint(steps) if precision == "int8" else steps
    channels = len(scale)
    _constant(model, f"{name}/q", steps.astype(numpy_type(elem)), elem)
    _constant(model, f"{name}/scale", scale.astype(np.float32), TensorProto.FLOAT)
    zero = f"{name}/zero"  # of its own: ONNX Runtime 1.32 fails on one that linears share
    _constant(model, zero, np.zeros(channels, numpy_type(elem)), elem)
    inputs = [f"{name}/q", f"{name}/scale", zero]
    return helper.make_node(
        "DequantizeLinear", inputs, [f"{name}/dq"], name=f"{name}/dq", axis=axis
    )


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else 1


def _scale(scale: NDArray[np.float64], high: str) -> NDArray[np.float64]:
    """A scale as the graph will hold it: rounded to its type, never 0 or subnormal."""
    kind = np.float16 if high == "fp16" else np.float32
    return np.asarray(np.maximum(scale, np.finfo(kind).tiny).astype(kind), dtype=np.float64)


def _constant(model: onnx.ModelProto, name: str, value: NDArray[Any], elem: int) -> None:
    if any(tensor.name == name for tensor in model.graph.initializer):
        return
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type = name, elem
    tensor.dims.extend(value.shape)
    tensor.raw_data = value.tobytes()


def _drop_unused(model: onnx.ModelProto) -> None:
    """Weights that only their quantized form is left of."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    fresh = [onnx.TensorProto.FromString(t.SerializeToString()) for t in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(fresh)
