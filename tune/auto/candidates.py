"""The methods that `--method auto` tries, in the order of what they cost at inference: least first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vptkit.tune.config import TuneConfig

__all__ = ["NAMES", "PROBE", "candidates"]

PROBE = "linear"
_CANDIDATES: dict[str, dict[str, Any]] = {
    "ln": {"method": "ln"},
    "vpt-shallow": {"method": "vpt", "insert": "shallow"},
    "bpt": {"method": "bpt"},
    "vpt": {"method": "vpt"},
}
NAMES = (PROBE, *_CANDIDATES)


def candidates(config: TuneConfig) -> dict[str, TuneConfig]:
    """Name → the settings of a run; the probe is the first.

    Args:
        config: with method "auto"; all else is every candidate's own, too.
    """
    shared = replace(config, rescale="none", refit_epochs=0, cycles=0, budget=None)
    found = {PROBE: replace(shared, method="linear")}
    return found | {name: replace(shared, **given) for name, given in _CANDIDATES.items()}
