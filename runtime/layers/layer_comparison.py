"""What changed between two bundles, part by part of the model; and all of a profile as one document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .node_places import order_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .layer_time import LayerProfile

__all__ = ["PlaceChange", "compare_layers", "compared", "layers_document"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceChange:
    """One part of the model in two bundles.

    Attributes:
        place: of `node_places`.
        before, after: milliseconds; None where a bundle has no such part.
        operators: operator → layers more (or fewer, below 0) than before; equal ones are left out.
    """

    place: str
    before: float | None
    after: float | None
    operators: dict[str, int]

    @property
    def ms(self) -> float:
        """How much longer it takes."""
        return (self.after or 0.0) - (self.before or 0.0)

    @property
    def same(self) -> bool:
        """It has the same layers."""
        return not self.operators and None not in (self.before, self.after)

    def to_json(self) -> dict[str, Any]:
        """As `vptkit profile --layers --json` prints it."""
        return {
            "place": self.place,
            "before_ms": self.before,
            "after_ms": self.after,
            "ms": self.ms,
            "operators": self.operators,
        }


def compare_layers(before: LayerProfile, after: LayerProfile) -> list[PlaceChange]:
    """What changed from one bundle to another, in the order in which a model computes its parts.

    Args:
        before, after: profiled in one run, in turns; otherwise the machine's changes are among them.
    """
    first = {place.place: place for place in before.places}
    second = {place.place: place for place in after.places}
    found = []
    for name in sorted(first.keys() | second.keys(), key=order_of):
        one, two = first.get(name), second.get(name)
        old = one.operators() if one else {}
        new = two.operators() if two else {}
        counts = {key: new.get(key, 0) - old.get(key, 0) for key in sorted(old.keys() | new.keys())}
        found.append(
            PlaceChange(
                place=name,
                before=one.ms if one else None,
                after=two.ms if two else None,
                operators={key: count for key, count in counts.items() if count},
            )
        )
    return found


def compared(
    profiles: Sequence[LayerProfile],
) -> list[tuple[LayerProfile, LayerProfile, list[PlaceChange]]]:
    """The first bundle with each other one, and what changed; nothing where nothing ran."""
    first, *others = profiles
    return [(first, other, compare_layers(first, other)) for other in others if first.runs]


def layers_document(profiles: Sequence[LayerProfile]) -> dict[str, Any]:
    """What `vptkit profile --layers --json` prints."""
    return {
        "profiles": [profile.to_json() for profile in profiles],
        "changes": [
            {
                "before": before.name,
                "after": after.name,
                "places": [change.to_json() for change in changes],
            }
            for before, after, changes in compared(profiles)
        ],
    }
