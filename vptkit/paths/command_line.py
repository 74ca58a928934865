"""The words that the user typed: a message can propose the same command with another path.

The command line remembers them (`vptkit.cli.entry`); programs that call the library have none, and
their messages name the path alone.
"""

from __future__ import annotations

import os
import shlex
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["command_with", "other_words", "remember", "typed_command"]

_MOST_LETTERS = 300  # of a command that a message proposes; a shell's glob makes longer ones
_words: ContextVar[tuple[str, ...]] = ContextVar("words", default=())


def remember(words: Sequence[str]) -> None:
    """Keep what was typed behind `vptkit`."""
    _words.set(tuple(words))


def typed_command() -> str:
    """The first word, such as run; "" for a program that calls the library."""
    return next(iter(_words.get()), "")


def other_words(path: Path) -> list[str]:
    """The words besides the command and a path."""
    return [word for word in _words.get()[1:] if not _is(word, path)]


def command_with(replaced: dict[Path, object]) -> str | None:
    """The same command with other paths, ready to be pasted into a shell.

    Args:
        replaced: a path that was typed → what should have been; two can be swapped.

    Returns:
        None if nobody typed one of these paths, or the command is too long to be read.
    """
    words, found = list(_words.get()), set()
    for i, word in enumerate(words):
        for path, instead in replaced.items():
            if i and _is(word, path):
                words[i] = str(instead)
                found.add(path)
                break
    command = " ".join(["vptkit", *map(shlex.quote, words)])
    return command if found == set(replaced) and len(command) <= _MOST_LETTERS else None


def _is(word: str, path: Path) -> bool:
    """Whether a word names a path, with a slash at its end or without."""
    return os.path.normpath(word) == os.path.normpath(path)
