"""fp16 and bf16: a finished fp32 graph, typed anew.

TensorRT 11 runs what the graph says, so the graph says it: every floating-point value has one type,
and Casts stand where types meet. Constants are cast once, from what was folded in float64. In fp32
stay: islands (by request), what sums many numbers or squares them (RMSNorm, means over tokens),
what TopK chooses by, from the last sum on (which tokens merge), pixels that the graph normalises
itself, and operators that lack the low type at this opset.
LayerNormalization takes the low type: it computes its statistics in fp32 (`stash_type`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vptkit.export.analysis.dataflow import (
    ELEMENTWISE,
    LINEAR,
    Dataflow,
    groups_of,
    in_islands,
    replace_nodes,
)

from .pixel_centring import CENTRED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["LOW_TYPES", "TypedReport", "cast_array", "numpy_type", "typed"]

LOW_TYPES: dict[str, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# Tables that a session feeds in the graph's own type; all other inputs and outputs keep theirs.
_LOW_INPUTS = "bank."
_SUMS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSumExp"}
)
_WIDE = _SUMS | {"Sqrt", "Reciprocal", "Pow", "Exp", "Log", "LpNormalization"}
_SQUARES = frozenset({"Mul", "Pow", "Abs"})
_SUFFIX: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}


@dataclass(slots=True, kw_only=True)
class TypedReport:
    """What typing a graph did.

    Attributes:
        low: nodes that compute in the low type.
        wide: nodes that compute in fp32, by the reason: "island", "sums", "choice", "pixels",
            "operator".
        casts: Casts inserted.
        constants: numbers cast to the low type.
        subnormal, zero, saturated: of these, how many became subnormal, became zero without having
            been zero, or lay beyond the type's range and were cut to it.
    """

    low: int = 0
    wide: dict[str, int] = field(default_factory=dict)
    casts: int = 0
    constants: int = 0
    subnormal: int = 0
    zero: int = 0
    saturated: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the manifest writes it."""
        return asdict(self)


def numpy_type(elem: int) -> np.dtype[Any]:
    """The numpy dtype of an element type (bfloat16 and float8 come with onnx, from ml_dtypes)."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem))


def cast_array(value: NDArray[Any], elem: int) -> tuple[NDArray[Any], dict[str, int]]:
    """Round to a low type; finite numbers beyond its range become its largest.

    Returns:
        The array, and counts: "constants", "subnormal", "zero", "saturated" (see `TypedReport`).
    """
    largest, tiny = _range(elem)
    cut = np.where(np.isfinite(value), np.clip(value, -largest, largest), value)
    low = cut.astype(numpy_type(elem))
    back = np.abs(low.astype(np.float64))
    counts = {
        "constants": int(value.size),
        "subnormal": int(((back > 0) & (back < tiny)).sum()),
        "zero": int(((back == 0) & (value != 0)).sum()),
        "saturated": int((cut != value).sum()),
    }
    return low, counts


def typed(
    model: onnx.ModelProto, precision: str, islands: tuple[str, ...] = ()
) -> tuple[onnx.ModelProto, TypedReport]:
    """A typed copy of an fp32 graph.

    Args:
        model: fp32, as `export` writes it; QuantizeLinear and DequantizeLinear may stand in it.
        precision: "fp16" or "bf16".
        islands: groups (`dataflow.groups_of`) that stay in fp32.

    Returns:
        The typed graph, with the same inputs and outputs, and what was done. Inputs named `bank.*`
        take the low type.
    """
    elem, flow = LOW_TYPES[precision], Dataflow.of(model)
    reasons = _wide_nodes(flow, elem, islands)
    report = TypedReport()
    for reason in reasons.values():
        report.wide[reason] = report.wide.get(reason, 0) + 1
    return _Rewriter(flow, elem, reasons, report).run(), report


def _range(elem: int) -> tuple[float, float]:
    """Largest finite and smallest normal number."""
    if elem == TensorProto.BFLOAT16:
        return 3.3895313892515355e38, 1.1754943508222875e-38
    info = np.finfo(np.float16)
    return float(info.max), float(info.tiny)


# which nodes stay in fp32 -------------------------------------------------------------------------


def _wide_nodes(flow: Dataflow, elem: int, islands: tuple[str, ...]) -> dict[str, str]:
    """Node → why it computes in fp32."""
    groups = groups_of(flow.model)
    pixels, sums, choices = _pixel_nodes(flow), _summing_nodes(flow), _choosing_nodes(flow)
    reasons: dict[str, str] = {}
    for node in flow.model.graph.node:
        if not any(flow.is_float(name) for name in (*node.input, *node.output)):
            continue
        if in_islands(groups[node.name], islands):
            reasons[node.name] = "island"
        elif node.name in pixels:
            reasons[node.name] = "pixels"
        elif node.name in sums:
            reasons[node.name] = "sums"
        elif node.name in choices:
            reasons[node.name] = "choice"
        elif not _takes(node, elem, flow.model):
            reasons[node.name] = "operator"
    return reasons


def _pixel_nodes(flow: Dataflow) -> set[str]:
    """What turns pixels into the first linear's input; in low types only if they are centred."""
    found: set[str] = set()
    if any(node.name == CENTRED for node in flow.model.graph.node):
        return found
    reached = {"images", "pixels"}
    for node in flow.model.graph.node:
        if node.op_type not in LINEAR | {"Shape"} and reached & set(node.input):
            found.add(node.name)
            reached |= set(node.output)
    return found


