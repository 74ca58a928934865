"""How a source fared: frames captured, dropped, answered, and how old they were by then."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.runtime.measure.percentiles import Histogram
from vptkit.text_table import columns

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SourceReport", "report_text"]

_HEADER = "captured", "dropped", "served", "reconnects", "fps", "age p50 ms", "age p99 ms"


@dataclass(slots=True, kw_only=True)
class SourceReport:
    """Counts of one source.

    Attributes:
        name: of the source.
        adapter: that its frames are asked of.
        live: whether it is a camera or a stream, and no file.
        captured: frames that came.
        dropped: cause → frames that were not answered.
        served: frames that were answered.
        broken: of these the ones whose answer is an error.
        reconnects: times that it was opened again.
        error: why it gave up; None of one that ended or goes on.
        ages: of the answered frames, ms.
    """

    name: str
    adapter: str
    live: bool
    captured: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    served: int = 0
    broken: int = 0
    reconnects: int = 0
    error: str | None = None
    ages: Histogram = field(default_factory=Histogram)
    _first: float | None = None
    _last: float = 0.0

    def add(self, age: float, now: float, *, broken: bool) -> None:
        """Count an answer.

        Args:
            age: from capture to answer, s.
            now: of `time.monotonic`.
            broken: whether it is an error.
        """
        self.served += 1
        self.broken += broken
        self.ages.add(np.array([1000 * max(age, 0.0)]))
        self._first = now if self._first is None else self._first
        self._last = now

    @property
    def fps(self) -> float | None:
        """Answers a second, between the first and the last; None of fewer than two."""
        if self._first is None or self._last <= self._first:
            return None
        return (self.served - 1) / (self._last - self._first)

    @property
    def age_ms(self) -> dict[str, float] | None:
        """{"p50", "p99"}, None while nothing is answered."""
        if not self.ages.count:
            return None
        p50, p99 = self.ages.percentiles((50, 99))
        return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}

    def to_json(self) -> dict[str, Any]:
        """As `vptkit run --json` ends."""
        found = {
            "source": self.name,
            "adapter": self.adapter,
            "live": self.live,
            "captured": self.captured,
            "dropped": dict(sorted(self.dropped.items())),
            "served": self.served,
            "broken": self.broken,
            "reconnects": self.reconnects,
            "fps": None if self.fps is None else round(self.fps, 2),
            "age_ms": self.age_ms,
        }
        return found if self.error is None else found | {"error": self.error}


def report_text(reports: Sequence[SourceReport], width: int | None = None) -> str:
    """A table, one line a source, and why frames were dropped.

    Args:
        reports: one a source.
        width: characters of a line; None leaves it as it is.
    """
    return columns(("source", "adapter", *_HEADER), [_row(one) for one in reports], width=width)


def _row(one: SourceReport) -> list[str]:
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(one.dropped.items()) if count)
    ages = one.age_ms or {}
    return [
        one.name,
        one.adapter,
        str(one.captured),
        causes or "0",
        str(one.served),
        str(one.reconnects),
        "-" if one.fps is None else f"{one.fps:.1f}",
        *(f"{ages[key]:.1f}" if key in ages else "-" for key in ("p50", "p99")),
    ]
