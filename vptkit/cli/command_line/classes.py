"""typer's command and group with our manners: pages in groups, suggestions, `help` and `version`."""

from __future__ import annotations

import os
from typing import Any

from typer.core import TyperCommand, TyperGroup

from .groups import OPTIONS
from .help_page import argument_usage, arguments_of, command_page, root_page, shown_spellings
from .plain_values import take_plain_values
from .shell_scripts import SHELLS
from .suggestions import command_meant, option_meant

__all__ = ["Command", "Group", "adopt"]


class Command(TyperCommand):
    """A command whose page is in groups, and that knows what a wrong option meant."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Options and arguments, `--help` among them."""
        return take_plain_values(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page, of a width that the terminal has."""
        self.format_usage(ctx, formatter)
        page = command_page(_name(ctx), self, self.get_params(ctx), formatter.width)
        formatter.write("\n" + page)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the name in the usage line."""
        return ["[OPTIONS]", *map(argument_usage, arguments_of(self))]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click does; a wrong option is a question."""
        given = list(args)  # click takes the words out of the list
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            _ask(self, ctx, given, error)
            raise


class Group(TyperGroup):
    """A command that has others below it."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Options and arguments, `--help` among them."""
        return take_plain_values(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page, of a width that the terminal has."""
        self.format_usage(ctx, formatter)
        commands = {
            name: " ".join((command.help or "").split("\n\n")[0].split())
            for name, command in self.commands.items()
            if not command.hidden
        }
        page = root_page(_name(ctx), self, self.get_params(ctx), commands, formatter.width)
        formatter.write("\n" + page)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click does; `help COMMAND` and `version` are the options of these names."""
        args = _as_options(args, at_root=ctx.parent is None)
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            _ask(self, ctx, given, error)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click does; a word that is no command is a question."""
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            meant = command_meant(word, self.commands, args[1:])
            if meant and ("/" in word or "." in word):  # a file, where the command belongs
                line = " ".join(["vptkit", meant[0], *args])
                ctx.fail(f"No such command: {word}. A command comes first, as in: {line}")
            ctx.fail(f"No such command: {word}.{_question(meant)}")
        return super().resolve_command(ctx, args)


def adopt(app: Any) -> None:
    """Give all commands of a typer.Typer, and of those below it, these classes."""
    app.info.cls = Group
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        group.cls = Group
        adopt(group.typer_instance)


def _as_options(args: list[str], *, at_root: bool) -> list[str]:
    if args[:1] == ["help"]:
        rest = [word for word in args[1:] if word not in ("help", "--help")]
        return [*rest, "--help"]
    if at_root and args[:1] == ["version"]:
        return ["--version", *args[1:]]
    if at_root and args[:1] in (["--install-completion"], ["--show-completion"]):
        if args[1:2] and args[1] in SHELLS:
            return args
        own = os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119 -- no path is read
        return [args[0], own if own in SHELLS else "bash", *args[1:]]
    return args


def _name(ctx: Any) -> str:
    """As "bank add"; "" of vptkit itself, however that was started."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name)
        ctx = ctx.parent
    return " ".join(words)


def _ask(command: Any, ctx: Any, given: list[str], error: Exception) -> None:
    """Fail with what was meant, if the error is an unknown option; click's class has two homes."""
    option = getattr(error, "option_name", None)
    if option is None or not hasattr(error, "possibilities"):
        return
    typed = option
    if not option.startswith("--"):  # of -weights click says -w
        typed = next((word for word in given if word.startswith(option)), option).split("=")[0]
    known = [
        word
        for parameter in command.get_params(ctx)
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False)
        for word in (*shown_spellings(parameter), *parameter.secondary_opts)
    ]
    meant = option_meant(typed, known)
    ctx.fail(f"No such option: {typed}.{_question(meant) or _elsewhere(typed)}")


def _question(meant: list[str]) -> str:
    if not meant:
        return ""
    first, last = ", ".join(meant[:-1]), meant[-1]
    return f" Did you mean {first} or {last}?" if first else f" Did you mean {last}?"


def _elsewhere(option: str) -> str:
    """Which commands have an option that this one lacks."""
    word = option.lstrip("-")
    having = [
        f"vptkit {command}"
        for command, groups in OPTIONS.items()
        if any(word in words.split() for words in groups.values())
    ]
    return f" It is an option of {', '.join(having)}." if having else ""
