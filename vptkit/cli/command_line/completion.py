"""What may come next on a line that is being typed, for bash, zsh and fish.

Reads the commands that there are, the table of choices, and names of files. Never an error: a shell
would write it into the line.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field
from typing import Any

from . import files
from .choices import choices_of
from .help_page import shown_spellings
from .shell_scripts import SHELLS, script

__all__ = ["VARIABLE", "Candidate", "answer", "candidates"]

VARIABLE = "_VPTKIT_COMPLETE"

# Kind of file → what its names end in; none: any file
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "bundle": (".vptk",),
    "adapter": (".safetensors",),
    "model": (".vptk", ".safetensors"),
    "settings": (".toml",),
    "file": (),
}
# Parameter, as declared, or command and parameter → kind of what it takes
_KINDS: dict[str, str] = {
    "bundle": "bundle",
    "bundles": "bundle",
    "adapters": "adapter",
    "weights": "adapter",
    "config": "settings",
    "adapter": "bank",
    "bank add adapter": "adapter",
    "bank replace adapter": "adapter",
    "bank replace name": "bank",
    "bank remove name": "bank",
    "analyze adapter": "adapter",
    "inspect path": "model",
    "devices show key": "board",
    "build device": "board",
    "backbone": "backbone",
    **dict.fromkeys(
        (
            "data",
            "sources",
            "output",
            "calibration",
            "gate",
            "full_data",
            "overflow",
            "save",
            "features",
            "reject_from",
            "plot",
        ),
        "file",
    ),
    **dict.fromkeys(("file", "head", "labels", "storage"), "file"),
}


@dataclass(frozen=True)
class Candidate:
    """One word that may come.

    Attributes:
        value: the word, or the path from where one stands.
        help: a few words about it.
        kind: "plain", or "path" whose name a shell has to quote.
    """

    value: str
    help: str = ""
    kind: str = "plain"


def answer(root: Any, mode: str) -> int:
    """Answer a shell, on standard output.

    Args:
        root: the command line as typer has made it.
        mode: what the variable holds, as "bash_complete", "source_zsh" or "complete_fish".

    Returns:
        The exit code.
    """
    first, _, second = mode.partition("_")
    shell, action = (first, second) if first in SHELLS else (second, first)
    if shell not in SHELLS or action not in ("source", "complete"):
        return 1
    if action == "source":
        sys.stdout.write(script(shell))
        return 0
    try:
        words, incomplete = _typed(shell)
        found = candidates(root, words, incomplete)
    except Exception:  # a shell would write whatever is said into the line
        found = []
    typers = mode.startswith("complete_") and shell == "bash"
    sys.stdout.write("".join(_line(candidate, shell, bare=typers) for candidate in found))
    return 0


def candidates(root: Any, words: list[str], incomplete: str) -> list[Candidate]:
    """What may follow.

    Args:
        root: the command line as typer has made it.
        words: those before, without "vptkit".
        incomplete: what stands there of the next one.
    """
    line = _Line(root)
    for word in words:
        line.read(word)
    option, equals, begun = incomplete.partition("=")
    if line.expecting is not None:
        return _values(line, line.expecting, incomplete)
    if incomplete.startswith("--") and equals and not line.names_only:
        parameter = line.option(option)
        found = _values(line, parameter, begun) if parameter else []
        return [Candidate(f"{option}={c.value}", c.help, c.kind) for c in found]
    if incomplete.startswith("-") and not line.names_only:
        return _options(line, incomplete)
    if line.commands:
        return _commands(line, incomplete)
    arguments = [p for p in line.command.params if p.param_type_name == "argument"]
    place = min(len(line.names), len(arguments) - 1)
    if place < 0 or (len(line.names) > place and arguments[place].nargs == 1):
        return _options(line, incomplete) if not incomplete else []
    return _values(line, arguments[place], incomplete)


@dataclass
class _Line:
    """How far the finished words lead."""

    command: Any
    path: list[str] = field(default_factory=list)  # of commands
    names: list[str] = field(default_factory=list)  # what is no option
    used: set[str] = field(default_factory=set)  # parameters
    expecting: Any = None  # the option whose value comes next
    names_only: bool = False  # behind "--"

    @property
    def commands(self) -> dict[str, Any]:
        """Those below the last one."""
        return dict(getattr(self.command, "commands", {}))

    def option(self, word: str) -> Any:
        """The option of that spelling, or None."""
        for parameter in self.command.params:
            if word in parameter.opts or word in parameter.secondary_opts:
                return parameter
        return None

    def read(self, word: str) -> None:
        """Take note of a finished word."""
        if self.expecting is not None:
            self.expecting = None
        elif word == "--" and not self.names_only:
            self.names_only = True
        elif word.startswith("-") and len(word) > 1 and not self.names_only:
            parameter = self.option(word.partition("=")[0])
            if parameter is not None:
                self.used.add(parameter.name)
                if "=" not in word and not getattr(parameter, "is_flag", False):
                    self.expecting = parameter
        elif word in self.commands:
            self.command = self.commands[word]
            self.path.append(word)
        elif not (word == "help" and self.commands and not self.names):
            self.names.append(word)


def _commands(line: _Line, incomplete: str) -> list[Candidate]:
    if line.names:
        return []
    found = {
        name: " ".join((command.help or "").split())
        for name, command in line.commands.items()
        if not command.hidden
    }
    if not line.path:
        found |= {"help": "Print the page of a command.", "version": "Print the version."}
    return [Candidate(name, text) for name, text in found.items() if name.startswith(incomplete)]


def _options(line: _Line, incomplete: str) -> list[Candidate]:
    found = []
    for parameter in line.command.params:
        if parameter.param_type_name != "option" or getattr(parameter, "hidden", False):
            continue
        if parameter.name not in line.used or getattr(parameter, "multiple", False):
            words = [max(shown_spellings(parameter), key=len), *parameter.secondary_opts]
            found += [Candidate(word, parameter.help or "") for word in words]
    found.append(Candidate("--help", "Print this command's page."))
    return [candidate for candidate in found if candidate.value.startswith(incomplete)]


def _values(line: _Line, parameter: Any, incomplete: str) -> list[Candidate]:
    command = " ".join(line.path)
    values = choices_of(command, list(parameter.opts))
    if not line.path and "--show-completion" in parameter.opts:
        values = SHELLS
    if values:
        return [Candidate(value) for value in values if value.startswith(incomplete)]
    kind = _KINDS.get(f"{command} {parameter.name}") or _KINDS.get(parameter.name, "")
    if kind in _SUFFIXES:
        return [Candidate(path, "", "path") for path in files.paths(incomplete, _SUFFIXES[kind])]
    names = {
        "bank": lambda: [name for word in line.names[:1] for name in files.adapters_of_bank(word)],
        "board": files.boards,
        "backbone": files.backbones,
    }.get(kind, list)()
    return [Candidate(name) for name in names if name.startswith(incomplete)]


# ---- the shells ----


def _typed(shell: str) -> tuple[list[str], str]:
    """The words behind "vptkit" up to the unfinished one, and that."""
    text = os.environ.get("COMP_WORDS")
    if text is None or shell == "fish":
        text = os.environ.get("_TYPER_COMPLETE_ARGS", "") if text is None else text
        words = _split(text)
        if not words or text[-1:].isspace():
            words.append("")
        return words[1:-1], words[-1] if len(words) > 1 else ""
    # Newlines, as the scripts here have it: then a word may have spaces in it.
    words = text.split("\n") if "\n" in text else _split(text)
    place = int(os.environ.get("COMP_CWORD") or len(words) - 1)
    before = words[1:place]
    incomplete = words[place] if place < len(words) else ""
    if "\n" in text and shell == "bash":
        before, incomplete = [_unquoted(word) for word in before], _unquoted(incomplete)
    return _joined(before, incomplete) if shell == "bash" else (before, incomplete)


def _joined(before: list[str], incomplete: str) -> tuple[list[str], str]:
    """What bash cut at "=", as "--x", "=", "y"."""
    if incomplete == "=" and before:
        return before, ""
    return [word for word in before if word != "="], incomplete


def _split(text: str) -> list[str]:
    """As a shell does it; of a quote that is still open, what follows it."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words += lexer
    except ValueError:  # an open quote
        words.append(lexer.token)
    return words


def _unquoted(word: str) -> str:
    words = _split(word)
    return words[0] if len(words) == 1 else word


def _line(candidate: Candidate, shell: str, *, bare: bool) -> str:
    text = " ".join(candidate.help.split())
    if bare:
        return f"{candidate.value}\n"
    if shell == "bash":
        return f"{candidate.kind},{candidate.value}\n"
    if shell == "zsh":
        return f"{candidate.kind}\n{candidate.value}\n{text or '_'}\n"
    return f"{candidate.value}\t{text}\n" if text else f"{candidate.value}\n"
