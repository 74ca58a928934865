"""How a command ends: what it wrote, and the command that one types next.

Verdicts are sentences on standard output, after the result; `--json` has none of them.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["next_command", "options_again", "wrote"]


def next_command(*words: object) -> str:
    """As "next: vptkit run 'my flowers.vptk' photos/", ready to be pasted into a shell."""
    return f"next: {' '.join(['vptkit', *(shown(shlex.quote(str(word))) for word in words)])}"


def options_again(context: Any, leave: Collection[str] = ()) -> list[object]:
    """The options that stand on the command line, as its words: ["--precision", "int8", "--force"].

    Args:
        context: of the command, from typer.
        leave: parameters that are left away, by name.
    """
    words: list[object] = []
    for param in context.command.params:
        source = context.get_parameter_source(param.name)
        if param.name in leave or param.param_type_name != "option" or source.name != "COMMANDLINE":
            continue
        value, flag = context.params[param.name], next(x for x in param.opts if x.startswith("--"))
        if param.is_flag:
            words.append(flag if value else param.secondary_opts[0])
            continue
        for one in value if param.multiple else [value]:
            words += [flag, one]
    return words


def wrote(*paths: Path) -> str:
    """As "wrote flowers.safetensors (353 kB), flowers.html"; a folder is all of its files."""
    sized = f"{shown(paths[0])} ({_size(paths[0])})"
    return "wrote " + ", ".join([sized, *map(shown, paths[1:])])


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}"
    return f"{size} B"
