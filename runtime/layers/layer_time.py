"""What was measured of a graph's layers, and what it adds up to."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .node_places import order_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .operator_costs import Cost, Tensor

__all__ = ["FORMAT", "LayerProfile", "LayerTime", "PlaceTime", "Roof", "Span"]

FORMAT = "vptkit.layers/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What a machine can do at most.

    Attributes:
        flops: operations a second.
        bandwidth: bytes a second.
        source: where the figures come from.
    """

    flops: float
    bandwidth: float
    source: str

    def least_ms(self, cost: Cost) -> float:
        """Milliseconds below which nobody does it: the longer of computing and moving."""
        return 1000 * max(cost.flops / self.flops, cost.bytes / self.bandwidth)


class Span(NamedTuple):
    """When a layer ran: start and duration in milliseconds of the profile's clock."""

    start: float
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One layer of what a backend made of a graph.

    Attributes:
        name: the backend's.
        operator: ONNX Runtime's operator, or TensorRT's type of layer.
        place: part of the model, of `node_places`.
        spans: one for each run; without a clock the starts are those of layers one after the other. Empty
            where nothing ran.
        cost: None where the shapes are not known.
        type: that it computes in, as the backend writes it.
        nodes: of the ONNX graph.
        inputs, outputs: where the backend tells them in each run.
    """

    name: str
    operator: str
    place: str
    spans: tuple[Span, ...] = field(default=(), repr=False)
    cost: Cost | None = None
    type: str = ""
    nodes: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...] = field(default=(), repr=False)
    outputs: tuple[Tensor, ...] = field(default=(), repr=False)

    @property
    def ms(self) -> float:
        """Median of the runs."""
        return statistics.median(span.ms for span in self.spans) if self.spans else 0.0

    def to_json(self, total: float, roof: Roof | None) -> dict[str, Any]:
        """As `vptkit profile --layers --json` prints it."""
        document: dict[str, Any] = {"name": self.name, "operator": self.operator}
        document |= {"place": self.place, "type": self.type, "nodes": list(self.nodes)}
        return document | _figures(self.ms if self.spans else None, self.cost, total, roof)


@dataclass(frozen=True, kw_only=True)
class PlaceTime:
    """The layers of one part of the model.

    Attributes:
        place: of `node_places`.
        layers: in the order in which they ran.
    """

    place: str
    layers: tuple[LayerTime, ...] = field(repr=False)

    @cached_property
    def ms(self) -> float:
        """Sum of the medians."""
        return sum(layer.ms for layer in self.layers)

    def of_roof(self, roof: Roof | None) -> float | None:
        """Share of the machine's best that it reaches; None where it is not known."""
        if roof is None or not self.ms or any(layer.cost is None for layer in self.layers):
            return None
        return sum(roof.least_ms(layer.cost) for layer in self.layers if layer.cost) / self.ms

    def operators(self) -> dict[str, int]:
        """Operator → how many layers."""
        return {name: len(layers) for name, layers in self.by_operator().items()}

    def by_operator(self) -> dict[str, list[LayerTime]]:
        """Operator → its layers, in the order in which they first ran."""
        found: dict[str, list[LayerTime]] = {}
        for layer in self.layers:
            found.setdefault(layer.operator, []).append(layer)
        return found

    def to_json(self, total: float, roof: Roof | None) -> dict[str, Any]:
        """As `vptkit profile --layers --json` prints it."""
        costs = [layer.cost for layer in self.layers]
        cost = None if None in costs else _sum(c for c in costs if c is not None)
        ran = any(layer.spans for layer in self.layers)
        document: dict[str, Any] = {"place": self.place, "layers": len(self.layers)}
        document |= _figures(self.ms if ran else None, cost, total, roof)
        return document | {"of_roof": self.of_roof(roof)}


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """The layers of one bundle on one backend.

    Attributes:
        name: of the bundle, in this profile.
        backend: that ran it.
        adapters: whom the images asked, of a bank.
        batch: images of each run.
        threads: CPU threads of a run.
        runs: when each run of the session began and how long it took, while it was profiled.
        layers: in the order in which they ran.
        roof: of this machine; None where it is not known, `no_roof` says why.
        bindings: names of the graph's inputs and outputs.
        information: the backend's own account of its layers (TensorRT's inspector), else None.
        note: what the reader must know.
    """

    name: str
    backend: str
    batch: int
    threads: int
    adapters: tuple[str, ...] = ()
    runs: tuple[Span, ...] = field(default=(), repr=False)
    layers: tuple[LayerTime, ...] = field(repr=False)
    roof: Roof | None = None
    no_roof: str = ""
    bindings: tuple[str, ...] = ()
    information: dict[str, Any] | None = field(default=None, repr=False)
    note: str = ""

    @cached_property
    def places(self) -> tuple[PlaceTime, ...]:
        """The parts of the model, in the order in which it computes them."""
        found: dict[str, list[LayerTime]] = {}
        for layer in self.layers:
            found.setdefault(layer.place, []).append(layer)
        names = sorted(found, key=order_of)
        return tuple(PlaceTime(place=name, layers=tuple(found[name])) for name in names)

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of a block, as tables have columns for them; "merge" where tokens are merged."""
        merges = any(place.place.endswith(".merge") for place in self.places)
        return ("attention", "mlp", "norm1", "norm2", *(("merge",) if merges else ()))

    @cached_property
    def layers_ms(self) -> float:
        """Sum of the layers' medians."""
        return sum(layer.ms for layer in self.layers)

    @property
    def run_ms(self) -> float | None:
        """Median of the runs; None where nothing ran."""
        return statistics.median(run.ms for run in self.runs) if self.runs else None

    def to_json(self) -> dict[str, Any]:
        """As `vptkit profile --layers --json` prints it."""
        total, roof = self.layers_ms, self.roof
        return {
            "format": FORMAT,
            "name": self.name,
            "backend": self.backend,
            "adapters": list(self.adapters),
            "batch": self.batch,
            "threads": self.threads,
            "runs": len(self.runs),
            "run_ms": self.run_ms,
            "layers_ms": total if self.runs else None,
            "roof": {"unavailable": self.no_roof}
            if roof is None
            else {
                "gflops": roof.flops / 1e9,
                "gbs": roof.bandwidth / 1e9,
                "source": roof.source,
            },
            "note": self.note or None,
            "places": [place.to_json(total, roof) for place in self.places],
            "layers": [layer.to_json(total, roof) for layer in self.layers],
        }


def _sum(costs: Iterable[Cost]) -> Cost | None:
    found: Cost | None = None
    for cost in costs:
        found = cost if found is None else type(cost)(*map(sum, zip(found, cost, strict=True)))
    return found


def _figures(
    ms: float | None, cost: Cost | None, total: float, roof: Roof | None
) -> dict[str, Any]:
    seconds = (ms or 0) / 1000
    known = cost is not None and seconds > 0
    return {
        "ms": ms,
        "share": ms / total if ms is not None and total else None,
        "gflop": None if cost is None else cost.flops / 1e9,
        "megabytes": None if cost is None else cost.bytes / 1e6,
        "gflops": cost.flops / 1e9 / seconds if cost is not None and known else None,
        "gbs": cost.bytes / 1e9 / seconds if cost is not None and known else None,
        "of_roof": roof.least_ms(cost) / ms if roof and cost is not None and ms else None,
    }
