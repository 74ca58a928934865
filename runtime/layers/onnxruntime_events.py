"""ONNX Runtime's profile of some runs → the time of each node.

The file is a list of events in Chrome's form: "model_run" of the category Session for each run, and an event
named NODE_kernel_time of the category Node for each node, times in microseconds. Runs are sequential
(one inter-op thread), so a node belongs to the run that it lies in.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vptkit.errors import TargetError

from .layer_time import LayerTime, Span
from .node_places import place_of, placed
from .operator_costs import Tensor, cost_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["read_events"]

_NODE, _RUN = "_kernel_time", "model_run"


def read_events(file: Path, *, skip: int = 0) -> tuple[tuple[Span, ...], tuple[LayerTime, ...]]:
    """Read a profile.

    Args:
        file: as `InferenceSession.end_profiling` wrote it.
        skip: runs at its beginning that do not count, as they warm up.

    Returns:
        Of each run when it began and how long it took; the layers in the order of the first run.

    Raises:
        TargetError: there are no runs in it, or they do not run the same nodes.
    """
    events = json.loads(file.read_text(encoding="utf-8"))
    runs = sorted((e for e in events if e.get("name") == _RUN), key=_start)[skip:]
    nodes = sorted((e for e in events if _is_node(e)), key=_start)
    if not runs:
        raise TargetError("ONNX Runtime's profile has no runs in it: this build may not profile")
    found = _by_layer(runs, nodes)
    layers: list[LayerTime] = []
    for events in found:
        layers.append(_layer(events, layers[-1].place if layers else None))
    return tuple(_span(run) for run in runs), tuple(layers)


def _by_layer(
    runs: Sequence[dict[str, Any]], nodes: Sequence[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """The events of each layer, one for each run. Nodes without a name have one in common."""
    several: list[dict[tuple[str, int], dict[str, Any]]] = []
    place = 0
    for run in runs:
        while place < len(nodes) and _start(nodes[place]) < _start(run):
            place += 1
        counts: dict[str, int] = {}
        own: dict[tuple[str, int], dict[str, Any]] = {}
        while place < len(nodes) and _start(nodes[place]) <= _start(run) + run["dur"]:
            name = nodes[place]["name"]
            counts[name] = counts.get(name, 0) + 1
            own[name, counts[name]] = nodes[place]
            place += 1
        several.append(own)
    if any(own.keys() != several[0].keys() for own in several):
        raise TargetError("ONNX Runtime ran other nodes in one run than in another")
    return [[own[key] for own in several] for key in several[0]]


def _layer(events: Sequence[dict[str, Any]], before: str | None) -> LayerTime:
    first = events[0]
    arguments = first.get("args", {})
    name, operator = first["name"].removesuffix(_NODE), str(arguments.get("op_name", ""))
    inputs = _tensors(arguments.get("input_type_shape"))
    outputs = _tensors(arguments.get("output_type_shape"))
    return LayerTime(
        name=name or operator,
        operator=operator,
        place=placed(place_of(name), before),
        spans=tuple(map(_span, events)),
        cost=cost_of(operator, inputs, outputs),
        type=next((tensor.type for tensor in (*inputs, *outputs)), ""),
        nodes=(name,) if place_of(name) else (),
        inputs=inputs,
        outputs=outputs,
    )


def _tensors(found: Sequence[dict[str, list[int]]] | None) -> tuple[Tensor, ...]:
    return tuple(Tensor(kind, tuple(shape)) for one in found or () for kind, shape in one.items())


def _is_node(event: dict[str, Any]) -> bool:
    return event.get("cat") == "Node" and event.get("name", "").endswith(_NODE)


def _start(event: dict[str, Any]) -> int:
    return int(event["ts"])


def _span(event: dict[str, Any]) -> Span:
    return Span(event["ts"] / 1000, event["dur"] / 1000)
