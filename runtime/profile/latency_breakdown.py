"""Runs taken apart: enqueue, GPU and host time, where a backend can tell them.

In runs of their own, because taking a run apart costs time that the others should not pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import TargetError
from vptkit.runtime.measure.percentiles import percentiles_and_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.runtime.backends.graph_protocol import Times

    from .profiled_sessions import Candidate

__all__ = ["take_apart"]

ROUNDS = 200
_PARTS = ("enqueue", "gpu", "host")


def take_apart(
    members: Sequence[Candidate],
    images: Mapping[str, NDArray[np.uint8]],
    *,
    rounds: int,
    seed: int = 0,
) -> list[dict[str, dict[str, float] | None]]:
    """Take runs of candidates apart, interleaved in rounds.

    Args:
        members: the candidates. Those whose backend knows only the whole are asked once.
        images: candidate's name → uint8 [B, H, W, 3].
        rounds: runs of each, at most ROUNDS.
        seed: of the order.

    Returns:
        For each candidate: part → percentiles and mean in milliseconds, None where there is none.
    """
    random = np.random.default_rng(seed)
    taken: list[list[Times]] = [[] for _ in members]
    able = [i for i, c in enumerate(members) if _comes_apart(c, images[c.name])]
    for _ in range(min(rounds, ROUNDS) if able else 0):
        for i in random.permutation(able):
            times = members[i].take_apart(images[members[i].name])
            taken[i] += [] if times is None else [times]
    return [{part: _part(times, part) for part in _PARTS} for times in taken]


def _comes_apart(candidate: Candidate, images: NDArray[np.uint8]) -> bool:
    try:
        return candidate.take_apart(images) is not None
    except TargetError:  # a batch that goes through the engine in portions has no parts
        return False


def _part(times: Sequence[Times], part: str) -> dict[str, float] | None:
    values = [value for t in times if (value := getattr(t, part)) is not None]
    return percentiles_and_mean(values) if values else None
