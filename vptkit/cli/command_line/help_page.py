"""The page that `--help` prints: what it does, examples, options in groups with their choices.

Made for a terminal of 60 columns or more; plain text, whose lines are never cut.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from .choices import TEXTS, choices_of
from .groups import COMMANDS, EXAMPLES, LAST_COMMANDS, LAST_OPTIONS, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "argument_usage",
    "arguments_of",
    "command_page",
    "grouped",
    "root_page",
    "shown_spellings",
]

_NAMES = 24  # columns of the names; a longer one has a line of its own
_WORDS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def command_page(name: str, command: Any, options: Sequence[Any], width: int) -> str:
    """The page of a command, below its usage line.

    Args:
        name: as "tune" or "bank add".
        command: typer's.
        options: its parameters, arguments and `--help` among them.
        width: columns.
    """
    parts = [_paragraph(command.help or "", width), _examples(name, width)]
    arguments = [(argument_usage(p), _text(name, p)) for p in arguments_of(command)]
    parts.append(_table("Arguments", arguments, width))
    types_ = _types(command)
    for heading, members in grouped(name, options).items():
        rows = [(_names(name, p, types_.get(p.name)), _text(name, p)) for p in members]
        parts.append(_table(heading, rows, width))
    return "\n".join(part for part in parts if part)


def root_page(
    name: str, command: Any, options: Sequence[Any], commands: Mapping[str, str], width: int
) -> str:
    """The page of `vptkit`, or of a command that has others below it.

    Args:
        name: "" for vptkit itself, else as "bank".
        command: typer's.
        options: its own parameters, `--help` among them.
        commands: those below it, with a line about each.
        width: columns.
    """
    parts = [_paragraph(command.help or "", width), _examples(name, width)]
    listed = COMMANDS if name == "" else {"Commands": tuple(commands)}
    known = {word for words in listed.values() for word in words}
    for heading, words in listed.items():
        here = [w for w in words if w in commands]
        if heading == LAST_COMMANDS:
            here += [w for w in commands if w not in known]
        parts.append(_table(heading, [(w, commands[w]) for w in here], width))
    types_ = _types(command)
    shown = [p for p in options if not getattr(p, "hidden", False)]
    rows = [(_names(name, p, types_.get(p.name)), p.help or "") for p in shown]
    parts.append(_table("Options", rows, width))
    return "\n".join(part for part in parts if part)


def grouped(name: str, options: Iterable[Any]) -> dict[str, list[Any]]:
    """Heading → options that are shown below it, in the order of the table."""
    table = OPTIONS.get(name, {})
    place = {word: heading for heading, words in table.items() for word in words.split()}
    order = {word: i for words in table.values() for i, word in enumerate(words.split())}
    found: dict[str, list[Any]] = {heading: [] for heading in (*table, LAST_OPTIONS)}
    for option in options:
        if not _argument(option) and not getattr(option, "hidden", False):
            word = _long(option)
            found[place.get(word, LAST_OPTIONS)].append(option)
    for members in found.values():
        members.sort(key=lambda option: order.get(_long(option), len(order)))
    return {heading: members for heading, members in found.items() if members}


def shown_spellings(option: Any) -> list[str]:
    """Spellings of an option that the page shows: the short ones, and the first long one."""
    long = [word for word in option.opts if word.startswith("--")]
    return [word for word in option.opts if word not in long[1:]]


def arguments_of(command: Any) -> list[Any]:
    """What stands on the line without a name, in order."""
    return [parameter for parameter in command.params if _argument(parameter)]


def argument_usage(argument: Any) -> str:
    """As "DATA", "[BUNDLE]" or "SOURCE..."."""
    name = (argument.metavar or argument.name.upper()).strip("[].")
    text = name if argument.nargs == 1 else f"{name}..."
    return text if argument.required else f"[{text}]"


def _argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _long(option: Any) -> str:
    """Its long name without dashes, as the table has it."""
    return str(max(shown_spellings(option), key=len)).lstrip("-")


def _names(name: str, option: Any, kind: Any) -> str:
    words = sorted(shown_spellings(option), key=len)
    text = ", ".join([*words, *option.secondary_opts])
    values = choices_of(name, option.opts)
    if kind is bool or getattr(option, "is_flag", False) or "--help" in option.opts:
        return text
    if values:
        return f"{text} [{'|'.join(values)}]"
    return f"{text} {option.metavar or _WORDS.get(kind, 'TEXT')}"


def _text(name: str, parameter: Any) -> str:
    texts = (TEXTS.get(f"{name} {word}") for word in parameter.opts)
    text = next((text for text in texts if text), parameter.help or "")
    if parameter.required and not _argument(parameter):
        return f"{text} [required]"
    default = parameter.default
    told = getattr(parameter, "show_default", True) and not text.rstrip(".").endswith("]")
    if (
        not told
        or _argument(parameter)
        or default is None
        or default in ((), [])
        or callable(default)
    ):
        return text
    if isinstance(default, bool):
        both = parameter.secondary_opts
        default = (parameter.opts if default else both)[0] if both else None
    if default is None:
        return text
    return f"{text[:-1]} [{default}]." if text.endswith(".") else f"{text} [{default}]"


def _types(command: Any) -> dict[str, Any]:
    """Parameter → its type, without None and list."""
    if command.callback is None:
        return {}
    return {k: _type(v) for k, v in inspect.unwrap(command.callback).__annotations__.items()}


def _type(annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin in (Annotated, list):
        return _type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _type(next(a for a in get_args(annotation) if a is not type(None)))
    return annotation


# ---- lines ----


def _paragraph(text: str, width: int) -> str:
    text = " ".join(text.split())
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ") + "\n"


def _examples(name: str, width: int) -> str:
    """Lines to be pasted: a long one goes on behind a backslash."""
    lines = [_broken(f"vptkit {example}", width - 2) for example in EXAMPLES.get(name, ())]
    return "\n".join(["Examples:", *lines, ""]) if lines else ""


def _broken(line: str, width: int) -> str:
    """An option stays on one line with its value."""
    lines = [""]
    for part in re.split(r" (?=-)", line):
        if lines[-1] and len(lines[-1]) + len(part) + 5 > width:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return "  " + " \\\n  ".join(lines)


def _table(heading: str, rows: Sequence[tuple[str, str]], width: int) -> str:
    if not rows:
        return ""
    column = min(max(len(names) for names, _ in rows), _NAMES) + 4
    lines = [f"{heading}:"]
    for names, text in rows:
        words = textwrap.wrap(
            " ".join(text.split()), width - column, break_long_words=False, break_on_hyphens=False
        )
        heads = _wrapped_names(names, width)
        if len(heads) == 1 and len(heads[0]) + 4 <= column:
            lines.append(f"  {heads[0]:<{column - 2}}{words.pop(0) if words else ''}".rstrip())
        else:
            lines += [f"  {head}" for head in heads]
        lines += [" " * column + word for word in words]
    return "\n".join([*lines, ""])


def _wrapped_names(names: str, width: int) -> list[str]:
    """The names of an option; many choices go over several lines, broken behind a bar."""
    if len(names) + 2 <= width:
        return [names]
    pieces = names.replace("|", "|\0").split("\0")
    lines = [""]
    for piece in pieces:
        if len(lines[-1]) + len(piece) + 2 > width:
            lines.append(" " * (names.find("[") + 1))
        lines[-1] += piece
    return lines