def _summing_nodes(flow: Dataflow) -> set[str]:
    """Sums over many numbers, squares that go into them, and what is computed from the sums.

    A sum over tokens or channels may be far larger than its terms. It stays in fp32 through further
    additions and scalings, until it meets a full-sized value (RMSNorm's division, which is in fp32
    too) or another operator.
    """
    found: set[str] = set()
    small: set[str] = set()  # values computed from sums alone
    for node in flow.model.graph.node:
        varying = [n for n in node.input if flow.is_float(n) and n not in flow.constants]
        if node.op_type in _SUMS:
            found.add(node.name)
            small |= set(node.output)
            maker = flow.makers.get(node.input[0])
            if maker is not None and maker.op_type in _SQUARES and _is_square(maker):
                found.add(maker.name)
        elif node.op_type in _WIDE or (node.op_type in ELEMENTWISE and small & set(varying)):
            found.add(node.name)
            if varying and small >= set(varying):
                small |= set(node.output)
    return found


def _choosing_nodes(flow: Dataflow) -> set[str]:
    """Each TopK and what it chooses by, back to a sum or an integer.

    Low types have few numbers near one, where similarities lie, and bfloat16 no integers above 256.
    """
    found: set[str] = set()
    ahead = [node for node in flow.model.graph.node if node.op_type == "TopK"]
    while ahead:
        node = ahead.pop()
        found.add(node.name)
        if node.op_type not in _SUMS:
            makers = (flow.makers.get(name) for name in node.input if flow.is_float(name))
            ahead += [maker for maker in makers if maker is not None and maker.name not in found]
    return found


def _is_square(node: onnx.NodeProto) -> bool:
    return node.op_type != "Mul" or node.input[0] == node.input[1]


def _takes(node: onnx.NodeProto, elem: int, model: onnx.ModelProto) -> bool:
    """Whether an operator has the type at the graph's opset (Conv learnt bfloat16 in opset 22)."""
    opset = next(o.version for o in model.opset_import if o.domain == "")
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    name = "tensor(float16)" if elem == TensorProto.FLOAT16 else "tensor(bfloat16)"
    place = 1 if node.op_type == "Where" else 0
    by_output = node.op_type in ("Cast", "DequantizeLinear")
    formal = schema.outputs[0] if by_output else schema.inputs[place]
    return name in formal.types


# rewriting ----------------------------------------------------------------------------------------


