"""Scale migration (SmoothQuant), exact: from what goes into linears into their weights.

x̂ W = (x̂ diag 1/s) (diag s W). The folded x̂ is a LayerNormalization whose scale is all ones, so 1/s
goes in there and costs nothing. Behind an activation (fc2) it is one more multiplication by a vector,
and worth it: in ViT-Ti the few large channels there made most of int8's error. With s_c = max|x̂_c|^a / max|W_c|^(1-a) channels of unlike size
share one quantization step fairly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

from vptkit.export.analysis.dataflow import ELEMENTWISE, LAYOUT, Dataflow, replace_nodes

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from vptkit.export.numerics.calibration import Spread

__all__ = ["SMOOTHED", "smooth"]

SMOOTHED = "/smooth"  # how a value ends that got a multiplication of its own


def smooth(
    model: onnx.ModelProto,
    spreads: dict[str, Spread],
    share: float,
    activation_share: float | None = None,
) -> int:
    """Migrate scales in place, wherever every reader of a norm or an activation is a linear.

    Args:
        model: fp32.
        spreads: magnitudes of the values that will be quantized, by name.
        share: a, how much of a norm's scale moves.
        activation_share: likewise behind an activation; the same unless given.

    Returns:
        How many values were rescaled.
    """
    flow, count = Dataflow.of(model), 0
    for name in [node.name for node in model.graph.node]:
        node = next(one for one in model.graph.node if one.name == name)
        value = node.output[0]
        if node.op_type == "LayerNormalization" and len(node.input) == 3:
            into_norm = True
        elif value in spreads and node.op_type in ELEMENTWISE:
            into_norm = False
        else:
            continue
        linears = _linear_readers(flow, node.output[0])
        watched = [spreads[x].channel_max for x in {n.input[0] for n in linears} if x in spreads]
        if not linears or not watched or any(n.input[0] not in spreads for n in linears):
            continue
        weights = [flow.constants[n.input[1]] for n in linears]
        if any(len(flow.readers[w.name]) > 1 for w in weights):
            continue
        activation = np.max([w for w in watched if w is not None], axis=0).astype(np.float64)
        matrices = [numpy_helper.to_array(w).astype(np.float64) for w in weights]
        largest = np.max([np.abs(m).max(axis=1) for m in matrices], axis=0)
        part = share if into_norm or activation_share is None else activation_share
        s = np.maximum(activation, 1e-5) ** part / np.maximum(largest, 1e-5) ** (1 - part)
        for tensor, matrix in zip(weights, matrices, strict=True):
            scaled = (s[:, None] * matrix).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
        if into_norm:
            _rescale(model, flow, node, 1.0 / s)
        else:
            _multiply(model, linears, value, 1.0 / s)
            flow = Dataflow.of(model)  # the nodes were replaced
        count += 1
    return count


def _linear_readers(flow: Dataflow, value: str) -> list[onnx.NodeProto]:
    """The MatMuls behind a value, through slices; empty if anything else reads it."""
    found: list[onnx.NodeProto] = []
    for reader in flow.readers.get(value, []):
        if reader.op_type == "MatMul" and flow.weight_of(reader) and reader.input[0] == value:
            found.append(reader)
        elif reader.op_type in LAYOUT - {"Reshape", "Transpose"} and _keeps_channels(flow, reader):
            deeper = _linear_readers(flow, reader.output[0])
            if not deeper:
                return []
            found += deeper
        else:
            return []
    return found


def _keeps_channels(flow: Dataflow, node: onnx.NodeProto) -> bool:
    before, after = flow.shapes.get(node.input[0]), flow.shapes.get(node.output[0])
    return bool(before and after and before[-1] == after[-1] and len(before) == len(after))


def _multiply(
    model: onnx.ModelProto, linears: list[onnx.NodeProto], value: str, factor: NDArray[np.float64]
) -> None:
    """A multiplication between a value and the linears that read it."""
    constant, scaled = f"{value}{SMOOTHED}/factor", f"{value}{SMOOTHED}"
    model.graph.initializer.append(numpy_helper.from_array(factor.astype(np.float32), constant))
    nodes = list(model.graph.node)
    first = min(i for i, node in enumerate(nodes) if value in node.input)
    for node in linears:
        node.input[0] = scaled
    added = helper.make_node("Mul", [value, constant], [scaled], name=scaled)
    replace_nodes(model, [*nodes[:first], added, *nodes[first:]])


def _rescale(
    model: onnx.ModelProto, flow: Dataflow, norm: onnx.NodeProto, factor: NDArray[np.float64]
) -> None:
    """Multiply a LayerNormalization's scale and bias, in constants of its own."""
    for place, label in ((1, "weight"), (2, "bias")):
        value = flow.array(norm.input[place]).astype(np.float64) * factor
        name = f"{norm.output[0]}/{label}/smooth"
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        norm.input[place] = name
