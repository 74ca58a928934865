"""Commands by name, each made when it is asked for: what one command needs, the others do not load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer

from .classes import Group, adopt

__all__ = ["LazyCommands", "lazy_group"]


class LazyCommands(Mapping[str, Any]):
    """Name → command, as typer makes it of a function or of a typer.Typer of ours."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """Load nothing.

        Args:
            places: name → "module:name" of the function or the typer.Typer, in the order of the
                help page.
        """
        self._places = places
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            module, _, found = self._places[name].partition(":")
            self._made[name] = _made(name, getattr(import_module(module), found))
        return self._made[name]

    def __contains__(self, name: object) -> bool:  # Mapping's own would make it
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def lazy_group(places: Mapping[str, str]) -> type[Group]:
    """A class of groups that hold these commands; see `LazyCommands`."""

    class LazyGroup(Group):
        """A group whose commands are loaded one by one."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.commands: Any = LazyCommands(places)

    return LazyGroup


def _made(name: str, found: Any) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name)
        adopt(app)
        return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    app.command(name)(found)
    adopt(app)
    return typer.main.get_command(app)
