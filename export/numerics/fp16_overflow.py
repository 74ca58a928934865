"""The overflow map: the largest magnitudes on real images, and the headroom in fp16.

One streaming pass of the fp32 graph with one more output for each value that fp16 would have to
hold: its largest absolute value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from vptkit.export.analysis.dataflow import ELEMENTWISE, LAYOUT, Dataflow, groups_of, replace_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .evidence import Images, Runner

__all__ = ["FP16_MAX", "KINDS", "MIN_HEADROOM", "OverflowMap", "overflow_islands", "overflow_map"]

FP16_MAX = 65504.0
# Images that were not looked at may have larger values than those that were: two more bits.
MIN_HEADROOM = 4.0
KINDS = ("residual", "scores", "softmax_input", "mlp_hidden", "keys_values")
# Infinity is a fine argument of these: their results are bounded.
_BOUNDED = frozenset({"Tanh", "Sigmoid", "Erf", "Softmax"})
_SKIPPED = LAYOUT | {"Concat", "Expand", "Cast", "Softmax", "LayerNormalization", "Shape"}
_TAG = "|magnitude"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverflowMap:
    """Largest magnitudes over all images.

    Attributes:
        count: images.
        groups: group (`dataflow.groups_of`) → largest magnitude of any of its values.
        blocks: for each block, kind (one of KINDS) → largest magnitude, None where the block's form
            has no such value (keys and values of the absorbed last block).
        worst: name of the value with the largest magnitude.
        images: digest of the images.
    """

    count: int
    groups: dict[str, float]
    blocks: list[dict[str, float | None]] = field(repr=False)
    worst: str
    images: str

    def headroom(self, magnitude: float) -> float:
        """fp16's largest number over a magnitude."""
        return FP16_MAX / magnitude if magnitude > 0 else float("inf")

    def to_json(self) -> dict[str, Any]:
        """As `vptkit check --overflow --json` prints it; a headroom without magnitude is null."""
        largest = max(self.groups.values())
        rows = [
            {
                "block": i,
                **{kind: row[kind] for kind in KINDS},
                "headroom": min((self.headroom(v) for v in row.values() if v), default=None),
            }
            for i, row in enumerate(self.blocks)
        ]
        return {
            "images": self.count,
            "images_digest": self.images,
            "largest": largest,
            "worst": self.worst,
            "headroom": self.headroom(largest) if largest else None,
            "min_headroom": MIN_HEADROOM,
            "islands": list(overflow_islands(self)),
            "groups": self.groups,
            "blocks": rows,
        }


def overflow_islands(found: OverflowMap, min_headroom: float = MIN_HEADROOM) -> tuple[str, ...]:
    """The groups that fp16 cannot hold with the wanted headroom."""
    return tuple(g for g, m in found.groups.items() if found.headroom(m) < min_headroom)


def overflow_map(
    model: onnx.ModelProto,
    run: Runner,
    images: Images,
    tick: Callable[[int], None] = lambda _: None,
) -> OverflowMap:
    """Measure.

    Args:
        model: fp32, as it would be typed.
        run: opens a graph.
        images: real ones.
        tick: told how many images are done, after each batch.
    """
    flow = Dataflow.of(model)
    values = _watched(flow)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    nodes = list(probe.graph.node)
    for name in values:
        nodes.append(helper.make_node("Abs", [name], [f"{name}|abs"], name=f"{name}|abs"))
        nodes.append(
            helper.make_node(
                "ReduceMax", [f"{name}|abs"], [name + _TAG], name=name + _TAG, keepdims=0
            )
        )
        probe.graph.output.append(helper.make_tensor_value_info(name + _TAG, TensorProto.FLOAT, []))
    replace_nodes(probe, nodes)
    largest, opened = dict.fromkeys(values, 0.0), run(probe)
    del probe, nodes  # the session has constants of its own
    for batch in images.batches():
        outputs = opened(batch)
        for name in values:
            # NaN must not hide in a maximum
            largest[name] = float(np.maximum(largest[name], outputs[name + _TAG]))
        tick(len(batch))
    return _report(flow, largest, images)


