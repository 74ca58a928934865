"""Every command of vptkit and its options, read off the command line's own parser."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import Any

import typer

from vptkit.cli import app

__all__ = ["all_options", "commands", "complaint"]

# What the shell, or whoever starts vptkit, makes of a word
_END = re.compile(r"[|;&>]+|#.*")


@cache
def commands() -> dict[str, frozenset[str]]:
    """Command, as "tune" or "bank add" → its options."""
    found: dict[str, frozenset[str]] = {}

    def walk(name: str, command: Any) -> None:
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o[0] == "-"}
        found[name] = frozenset(options | {"--help", "-h", "--traceback"})
        for word, inner in getattr(command, "commands", {}).items():
            walk(f"{name} {word}".strip(), inner)

    walk("", typer.main.get_command(app))
    return found


@cache
def all_options() -> frozenset[str]:
    """Options of any command."""
    return frozenset().union(*commands().values())


def complaint(line: str) -> str | None:
    """What is wrong with a line that calls vptkit, or None; other lines have nothing wrong.

    Args:
        line: of a shell block, or code in prose: `vptkit devices list | show X` counts its first
            command only, and words after an ellipsis are free.
    """
    words = shlex.split(line.replace("…", "..."), comments=True)
    start = next((i for i, word in enumerate(words) if word.split("/")[-1] == "vptkit"), None)
    if start is None or words[max(start - 1, 0)] in ("install", "-e", "-r"):
        return None
    rest = words[start + 1 :]
    end = next((i for i, word in enumerate(rest) if _END.fullmatch(word)), len(rest))
    rest = rest[:end]
    if rest[:1] == ["version"]:
        return None
    if rest[:1] == ["help"]:
        rest = rest[1:]
    name = ""
    for word in rest:
        if f"{name} {word}".strip() not in commands():
            break
        name = f"{name} {word}".strip()
    if not name and rest and not rest[0].startswith("-"):
        return f"there is no command {rest[0]!r} in: {line}"
    wrong = [
        word
        for word in rest
        if re.match(r"--?[a-zA-Z]", word) and word.split("=")[0] not in commands()[name]
    ]
    return f"vptkit {name} has no {', '.join(wrong)}: {line}" if wrong else None
