"""What of a cluster an actor takes, and how many actors there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vptkit.errors import TargetError
from vptkit.runtime.backends.selection import on_nvidia

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ActorShare", "share_of"]


@dataclass(frozen=True, slots=True)
class ActorShare:
    """Of each actor.

    Attributes:
        cpus: which it decodes and runs with.
        gpus: 0 or 1.
        actors: so many at most.
        nodes: the nodes that can hold one, by id.
    """

    cpus: int
    gpus: int
    actors: int
    nodes: tuple[str, ...]


def share_of(
    nodes: Sequence[Mapping[str, Any]],
    backend: str,
    threads: int | None = None,
    actors: int | None = None,
) -> ActorShare:
    """One actor for each GPU where there are any, else one for each CPU.

    Args:
        nodes: of `vptkit.cluster.connection.living_nodes`.
        backend: one of `vptkit.runtime.backends.selection.BACKENDS`, or "auto".
        threads: CPUs of each; 1 unless given, with a GPU an equal part of its node's.
        actors: no more than these.

    Raises:
        TargetError: no node can hold one.
    """
    have = {node["NodeID"]: node["Resources"] for node in nodes}
    cards = {node: int(found.get("GPU", 0)) for node, found in have.items() if found.get("GPU", 0)}
    gpus = int(on_nvidia(backend) and any(cards.values()))
    if backend != "auto" and on_nvidia(backend) and not gpus:
        raise TargetError(f"--backend {backend}: no node of the cluster has a GPU")
    if threads is None:
        parts = [int(have[node].get("CPU", 0)) // count for node, count in cards.items() if count]
        threads = max(1, min(parts)) if gpus else 1
    fits = {
        node: min(int(found.get("CPU", 0)) // threads, cards.get(node, 0) if gpus else 1 << 30)
        for node, found in have.items()
    }
    most = sum(fits.values())
    if not most:
        there = ", ".join(f"{r.get('CPU', 0):g} CPU {r.get('GPU', 0):g} GPU" for r in have.values())
        raise TargetError(
            f"an actor takes {threads} CPUs and {gpus} GPUs; no node has them ({there}). Lower "
            "--threads."
        )
    able = tuple(node for node, count in fits.items() if count)
    return ActorShare(threads, gpus, min(most, actors or most), able)
