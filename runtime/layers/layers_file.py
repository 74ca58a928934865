"""Layers that were saved (`vptkit profile --layers --json`), read back: checked whole, as they may be a stranger's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError
from vptkit.regular_files import read_regular
from vptkit.schema import (
    anything,
    choice,
    integer,
    list_of,
    null_or,
    number,
    one_of,
    record,
    require,
    text,
)
from vptkit.strict_json import parse_json

from .layer_time import FORMAT, LayerProfile, LayerTime, Roof, Span
from .node_places import is_place
from .operator_costs import Cost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["read_layers"]

_BYTES = 64 << 20
_NOTES = anything(values=100_000, depth=16, letters=100_000)
_WORD = text(1000)
_FIGURE = number(0, 1e9)
_LAYER = record(
    {
        "name": text(100_000),
        "operator": text(200),
        "place": text(40, means="a part of the model", fits=is_place),
        "ms": null_or(_FIGURE),
    },
    {"type": text(200), "gflop": null_or(_FIGURE), "megabytes": null_or(_FIGURE)},
    others=_NOTES,
)
_PROFILE = record(
    {
        "format": choice(FORMAT),
        "name": _WORD,
        "backend": _WORD,
        "batch": integer(1, 1 << 20),
        "threads": integer(0, 1 << 20),
        "runs": integer(0, 10_000),
        "run_ms": null_or(_FIGURE),
        "layers": list_of(_LAYER, 20_000, least=1),
        "roof": one_of(
            record({"gflops": number(1e-9, 1e12), "gbs": number(1e-9, 1e12), "source": _WORD}),
            record({"unavailable": _WORD}),
        ),
    },
    {"adapters": list_of(_WORD, 10_000), "note": null_or(_WORD)},
    others=_NOTES,
)
_DOCUMENT = record({"profiles": list_of(_PROFILE, 100, least=1)}, others=_NOTES)


def read_layers(path: Path) -> list[LayerProfile] | None:
    """The bundles of a file, each layer with the median of its runs.

    Args:
        path: what `vptkit profile --layers --json` printed, as a file.

    Returns:
        None where it is a JSON object of something else, as a profile of whole runs.

    Raises:
        DataError: no such file, no JSON, or a field that does not fit, which is named.
    """
    document = parse_json(read_regular(path, DataError, limit=_BYTES), path, DataError)
    if "profiles" not in document:
        return None
    require(document, _DOCUMENT, path, DataError)
    return [_profile(one) for one in document["profiles"]]


def _profile(document: Mapping[str, Any]) -> LayerProfile:
    """As it was measured, with the medians in the place of the runs."""
    runs = document["runs"] if document["run_ms"] is not None else 0
    roof = document["roof"]
    return LayerProfile(
        name=document["name"],
        backend=document["backend"],
        batch=document["batch"],
        threads=document["threads"],
        adapters=tuple(document.get("adapters") or ()),
        runs=(Span(0.0, document["run_ms"]),) * runs,
        layers=tuple(_layer(one) for one in document["layers"]),
        roof=None
        if "unavailable" in roof
        else Roof(flops=1e9 * roof["gflops"], bandwidth=1e9 * roof["gbs"], source=roof["source"]),
        no_roof=roof.get("unavailable", ""),
        note=document.get("note") or "",
    )


def _layer(document: Mapping[str, Any]) -> LayerTime:
    flops, moved = document.get("gflop"), document.get("megabytes")
    cost = None
    if flops is not None and moved is not None:
        cost = Cost(round(1e9 * flops), round(1e6 * moved))
    return LayerTime(
        name=document["name"],
        operator=document["operator"],
        place=document["place"],
        spans=() if document["ms"] is None else (Span(0.0, document["ms"]),),
        cost=cost,
        type=document.get("type", ""),
    )
