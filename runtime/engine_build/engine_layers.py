"""What TensorRT compiled a graph to: read off the engine inspector's JSON, or off the build log.

Without a GPU only TensorRT-RTX's log tells. The inspector's JSON (profiling verbosity DETAILED) is
read as documented: up to 10.x a tensor has "Format/Datatype", from 11 on "Format" and "DataType"
(or "Datatype") apart. Unverified: no inspector was asked here, for lack of a GPU.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Layer",
    "Structure",
    "bytes_of",
    "last_node",
    "located",
    "messages",
    "structure",
    "structure_of_engine",
]

_LAYER = re.compile(
    r"^(?:VERBOSE: )?Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<rest>.*)$", re.M
)
_PARTS = re.compile(
    r"\[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: "
)
_TENSOR = re.compile(r"Dimensions: \[([^\]]*)\].*?Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_PARSING = re.compile(r"^VERBOSE: Parsing node: (.*) \[(\w+)\]$", re.M)
_MESSAGE = re.compile(r"^(ERROR|INTERNAL_ERROR|WARNING): (.*)$", re.M)

# Kernels are called after the operations in them: Fc is a GEMM, Maxr the row maximum of a softmax.
_ATTENTION = re.compile(r"mha|fmha|attention", re.I)
_SOFTMAX = re.compile(r"Maxr(?!o)|[Ss]oftmax|SoftMax")
_NORM = re.compile(r"MeanSub|MulMean")
_GEMM = re.compile(r"Fc|MulSum")  # MulSum: one row times a matrix
_DEQUANTIZED = re.compile(r"Cast(Mul)?Fc|CastMulSum")
_QUANTIZED = frozenset({"Int8", "FP8", "Fp8", "E4M3"})
# The inspector says "Half", or "Row major linear FP16 format" of tensors outside its own compiler.
_SPELLINGS = (
    (re.compile(r"\bbf16|bfloat16", re.I), "BFloat16"),
    (re.compile(r"\bfp8|e4m3", re.I), "FP8"),
    (re.compile(r"\bfp16|half", re.I), "Half"),
    (re.compile(r"\bfp32|float", re.I), "Float"),
    (re.compile(r"\buint8", re.I), "UInt8"),
    (re.compile(r"\bint8", re.I), "Int8"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kernel of an engine.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's: gemm, kgen, runtime_fusion, correlation (a convolution).
        inputs, constants, outputs: their data types, as TensorRT writes them; of the constants
            those of one number are left out (the factors of a GEMM).
        nodes: names of the ONNX nodes that went into it.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def role(self) -> str:
        """attention, softmax (not fused), gemm, conv, norm or other."""
        if _ATTENTION.search(self.name):
            return "attention"
        if self.kind == "correlation" or "Convolution" in self.kind:
            return "conv"
        if self.kind == "gemm" or "MatrixMultiply" in self.kind or _GEMM.search(self.name):
            return "gemm"
        if _SOFTMAX.search(self.name):
            return "softmax"
        return "norm" if _NORM.search(self.name) else "other"

    @property
    def dequantized(self) -> bool:
        """A GEMM of a quantized linear that multiplies in a higher type after all."""
        return self.role == "gemm" and bool(_DEQUANTIZED.search(self.name))

    @property
    def type(self) -> str:
        """Type that it computes in: a GEMM's is its weight's, others' that of the first input."""
        linear = self.role in ("gemm", "conv")
        operands = (*self.constants, *self.inputs) if linear else self.inputs
        if self.dequantized:
            operands = tuple(t for t in operands if t not in _QUANTIZED)
        low = next((t for t in operands if t in _QUANTIZED), None)
        return low or next(iter((*operands, *self.constants, *self.outputs)), "-")

    def to_json(self) -> dict[str, Any]:
        """As `vptkit check --layers` prints it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "role": self.role,
            "type": self.type,
            "types": sorted({*self.inputs, *self.constants, *self.outputs}),
            "nodes": list(self.nodes),
        }


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The layers of an engine, and what became of the nodes that matter.

    Attributes:
        layers: in the order of execution.
        operators: node → operator of the ONNX graph.
        quantized: MatMul, Gemm and Conv nodes both of whose operands are dequantized.
    """

    layers: tuple[Layer, ...]
    operators: dict[str, str]
    quantized: tuple[str, ...]

    @cached_property
    def opaque(self) -> tuple[str, ...]:
        """Layers that hide the kernels in them (TensorRT 8 shows its compiler's work as one)."""
        return tuple(layer.name for layer in self.layers if "ForeignNode" in layer.name)

    @cached_property
    def fused(self) -> tuple[Layer, ...]:
        """Attentions in one kernel."""
        return tuple(layer for layer in self.layers if layer.role == "attention")

    @cached_property
    def unfused(self) -> tuple[str, ...]:
        """Softmax nodes outside fused attention."""
        inside = {node for layer in self.fused for node in layer.nodes}
        found = [n for n, operator in self.operators.items() if operator == "Softmax"]
        return tuple(n for n in found if n not in inside)

    @cached_property
    def dequantized(self) -> tuple[str, ...]:
        """Quantized linears that nevertheless multiply in a higher type."""
        low = {
            node
            for layer in self.layers
            if layer.type in _QUANTIZED and layer.role in ("gemm", "conv", "attention")
            for node in layer.nodes
        }
        return tuple(node for node in self.quantized if node not in low)

    def count(self, role: str) -> int:
        """Layers of one role."""
        return sum(layer.role == role for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """The figures of a report."""
        return {
            "layers": len(self.layers),
            "fused_attentions": len(self.fused),
            "attentions": sum(operator == "Softmax" for operator in self.operators.values()),
            "unfused_softmax": list(self.unfused),
            "norms": self.count("norm"),
            "types": dict(Counter(layer.type for layer in self.layers)),
            "gemms": dict(Counter(x.type for x in self.layers if x.role in ("gemm", "conv"))),
            "dequantized_gemms": list(self.dequantized),
            "roles": self._roles(),
            "opaque": list(self.opaque),
        }

    def _roles(self) -> dict[str, dict[str, int]]:
        """Role → type → layers."""
        roles: dict[str, Counter[str]] = {}
        for layer in self.layers:
            roles.setdefault(layer.role, Counter())[layer.type] += 1
        return {role: dict(types) for role, types in sorted(roles.items())}


def structure(log: str) -> Structure:
    """Read a build log (profiling verbosity DETAILED, severities before each message)."""
    operators = dict(_PARSING.findall(log))
    made = {
        value: operators.get(node) for node, values in _edges(log, "outputs") for value in values
    }
    quantized = [
        node
        for node, values in _edges(log, "inputs")
        if operators.get(node) in ("MatMul", "Gemm", "Conv")
        and [made.get(value) for value in values[:2]] == ["DequantizeLinear"] * 2
    ]
    return Structure(
        layers=tuple(_layer(match) for match in _LAYER.finditer(log)),
        operators=operators,
        quantized=tuple(quantized),
    )


def structure_of_engine(inspector: str, log: str) -> Structure:
    """Read an engine inspector's JSON; the graph's nodes are known from the build log.

    Args:
        inspector: {"Layers": [...]}; layers that are mere names (another profiling verbosity) have
            no types.
        log: as of `structure`.
    """
    # not strict: a build must not be lost to the control characters that join names of nodes
    layers = json.loads(inspector, strict=False).get("Layers", [])
    return replace(structure(log), layers=tuple(_inspected(layer) for layer in layers))


def last_node(log: str) -> tuple[str, str] | None:
    """(name, operator) of the node that the parser began last."""
    found = _PARSING.findall(log)
    return found[-1] if found else None


def messages(log: str, *severities: str) -> list[str]:
    """The log's messages of some severities."""
    return [text for severity, text in _MESSAGE.findall(log) if severity in severities]


def bytes_of(log: str, what: str) -> int | None:
    """`Total WHAT Memory: N bytes`; up to TensorRT 10.0 the line ends behind the number."""
    found = re.search(rf"Total {what} Memory: (\d+)", log)
    return None if found is None else int(found[1])


def _edges(log: str, side: str) -> list[tuple[str, list[str]]]:
    """(node, its values) for each node that the parser took in; side is inputs or outputs."""
    lines = re.findall(rf"^VERBOSE: (.*) \[\w+\] {side}: (.*)$", log, re.M)
    return [(node, re.findall(r"(?:^|, )\[(.*?) -> ", values)) for node, values in lines]


def _layer(match: re.Match[str]) -> Layer:
    parts = _PARTS.match(match["rest"])
    texts = parts.groups() if parts else (match["rest"], "", "")
    inputs, constants, outputs = (_TENSOR.findall(text) for text in texts)
    return Layer(
        name=match["name"],
        kind=match["kind"],
        inputs=tuple(kind for _, kind in inputs),
        constants=tuple(kind for shape, kind in constants if shape not in ("", "1")),
        outputs=tuple(kind for _, kind in outputs),
        nodes=tuple(dict.fromkeys(_NODE.findall(match["rest"]))),
    )


def _inspected(layer: Mapping[str, Any] | str) -> Layer:
    if isinstance(layer, str):
        return Layer(name=layer, kind="", inputs=(), constants=(), outputs=(), nodes=())
    constants = _types(
        t for t in layer.get("Constants", ()) if t.get("Dimensions") not in ([], [1])
    )
    weights = layer.get("Weights")
    if isinstance(weights, dict) and "Type" in weights:
        constants = (_spelled(str(weights["Type"])), *constants)
    return Layer(
        name=str(layer.get("Name", "")),
        kind=str(layer.get("LayerType", "")),
        inputs=_types(layer.get("Inputs", ())),
        constants=constants,
        outputs=_types(layer.get("Outputs", ())),
        nodes=tuple(dict.fromkeys(_NODE.findall(str(layer.get("Metadata", ""))))),
    )


def _types(tensors: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    found = []
    for tensor in tensors:
        keys = [key for key in tensor if key.lower() in ("format/datatype", "datatype")]
        found.append(_spelled(str(tensor[keys[0]])) if keys else "-")
    return tuple(found)


def _spelled(text: str) -> str:
    """A data type in the words of the build log."""
    return next((name for pattern, name in _SPELLINGS if pattern.search(text)), text)


def located(text: str, operators: dict[str, str]) -> dict[str, str | None]:
    """An error of the builder, with the graph's node that it names (the longest, if several)."""
    named = sorted((node for node in operators if node and node in text), key=len)
    node = named[-1] if named else None
    return {"node": node, "operator": operators[node] if node else None, "message": text}
