"""vptkit's commands and their options, as typer has made them."""

from __future__ import annotations

from typing import Any

import typer

from vptkit.cli.entry import app

__all__ = ["COMMANDS", "ROOT", "options_of"]

ROOT: Any = typer.main.get_command(app)


def _walk(name: str, command: Any) -> dict[str, Any]:
    found = {name: command}
    for word, inner in getattr(command, "commands", {}).items():
        found |= _walk(f"{name} {word}".strip(), inner)
    return found


COMMANDS = _walk("", ROOT)  # as "", "tune", "bank add"


def options_of(command: Any) -> list[Any]:
    """Its options, `--help` not among them."""
    return [p for p in command.params if p.param_type_name == "option"]
