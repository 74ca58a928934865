"""The methods that `--method auto` tries, those first that change the backbone's features least.

In that order the first is kept that no other beats on val by more than the noise: LayerNorms before
prompts, which learn more, and forget more of what the backbone knew of other kinds of images
(docs/results.md, "Out of distribution").
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from vptkit.tune.config import TuneConfig
from vptkit.tune.idle_settings import idle_settings

__all__ = ["NAMES", "PROBE", "candidates"]

PROBE = "linear"
_CANDIDATES: dict[str, dict[str, Any]] = {
    "ln": {"method": "ln"},
    "vpt-shallow": {"method": "vpt", "insert": "shallow"},
    "bpt": {"method": "bpt"},
    "vpt": {"method": "vpt"},
}
_WITHOUT_BUDGET = ("ln", "vpt")  # one and a half times what the first takes alone
NAMES = (PROBE, *_CANDIDATES)


def candidates(config: TuneConfig) -> dict[str, TuneConfig]:
    """Name → the settings of a run; the probe is the first.

    Args:
        config: with method "auto"; all else is every candidate's own, too. All are tried within a
            budget, two without.
    """
    names = _WITHOUT_BUDGET if config.budget is None else tuple(_CANDIDATES)
    values = {f.name: getattr(config, f.name) for f in fields(config)} | {"budget": None}
    own = {PROBE: {"method": PROBE}} | {name: _CANDIDATES[name] for name in names}
    return {name: replace(config, **_settings({**values, **one})) for name, one in own.items()}


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of one candidate: those that do nothing for it are as usual."""
    usual = {f.name: f.default for f in fields(TuneConfig)}
    return values | {key: usual[key] for key in idle_settings(values)}
