"""What a search may spend: "10m", "90s", "2h", or "60 epochs"."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from vptkit.errors import VptkitError

__all__ = ["Budget", "budget_of"]

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(s|m|h|epochs?)")


@dataclass(slots=True)
class Budget:
    """How much is left.

    Attributes:
        seconds, epochs: the most of both; None: as much as it takes.
        spent: epochs done.
        begun: when, of `time.monotonic`.
    """

    seconds: float | None = None
    epochs: float | None = None
    spent: int = 0
    begun: float = field(default_factory=time.monotonic)

    def spend(self) -> None:
        """An epoch is done."""
        self.spent += 1

    @property
    def over(self) -> bool:
        """Whether no further epoch may begin."""
        late = self.seconds is not None and time.monotonic() - self.begun >= self.seconds
        return late or (self.epochs is not None and self.spent >= self.epochs)


def budget_of(text: str | None) -> Budget:
    """From the option's text; None has no bound.

    Raises:
        VptkitError: neither a time nor a number of epochs, or none at all.
    """
    if text is None:
        return Budget()
    found = _FORM.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise VptkitError(
            f"settings: budget is {text!r}, expected a time (90s, 10m, 2h) or '60 epochs'"
        )
    number, unit = float(found[1]), found[2]
    if unit in _SECONDS:
        return Budget(seconds=number * _SECONDS[unit])
    return Budget(epochs=number)
