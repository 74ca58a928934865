"""Names of a package that are imported when they are asked for, and that `dir` shows."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["lazy_names"]


def lazy_names(
    package: str, places: Mapping[str, str], extras: Mapping[str, tuple[str, str]] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: its dotted name.
        places: name → module that has it; of a module itself, that module.
        extras: name → a package that it cannot do without, and the extra that brings it; without it
            `dir` does not show the name.
    """
    needs = extras or {}

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(places[name])
        except ModuleNotFoundError as error:
            if name not in needs or (error.name or "").startswith("vptkit"):
                raise
            raise MissingExtraError(*needs[name], f"{package}.{name}") from error
        return module if places[name] == f"{package}.{name}" else getattr(module, name)

    def names() -> list[str]:
        own = vars(sys.modules[package])
        there = {n for n in own if n.startswith("__") or isinstance(own[n], ModuleType)}
        there |= {n for n in places if n not in needs or importlib.util.find_spec(needs[n][0])}
        return sorted(there)

    return get, names
