"""Layers in the form of trtexec's own files, which NVIDIA's engine explorer and many scripts read.

`--exportProfile`: a list of {"count"} and, for each layer, {"name", "timeMs", "averageMs", "medianMs",
"percentage"}; `--exportTimes`: a list of one object a run; `--exportLayerInfo`: the engine inspector's JSON
(samples/common/sampleReporting.cpp of TensorRT). Of other backends than TensorRT the layers are described in
the inspector's form.
"""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .layer_time import LayerProfile, LayerTime
    from .operator_costs import Tensor

__all__ = ["layer_information", "profile_entries", "time_entries", "write_json"]

_TYPES = {"float": "FP32", "float16": "FP16", "bfloat16": "BF16", "bool": "Bool"}


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


def write_json(document: object, path: Path) -> None:
    """Write one of them; a file that is there is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as part:
        part.write_text(json.dumps(document, indent=1), encoding="utf-8")


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
