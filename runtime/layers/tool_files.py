"""Layers in the form of other tools' files: Perfetto's trace, and what trtexec writes.

The trace (ui.perfetto.dev, chrome://tracing) is of Chrome's Trace Event Format: complete events ("X"), times in
microseconds. Each bundle is a process with three tracks: the runs, the parts of the model within them, and the
layers within those.

trtexec's files are read by NVIDIA's engine explorer and many scripts. `--exportProfile`: a list of {"count"}
and, for each layer, {"name", "timeMs", "averageMs", "medianMs", "percentage"}; `--exportTimes`: a list of one
object a run; `--exportLayerInfo`: the engine inspector's JSON (samples/common/sampleReporting.cpp of
TensorRT). Of other backends than TensorRT the layers are described in the inspector's form.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file
from vptkit.strict_json import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .layer_time import LayerProfile, LayerTime
    from .operator_costs import Tensor

__all__ = ["layer_information", "profile_entries", "time_entries", "trace_of", "write_json"]

_TYPES = {"float": "FP32", "float16": "FP16", "bfloat16": "BF16", "bool": "Bool"}
_TRACKS = ("runs", "model", "layers")
_MOST_RUNS = 20  # of a bundle in a trace: the first ones; a trace of thousands is slow to open


def trace_of(profiles: Sequence[LayerProfile]) -> dict[str, Any]:
    """A trace of some bundles, for Perfetto."""
    events: list[dict[str, Any]] = []
    for process, profile in enumerate(profiles, 1):
        about = {"backend": profile.backend, "batch": profile.batch}
        if profile.adapters:
            about["adapter"] = ", ".join(profile.adapters)
        events.append(_meta("process_name", process, 0, f"{profile.name} ({profile.backend})"))
        for track, name in enumerate(_TRACKS):
            events.append(_meta("thread_name", process, track, name))
        for number, run in enumerate(profile.runs[:_MOST_RUNS]):
            events.append(_event(process, 0, f"run {number}", run.start, run.ms, about))
            events += _of_run(profile, process, number, about)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def profile_entries(profile: LayerProfile) -> list[dict[str, Any]]:
    """As `trtexec --exportProfile` writes them."""
    sums = [sum(span.ms for span in layer.spans) for layer in profile.layers]
    total = sum(sums)
    entries: list[dict[str, Any]] = [{"count": len(profile.runs)}]
    for layer, ms in zip(profile.layers, sums, strict=True):
        entries.append(
            {
                "name": layer.name,
                "timeMs": ms,
                "averageMs": ms / len(layer.spans) if layer.spans else 0.0,
                "medianMs": statistics.median([s.ms for s in layer.spans] or [0.0]),
                "percentage": 100 * ms / total if total else 0.0,
            }
        )
    return entries


def time_entries(profile: LayerProfile) -> list[dict[str, float]]:
    """As `trtexec --exportTimes` writes them: all of a run is computing, copies are not told apart."""
    entries = []
    for run in profile.runs:
        begun, ended = run.start, run.start + run.ms
        entry = {"startEnqMs": begun, "endEnqMs": ended, "startH2dMs": begun, "endH2dMs": begun}
        entry |= {"startComputeMs": begun, "endComputeMs": ended}
        entry |= {"startD2hMs": ended, "endD2hMs": ended, "h2dMs": 0.0, "computeMs": run.ms}
        entries.append(entry | {"d2hMs": 0.0, "latencyMs": run.ms})
    return entries


def layer_information(profile: LayerProfile) -> dict[str, Any]:
    """As `trtexec --exportLayerInfo` writes it."""
    if profile.information is not None:
        return profile.information
    layers = [_described(layer) for layer in profile.layers]
    return {"Layers": layers, "Bindings": list(profile.bindings)}


def write_json(document: object, path: Path, *, indent: int | None = 1) -> None:
    """Write one of them, or a trace; a file that is there is replaced.

    Args:
        document: what is written.
        path: the file.
        indent: of `json.dumps`; None for what nobody reads.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as part:
        part.write_text(json_text(document, indent=indent), encoding="utf-8")


def _of_run(
    profile: LayerProfile, process: int, run: int, about: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for group in _neighbours(profile.layers):
        first, last = group[0].spans[run], group[-1].spans[run]
        ms = last.start + last.ms - first.start
        yield _event(process, 1, group[0].place, first.start, ms, about)
        for layer in group:
            own = about | {"operator": layer.operator, "type": layer.type}
            if layer.cost is not None:
                own |= {"gflop": layer.cost.flops / 1e9, "megabytes": layer.cost.bytes / 1e6}
            yield _event(process, 2, layer.name, layer.spans[run].start, layer.spans[run].ms, own)


def _neighbours(layers: Sequence[LayerTime]) -> list[list[LayerTime]]:
    """Layers of one place that ran one after the other."""
    found: list[list[LayerTime]] = []
    for layer in layers:
        if found and found[-1][0].place == layer.place:
            found[-1].append(layer)
        else:
            found.append([layer])
    return found


def _event(
    process: int, track: int, name: str, start: float, ms: float, about: dict[str, Any]
) -> dict[str, Any]:
    event: dict[str, Any] = {"name": name, "cat": _TRACKS[track], "ph": "X", "args": about}
    return event | {"pid": process, "tid": track, "ts": 1000 * start, "dur": 1000 * ms}


def _meta(kind: str, process: int, track: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": track, "args": {"name": name}}


def _described(layer: LayerTime) -> dict[str, Any]:
    return {
        "Name": layer.name,
        "LayerType": layer.operator,
        "Inputs": _tensors(layer.name, "input", layer.inputs),
        "Outputs": _tensors(layer.name, "output", layer.outputs),
        "ParameterType": layer.operator,
        "TacticName": "",
        "StreamId": 0,
        "Metadata": "".join(f"[ONNX Layer: {node}]" for node in layer.nodes),
    }


def _tensors(layer: str, side: str, tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [
        {
            "Name": f"{layer}:{side}{number}",
            "Location": "Host",
            "Dimensions": list(tensor.shape),
            "Format/Datatype": f"Row major linear {_TYPES.get(tensor.type, tensor.type)}",
        }
        for number, tensor in enumerate(tensors)
    ]