class _Rewriter:
    """Walks the nodes once; `made` is the type that each value has in the new graph."""

    def __init__(
        self, flow: Dataflow, elem: int, reasons: dict[str, str], report: TypedReport
    ) -> None:
        self.flow, self.elem, self.reasons, self.report = flow, elem, reasons, report
        self.model = onnx.ModelProto()
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, int] = {}
        self.casts: dict[tuple[str, int], str] = {}
        self.wanted: dict[str, set[int]] = {}  # constant → types that are read

    def run(self) -> onnx.ModelProto:
        source, flow = self.flow.model, self.flow
        self._copy_signature(source)
        outputs = {value.name for value in source.graph.output if flow.is_float(value.name)}
        for node in source.graph.node:
            self._node(node)
        self._finish_outputs(outputs)
        self._constants(source)
        replace_nodes(self.model, self.nodes)
        return self.model

    def _copy_signature(self, source: onnx.ModelProto) -> None:
        graph = self.model.graph
        self.model.ir_version = source.ir_version
        self.model.producer_name = source.producer_name
        self.model.producer_version = source.producer_version
        self.model.opset_import.extend(source.opset_import)
        graph.name = source.graph.name
        graph.input.extend(source.graph.input)
        graph.output.extend(source.graph.output)
        for value in graph.input:
            kind = value.type.tensor_type
            if value.name.startswith(_LOW_INPUTS) and self.flow.is_float(value.name):
                kind.elem_type = self.elem
            self.made[value.name] = kind.elem_type

    def _node(self, node: onnx.NodeProto) -> None:
        flow, fresh = self.flow, onnx.NodeProto()
        fresh.CopyFrom(node)
        floats = [name for name in (*node.input, *node.output) if flow.is_float(name)]
        wide = node.name in self.reasons
        wanted = TensorProto.FLOAT if wide else self.elem
        if floats and not wide:
            self.report.low += 1
        if node.op_type == "Cast":
            self._cast_node(fresh, wanted)
        else:
            for i, name in enumerate(node.input):
                if flow.is_float(name):
                    fresh.input[i] = self._as(name, wanted)
            for name in node.output:
                self.made[name] = wanted if flow.is_float(name) else flow.types.get(name, 0)
        self.nodes.append(fresh)

    def _cast_node(self, node: onnx.NodeProto, wanted: int) -> None:
        """A Cast to fp32 becomes one to the node's type; its own input may have any type."""
        if self.flow.is_float(node.output[0]):
            for attribute in node.attribute:
                if attribute.name == "to":
                    attribute.i = wanted
            self.made[node.output[0]] = wanted
        name = node.input[0]
        if self.flow.is_float(name) and name in self.flow.constants:
            node.input[0] = self._as(name, wanted)

    def _as(self, name: str, wanted: int) -> str:
        """The name under which a value can be read in a type."""
        if name in self.flow.constants:
            self.wanted.setdefault(name, set()).add(wanted)
            return self._constant_name(name, wanted)
        if self.made[name] == wanted:
            return name
        key = (name, wanted)
        if key not in self.casts:
            label = f"{name}/{_SUFFIX[wanted]}"
            self.nodes.append(helper.make_node("Cast", [name], [label], name=label, to=wanted))
            self.casts[key] = label
            self.report.casts += 1
        return self.casts[key]

    def _constant_name(self, name: str, wanted: int) -> str:
        return name if wanted == self.elem else f"{name}/{_SUFFIX[wanted]}"

    def _finish_outputs(self, outputs: Iterable[str]) -> None:
        """Outputs keep their fp32."""
        for name in sorted(outputs):
            if self.made[name] == TensorProto.FLOAT:
                continue
            inner = f"{name}/{_SUFFIX[self.elem]}"
            for node in self.nodes:
                _rename(node.input, name, inner)
                _rename(node.output, name, inner)
            self.nodes.append(
                helper.make_node("Cast", [inner], [name], name=f"{name}/Cast", to=TensorProto.FLOAT)
            )
            self.report.casts += 1

    def _constants(self, source: onnx.ModelProto) -> None:
        for tensor in source.graph.initializer:
            if tensor.data_type != TensorProto.FLOAT:
                self.model.graph.initializer.add().CopyFrom(tensor)
                continue
            for wanted in sorted(self.wanted.get(tensor.name, ())):
                target = self.model.graph.initializer.add()
                if wanted == TensorProto.FLOAT:
                    target.CopyFrom(tensor)
                else:
                    value, counts = cast_array(numpy_helper.to_array(tensor), wanted)
                    target.data_type = wanted
                    target.dims.extend(value.shape)
                    target.raw_data = value.tobytes()
                    for key, count in counts.items():
                        setattr(self.report, key, getattr(self.report, key) + count)
                target.name = self._constant_name(tensor.name, wanted)


def _rename(names: Any, old: str, new: str) -> None:
    for i, name in enumerate(names):
        if name == old:
            names[i] = new
