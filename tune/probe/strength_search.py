"""The strength of L2 by held-out log-loss: decades from strong to weak, then quarters of one.

Log-loss, not accuracy: on a hundred images accuracy ties and jumps, log-loss has one valley. (CLIP
searches the same way, Radford et al. 2021, A.3: a fit for each of 29 strengths would show no more.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["STRENGTHS", "search_strength"]

STRENGTHS = tuple(10 ** (1 - quarter / 4) for quarter in range(33))  # 10 … 1e-7
_DECADE, _PATIENCE = 4, 2
_LEVEL = 1e-3  # nats: where held-out rows are all but certain, weaker ones only look better


def search_strength(loss: Callable[[float], float]) -> float:
    """The best of the strengths, without trying them all.

    Args:
        loss: strength → held-out log-loss; called once for each that is tried.
    """
    tried: dict[int, float] = {}

    def score(index: int) -> float:
        if index not in tried:
            tried[index] = loss(STRENGTHS[index])
        return tried[index]

    def best() -> int:
        """The strongest that is (all but) as good as any."""
        bound = min(tried.values()) + _LEVEL
        return min(index for index, value in tried.items() if value <= bound)

    for index in range(0, len(STRENGTHS), _DECADE):
        score(index)
        if index - best() >= _PATIENCE * _DECADE:
            break
    for reach in (_DECADE // 2, _DECADE // 4):
        middle = best()
        for index in (middle - reach, middle + reach):
            if 0 <= index < len(STRENGTHS):
                score(index)
    return STRENGTHS[best()]