def _watched(flow: Dataflow) -> list[str]:
    """Values that a low type would hold, except those that only feed bounded functions."""
    harmless: set[str] = set()
    for node in reversed(flow.model.graph.node):
        name = node.output[0]
        readers = flow.readers.get(name, [])
        if readers and all(
            r.op_type in _BOUNDED - {"Softmax"}
            or (r.op_type in ELEMENTWISE and r.output[0] in harmless)
            for r in readers
        ):
            harmless.add(name)
    return [
        node.output[0]
        for node in flow.model.graph.node
        if flow.is_float(node.output[0])
        and node.op_type not in _SKIPPED
        and node.output[0] not in harmless
    ]


def _report(flow: Dataflow, largest: dict[str, float], images: Images) -> OverflowMap:
    groups, kinds = groups_of(flow.model), _kinds(flow)
    by_group: dict[str, float] = {}
    by_block: dict[int, dict[str, float | None]] = {}
    for node in flow.model.graph.node:
        group, name = groups[node.name], node.output[0]
        if group.startswith("blocks."):
            block = by_block.setdefault(int(group.split(".")[1]), dict.fromkeys(KINDS))
            for kind in kinds.get(name, ()) if name in largest else ():
                block[kind] = max(block[kind] or 0.0, largest[name])
        if name in largest:
            by_group[group] = max(by_group.get(group, 0.0), largest[name])
    return OverflowMap(
        count=images.count,
        groups=by_group,
        blocks=[by_block[i] for i in sorted(by_block)],
        worst=max(largest, key=lambda name: largest[name]),
        images=images.digest,
    )


def _kinds(flow: Dataflow) -> dict[str, set[str]]:
    """Value → what it is, read off the operators around it."""
    kinds: dict[str, set[str]] = {}

    def mark(node: onnx.NodeProto | None, kind: str) -> None:
        if node is not None:
            kinds.setdefault(node.output[0], set()).add(kind)

    groups = groups_of(flow.model)
    for node in flow.model.graph.node:
        if node.op_type == "Softmax":
            _mark_attention(flow, node, mark)
        elif node.op_type == "Add" and groups[node.name].endswith(".residual"):
            mark(node, "residual")
        elif groups[node.name].endswith(".mlp") and flow.weight_of(node) is not None:
            mark(flow.origin(node.input[0]), "mlp_hidden")
            out = _with_bias(flow, node)
            if not any(groups[r.name].endswith(".residual") for r in _readers(flow, out)):
                mark(out, "mlp_hidden")
    return _without_norms(flow, kinds)


def _mark_attention(
    flow: Dataflow, softmax: onnx.NodeProto, mark: Callable[[onnx.NodeProto | None, str], None]
) -> None:
    scores = flow.origin(softmax.input[0])
    mark(scores, "softmax_input")
    # with a mask or a bias, the product stands before an addition; with prompts, behind a Concat
    products = [scores] if scores is not None else []
    while products:
        node = products.pop()
        if node.op_type == "MatMul":
            mark(node, "scores")
            _mark_keys(flow, node.input[1], mark)
        elif node.op_type in ELEMENTWISE | {"Concat"}:
            products += [one for one in map(flow.origin, node.input) if one is not None]
    for reader in flow.readers.get(softmax.output[0], []):
        if reader.op_type == "MatMul" and reader.input[0] == softmax.output[0]:
            _mark_keys(flow, reader.input[1], mark)


def _mark_keys(
    flow: Dataflow, name: str, mark: Callable[[onnx.NodeProto | None, str], None]
) -> None:
    """Keys or values: the linear behind a value, through a Concat with the prompts' prefix."""
    node = flow.origin(name)
    if node is not None and node.op_type == "Concat":
        for part in node.input:
            _mark_keys(flow, part, mark)
    elif node is not None and node.op_type != "LayerNormalization":
        mark(node, "keys_values")


def _with_bias(flow: Dataflow, node: onnx.NodeProto) -> onnx.NodeProto:
    readers = _readers(flow, node)
    biased = len(readers) == 1 and set(readers[0].input) & set(flow.constants)
    return readers[0] if biased and readers[0].op_type == "Add" else node


def _readers(flow: Dataflow, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return flow.readers.get(node.output[0], [])


def _without_norms(flow: Dataflow, kinds: dict[str, set[str]]) -> dict[str, set[str]]:
    """The norm's output feeds fc1 too, but it is no hidden layer."""
    return {
        name: kind
        for name, kind in kinds.items()
        if flow.makers[name].op_type != "LayerNormalization"
    }
