"""The interval of a share, such as an accuracy: how far chance may have moved it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["interval_text", "percent", "share_text", "wilson"]

_Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share: honest near 1, where the usual one is empty.

    The shares p whose own spread explains what was seen: |p̂ - p| = z √(p (1 - p) / n), solved for p
    (Wilson, JASA 1927).
    """
    if not 0 <= successes <= count or count == 0:
        raise ValueError(f"{successes} of {count}")
    share, z2 = successes / count, _Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = _Z95 / (1 + z2 / count)
    spread *= math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, centre - spread), min(1.0, centre + spread)


def share_text(successes: int, count: int) -> str:
    """As "86.8 % (217 of 250; 95 % interval 82.0 to 90.4 %)"."""
    interval = interval_text(wilson(successes, count))
    return f"{percent(successes / count)} ({successes} of {count}; 95 % interval {interval})"


def percent(share: float) -> str:
    """With one decimal; 100.0 only where it is all of them."""
    return f"{min(100 * share, 99.9 if share < 1 else 100):.1f} %"


def interval_text(bounds: Sequence[float]) -> str:
    """As "82.0 to 90.4 %"."""
    return f"{100 * bounds[0]:.1f} to {percent(bounds[1])}"
