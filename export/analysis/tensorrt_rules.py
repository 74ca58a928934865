"""What each TensorRT takes of a graph, by rules: for machines without TensorRT-RTX.

The rules come from onnx-tensorrt's operators.md (8.5 GA, 10.15) and from builds with TensorRT-RTX
1.7, which reads graphs as TensorRT 11 does. The tests hold them against that library. Where a
version's own list was not seen, a doubt is a warning, never an error.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import onnx
from onnx import TensorProto, numpy_helper

from vptkit.errors import VptkitError

from .attention_fusion import fusion_obstacles
from .dataflow import Dataflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["VERSIONS", "Finding", "Verdict", "check_rules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact about a graph and a version.

    Attributes:
        level: "error" does not parse or build; "warning" is slow, or not known.
        node, operator: of the graph, or None where it is about the whole.
        message: what came and what is taken.
    """

    level: Literal["error", "warning"]
    node: str | None
    operator: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one version makes of a graph."""

    version: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """No error."""
        return all(finding.level != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As `vptkit check --oracle rules --json` prints it."""
        return {"trt": self.version, "ok": self.ok, "findings": [asdict(f) for f in self.findings]}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """Of one version: newest opset known to parse, IR, and what is there.

    An opset above `opset` is an error where the version's list was seen, else a warning.
    """

    opset: int
    opset_seen: bool
    ir: int
    types: frozenset[int]
    operators: frozenset[str]
    contrib: frozenset[str] = frozenset()


_LISTED_85 = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
    Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GridSample GRU HardSigmoid HardSwish Identity If InstanceNormalization IsNaN
    LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max
    MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or
    Pad Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign Round Scan
    Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Upsample Where Xor
"""
_OPERATORS_85 = frozenset(_LISTED_85.split())
_OPERATORS_86 = _OPERATORS_85 | {"LayerNormalization"}
_OPERATORS_100 = _OPERATORS_86 | {"CastLike", "Gelu", "GroupNormalization", "Hardmax", "IsInf"}
_OPERATORS_1015 = _OPERATORS_100 | {"Attention", "Mish", "RMSNormalization", "RotaryEmbedding"}
_OPERATORS_11 = _OPERATORS_1015 | {"Swish"}

_T = TensorProto
_TYPES_86 = frozenset(
    (_T.FLOAT, _T.FLOAT16, _T.DOUBLE, _T.INT32, _T.INT64, _T.INT8, _T.UINT8, _T.BOOL)
)
_TYPES_10 = _TYPES_86 | {_T.BFLOAT16, _T.FLOAT8E4M3FN, _T.INT4}
# Quantized types come from QuantizeLinear only; uint8 is for inputs and outputs of the network
_UINT8_READERS = frozenset({"Cast", "CastLike", "Shape"})

_RULES = {
    "8.6": _Rules(opset=17, opset_seen=True, ir=9, types=_TYPES_86, operators=_OPERATORS_86),
    "10.0": _Rules(opset=20, opset_seen=True, ir=10, types=_TYPES_10, operators=_OPERATORS_100),
    "10.3": _Rules(opset=20, opset_seen=False, ir=10, types=_TYPES_10, operators=_OPERATORS_100),
    "10.13": _Rules(opset=20, opset_seen=False, ir=10, types=_TYPES_10, operators=_OPERATORS_100),
    "10.16": _Rules(opset=24, opset_seen=False, ir=13, types=_TYPES_10, operators=_OPERATORS_1015),
    "11.4": _Rules(
        opset=27,
        opset_seen=False,
        ir=13,
        types=_TYPES_10,
        operators=_OPERATORS_11,
        contrib=frozenset({"Gelu"}),
    ),
}
VERSIONS = tuple(_RULES)


def check_rules(model: onnx.ModelProto, versions: Sequence[str] = VERSIONS) -> list[Verdict]:
    """Judge a graph.

    Args:
        model: with or without its external data.
        versions: of TensorRT, some of VERSIONS.

    Raises:
        VptkitError: no rules for a version.
    """
    for version in versions:
        if version not in _RULES:
            raise VptkitError(f"TensorRT {version!r}: expected one of {', '.join(VERSIONS)}")
    flow = _flow(model)
    types = flow.types
    attentions = [
        Finding(level="warning", node=node.name, operator=node.op_type, message=reason)
        for node, reason in fusion_obstacles(flow)
    ]
    verdicts = []
    for version in versions:
        rules = _RULES[version]
        findings = [*_header(model, rules, version), *_kinds(model, rules, version)]
        findings += _values(model, rules, types, version)
        findings += attentions
        findings += _builder_flags(types, version)
        verdicts.append(Verdict(version=version, findings=tuple(findings)))
    return verdicts


def _header(model: onnx.ModelProto, rules: _Rules, version: str) -> Iterator[Finding]:
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if opset > rules.opset:
        yield Finding(
            level="error" if rules.opset_seen else "warning",
            node=None,
            operator=None,
            message=f"opset {opset}: TensorRT {version} is known to parse opsets up to "
            f"{rules.opset}",
        )
    if model.ir_version > rules.ir:
        yield Finding(
            level="warning",
            node=None,
            operator=None,
            message=f"IR version {model.ir_version}: newer than TensorRT {version}'s {rules.ir}",
        )


def _kinds(model: onnx.ModelProto, rules: _Rules, version: str) -> Iterator[Finding]:
    """Operators that the version does not have."""
    for node in model.graph.node:
        known = rules.operators if node.domain in ("", "ai.onnx") else rules.contrib
        if node.op_type not in known:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            yield _error(node, f"operator {name}: not in TensorRT {version}")


def _values(
    model: onnx.ModelProto, rules: _Rules, types: dict[str, int], version: str
) -> Iterator[Finding]:
    """Data types that the version, or a node, does not take."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for value in (*node.input, *node.output):
            kind = types.get(value)
            if kind is not None and kind not in rules.types:
                yield _error(node, f"{value} is {_word(kind)}: not in TensorRT {version}")
                break
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from _quantized(node, types, constants, newest=version.startswith("11."))
        if node.op_type == "Attention" and types.get(node.input[0]) == _T.FLOAT:
            yield _error(node, "Attention in float32: there is a kernel for low precision only")
        if node.op_type not in (*_UINT8_READERS, "QuantizeLinear", "DequantizeLinear"):
            yield from _uint8(node, types)


