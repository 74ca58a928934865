"""What a report is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ReportSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What is judged and measured for a page; without any of it the page says what bundles are.

    Attributes:
        data: labelled images, as `vptkit eval` takes them; None judges nothing.
        split, columns, skip_broken, decode, allow_outside, batch: as of
            `vptkit.runtime.evaluation.accuracy.evaluate`.
        adapter: which adapter of a bank.
        mistakes: how many of the most confident ones are shown.
        backend, threads, trust_engines: as of `vptkit.open_session`.
        measure: seconds for which latency is measured now, interleaved with the bare backbone; 0 for
            no measurement.
        layers: seconds for which the time of each layer is measured now, as by `vptkit profile --layers`; 0
            for no measurement.
        batches: sizes at which it is measured; unless given, those that are fixed in bundles, or 1.
        profiles: files of `vptkit profile --json`, with --layers or without, measured here or elsewhere.
        energy: seconds for which each candidate of that measurement runs alone while its energy is metered; 0
            for no such thing.
        boards: keys of `vptkit devices list`; empty for all.

    Raises:
        VptkitError: a number is out of range.
    """

    data: Path | None = None
    split: str | None = None
    adapter: str | None = None
    columns: str | None = None
    skip_broken: bool = False
    decode: str | None = None
    allow_outside: bool = False
    batch: int = 8
    mistakes: int = 12
    backend: str | None = None
    threads: int | None = None
    trust_engines: bool = False
    measure: float = 0.0
    layers: float = 0.0
    energy: float = 0.0
    batches: tuple[int, ...] | None = None
    profiles: tuple[Path, ...] = ()
    boards: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would be understood otherwise than it was meant."""
        least = {"mistakes": 0, "measure": 0, "layers": 0, "energy": 0, "batch": 1}
        given = [(name, getattr(self, name), bound) for name, bound in least.items()]
        for name, value, bound in [*given, *(("batches", size, 1) for size in self.batches or ())]:
            if not value >= bound:
                raise VptkitError(f"report: {name} is {value}, expected at least {bound}")
        if self.energy and not self.measure:
            raise VptkitError("report: energy goes with measure: the seconds of a measurement")
