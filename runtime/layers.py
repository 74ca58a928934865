"""What TensorRT-RTX compiled a graph to, read off the text of its build log."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["Layer", "Structure", "bytes_of", "last_node", "messages", "structure"]

_LAYER = re.compile(
    r"^(?:VERBOSE: )?Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<rest>.*)$", re.M
)
_PARTS = re.compile(
    r"\[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: "
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kernel of an engine.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's: gemm, kgen, runtime_fusion, correlation (a convolution).
        inputs, constants, outputs: their data types, as TensorRT writes them.
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
        if self.kind == "correlation":
            return "conv"
        if self.kind == "gemm" or _GEMM.search(self.name):
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
        operands = (*self.constants, *self.inputs) if self.role == "gemm" else self.inputs
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
            "unfused_softmax": list(self.unfused),
            "norms": self.count("norm"),
            "types": dict(Counter(layer.type for layer in self.layers)),
            "gemms": dict(Counter(x.type for x in self.layers if x.role in ("gemm", "conv"))),
            "dequantized_gemms": list(self.dequantized),
        }


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


def last_node(log: str) -> tuple[str, str] | None:
    """(name, operator) of the node that the parser began last."""
    found = _PARSING.findall(log)
    return found[-1] if found else None


def messages(log: str, *severities: str) -> list[str]:
    """The log's messages of some severities."""
    return [text for severity, text in _MESSAGE.findall(log) if severity in severities]


def bytes_of(log: str, what: str) -> int | None:
    """`Total WHAT Memory: N bytes`."""
    found = re.search(rf"Total {what} Memory: (\d+) bytes", log)
    return None if found is None else int(found[1])


def _edges(log: str, side: str) -> list[tuple[str, list[str]]]:
    """(node, its values) for each node that the parser took in; side is inputs or outputs."""
    lines = re.findall(rf"^VERBOSE: (.*) \[\w+\] {side}: (.*)$", log, re.M)
    return [(node, re.findall(r"(?:^|, )\[(.*?) -> ", values)) for node, values in lines]


def _layer(match: re.Match[str]) -> Layer:
    parts = _PARTS.match(match["rest"])
    texts = parts.groups() if parts else (match["rest"], "", "")
    inputs, constants, outputs = (tuple(_DATATYPE.findall(text)) for text in texts)
    return Layer(
        name=match["name"],
        kind=match["kind"],
        inputs=inputs,
        constants=constants,
        outputs=outputs,
        nodes=tuple(dict.fromkeys(_NODE.findall(match["rest"]))),
    )
