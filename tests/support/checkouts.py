"""Two checkouts of vptkit in one process, so that they can be measured in turns."""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Checkout", "in_turns", "ratios"]


class Checkout:
    """One copy of vptkit, with modules of its own."""

    def __init__(self, root: Path, modules: Sequence[str]) -> None:
        """Load modules from a folder."""
        self._root = str(root)
        self._modules: dict[str, Any] = {}
        self._in_turn(lambda: [importlib.import_module(name) for name in modules])

    def seconds(self, module: str, name: str, *arguments: Any) -> float:
        """What a call takes, of the processor: other programs take the clock's time, not this."""
        return float(self._in_turn(lambda: _seconds(getattr(sys.modules[module], name), arguments)))

    def set(self, module: str, name: str, value: Any) -> None:
        """Give a module's constant another value."""
        setattr(self._modules[module], name, value)

    def _in_turn(self, call: Callable[[], Any]) -> Any:
        kept = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "vptkit"}
        for name in kept:
            del sys.modules[name]
        sys.modules.update(self._modules)
        sys.path.insert(0, self._root)
        try:
            return call()
        finally:
            sys.path.remove(self._root)
            mine = [n for n in sys.modules if n.partition(".")[0] == "vptkit"]
            self._modules = {name: sys.modules.pop(name) for name in mine}
            sys.modules.update(kept)


def _seconds(function: Callable[..., Any], arguments: Sequence[Any]) -> float:
    begun = time.process_time()
    function(*arguments)
    return time.process_time() - begun


def in_turns(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """What each call returned in each round, in a random order; the first two rounds are left out."""
    rng, found = np.random.default_rng(1), {name: [] for name in calls}  # type: ignore[var-annotated]
    for _ in range(rounds + 2):
        for name in rng.permutation(list(calls)):
            found[str(name)].append(calls[str(name)]())
    return {name: np.array(values[2:]) for name, values in found.items()}


def ratios(before: Any, now: Any) -> str:
    """Paired ratio with its quartiles, and that of the fastest rounds, which noise hardly touches."""
    low, middle, high = np.percentile(now / before, [25, 50, 75])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}] | {now.min() / before.min():.3f}"
