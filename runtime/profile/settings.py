"""What a profile is asked for, as JSON: the same from the command line and over ssh."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ["ProfileSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSettings:
    """What `profile_bundles` shall do; every field is JSON.

    Attributes:
        backend: of every session; or several, with commas between, beside each other.
        threads, adapter, cuda_graph: as for `profiled_sessions.open_candidates`.
        batches, seed, memory, streams, energy: as for `benchmark.profile`.
        rounds, seconds: as for `timing.Budget`.
        power: "all", or names of power modes, as "15W,MAXN_SUPER"; None stays in the present one.
        pin_clocks: pin the clocks with jetson_clocks meanwhile.
        trust_engines: as of `open_session`.
    """

    backend: str = "cpu"
    threads: int | None = None
    adapter: str | None = None
    cuda_graph: str | None = None
    batches: tuple[int, ...] | None = None
    rounds: int | None = None
    seconds: float = 10.0
    seed: int = 0
    memory: bool = True
    streams: int = 1
    energy: float = 0.0
    power: str | None = None
    pin_clocks: bool = False
    trust_engines: bool = False

    @property
    def backends(self) -> tuple[str, ...]:
        """Each backend that is asked for.

        Raises:
            VptkitError: one is named twice, or has no name.
        """
        names = tuple(name.strip() for name in self.backend.split(","))
        if "" in names or len(set(names)) < len(names):
            raise VptkitError(
                f"--backend {self.backend}: expected one, or several different ones with commas "
                "between, as cpu,openvino"
            )
        return names

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ProfileSettings:
        """Read what `to_json` wrote; what is missing keeps its default.

        Raises:
            VptkitError: a name that is not a setting.
        """
        unknown = sorted(set(document) - {f.name for f in fields(cls)})
        if unknown:
            raise VptkitError(f"profile settings: {unknown[0]!r} is not known")
        batches = document.get("batches")
        return cls(**{**document, "batches": None if batches is None else tuple(batches)})

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)