def _quantized(
    node: onnx.NodeProto, types: dict[str, int], constants: dict[str, TensorProto], *, newest: bool
) -> Iterator[Finding]:
    low = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
    kind = types.get(low)
    # TensorRT-RTX 1.7 does build activations of uint8, though the lists do not have them
    if kind == _T.UINT8 and newest and low not in constants:
        pass
    elif kind in (_T.UINT8, _T.INT32, _T.INT16, _T.UINT16):
        yield _error(node, f"{low} is {_word(kind)}: only symmetric int8 (fp8, int4) is taken")
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero is None or zero.data_location == TensorProto.EXTERNAL:
        return
    if numpy_helper.to_array(zero).astype("float32").any():
        yield _error(node, f"zero point {zero.name} is not 0")


def _uint8(node: onnx.NodeProto, types: dict[str, int]) -> Iterator[Finding]:
    for value in node.input:
        if types.get(value) == _T.UINT8:
            yield _error(node, f"{value} is uint8: a network's input that only Cast may read")
            return


def _builder_flags(types: dict[str, int], version: str) -> Iterator[Finding]:
    """TensorRT 8 has no strongly typed networks."""
    low = {_T.FLOAT16: "FP16", _T.INT8: "INT8"}
    flags = [flag for kind, flag in low.items() if kind in types.values()]
    if version.startswith("8.") and flags:
        yield Finding(
            level="warning",
            node=None,
            operator=None,
            message=f"TensorRT {version} needs the builder flags {', '.join(flags)} for these types",
        )


def _error(node: onnx.NodeProto, message: str) -> Finding:
    return Finding(
        level="error", node=node.name or node.output[0], operator=node.op_type, message=message
    )


def _word(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _flow(model: onnx.ModelProto) -> Dataflow:
    """Dataflow; where inference fails (on an unknown operator), with the declared types only."""
    try:
        return Dataflow.of(model)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        del bare.graph.node[:]
        flow = Dataflow.of(bare)
        makers = {value: node for node in model.graph.node for value in node.output}
        return replace(flow, model=model, makers=makers)
