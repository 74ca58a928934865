"""Layers and their types as TensorRT-RTX compiles them, on a machine without a GPU: nothing runs, no times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.errors import TargetError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.engine_build.trt_rtx_oracle import SMS, ask_oracle

from .layer_time import LayerProfile, LayerTime
from .node_places import place_of_nodes, placed

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["compiled_layers"]


def compiled_layers(name: str, path: Path, batch: int) -> LayerProfile:
    """What TensorRT-RTX makes of a bundle's graph.

    Args:
        name: of the bundle in this profile.
        path: the bundle.
        batch: is said, and not built for.

    Raises:
        BundleError: not a bundle.
        MissingExtraError, MissingError: TensorRT-RTX is not installed or does not load.
        TargetError: it does not compile the graph.
    """
    bundle, sm = open_bundle(path), SMS[0]
    with bundle.graph() as graph:
        opinion = ask_oracle(graph, (sm,))[0]
    if opinion.structure is None:
        reasons = "; ".join(str(error["message"]) for error in opinion.errors) or opinion.stage
        raise TargetError(f"{path}: TensorRT-RTX does not compile the graph: {reasons}")
    layers: list[LayerTime] = []
    for layer in opinion.structure.layers:
        before = layers[-1].place if layers else None
        place = placed(place_of_nodes(layer.nodes), before)
        layers.append(
            LayerTime(
                name=layer.name,
                operator=layer.kind,
                place=place,
                type=layer.type,
                nodes=layer.nodes,
            )
        )
    note = f"no NVIDIA GPU here: TensorRT-RTX {opinion.version} compiled for compute capability "
    note += f"{sm / 10}, and nothing ran: layers and their types, no times"
    return LayerProfile(
        name=name,
        backend="tensorrt-rtx",
        batch=batch,
        threads=1,
        layers=tuple(layers),
        no_roof="nothing ran",
        note=note,
    )
