"""Modules that stand in for others, and packages that are not installed."""

from __future__ import annotations

import builtins
import sys
from types import ModuleType


def fake_room(monkeypatch, name: str, **members) -> None:
    """Put a module of another room in place, so that this test does not depend on it."""
    module = ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def hide(monkeypatch, package: str) -> None:
    """Let importing a package fail as if it were not installed."""
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
