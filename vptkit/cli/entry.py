"""The command line: every command parses, calls the library, prints.

Results go to standard output, `--json` makes them one document; everything else goes to standard
error. A command loads its own module only, and heavy imports stand inside its function, so that
`--help` is instant. No future import of annotations here: typer reads them at run time.
"""

import contextlib
import io
import logging
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from vptkit import __version__
from vptkit.cli.command_line import completion, shell_scripts
from vptkit.cli.command_line.lazy_commands import lazy_group
from vptkit.paths.command_line import remember
from vptkit.shown_text import shown, shown_lines, tell

from . import failures, interrupts

__all__ = ["COMMANDS", "app", "main"]

# In the order in which --help lists them; each is loaded when it is asked for
COMMANDS = {
    "tune": "vptkit.cli.tune_commands.tune:tune",
    "export": "vptkit.cli.export_commands.export:export",
    "build": "vptkit.cli.runtime_commands.build:build",
    "bisect": "vptkit.cli.export_commands.bisect:bisect",
    "check": "vptkit.cli.runtime_commands.check:check",
    "eval": "vptkit.cli.runtime_commands.evaluate:evaluate_bundle",
    "run": "vptkit.cli.run_command.run:run",
    "serve": "vptkit.cli.runtime_commands.serve:serve",
    "inspect": "vptkit.cli.runtime_commands.inspect:inspect",
    "profile": "vptkit.cli.runtime_commands.profile:profile",
    "report": "vptkit.cli.runtime_commands.report:report",
    "doctor": "vptkit.cli.runtime_commands.doctor:doctor",
    "demo": "vptkit.demo.command:demo",
    "backbones": "vptkit.cli.tune_commands.backbones:backbones",
    "sweep": "vptkit.cli.tune_commands.sweep:sweep",
    "analyze": "vptkit.cli.tune_commands.analyze:analyze",
    "import": "vptkit.cli.tune_commands.import_adapter:import_",
    "devices": "vptkit.cli.runtime_commands.devices:devices",
    "bank": "vptkit.cli.export_commands.bank:bank",
}

app = typer.Typer(
    name="vptkit",
    cls=lazy_group(COMMANDS),
    help="Deploy Vision Transformers that were adapted by prompts or LayerNorm tuning.",
    add_completion=False,  # ours, see command_line/completion
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; the only place where errors become exit codes."""
    with interrupts.heard():
        code = _run_line(sys.argv[1:])
    sys.exit(code)


def _run_line(line: list[str]) -> int:
    # What Pillow warns of is either harmless or becomes an error that names the file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _show_what_others_say()
    words, with_traceback = failures.without_traceback_option(line)
    try:
        if asked := os.environ.get(completion.VARIABLE):
            return completion.answer(typer.main.get_command(app), asked)
        remember(words)
        code = interrupts.run(lambda: app(args=words, standalone_mode=False)) or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except typer.Abort:
        code = 1
    except Exception as error:
        code = 130 if interrupts.asked() else _failed(error, with_traceback=with_traceback)
    if code == 130:
        tell("interrupted")
    return int(code)


def _failed(error: Exception, *, with_traceback: bool) -> int:
    if hasattr(error, "format_message"):  # click's, which typer has a copy of or not
        return _usage_error(error)
    if isinstance(error, OSError):
        _give_up_output()
        if isinstance(error, BrokenPipeError):
            return 1  # whoever read it has left, and knows
    return failures.exit_code(error, with_traceback=with_traceback)


def _give_up_output() -> None:
    """Python writes what is left when it ends, and complains: not where that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _usage_error(error: Any) -> int:
    """As click does it; the words on the command line may be names that a shell found."""
    if isinstance(getattr(error, "message", None), str):
        error.message = shown_lines(error.message)
    error.show()
    return int(error.exit_code)


def _show_what_others_say() -> None:
    """Warnings, the log, and letters that this terminal lacks: shown, whatever they hold."""
    warnings.formatwarning = _warning
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Shown())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


_plain_warning = warnings.formatwarning


def _warning(*args: Any, **kwargs: Any) -> str:
    return shown_lines(_plain_warning(*args, **kwargs))


class _Shown(logging.Formatter):
    """The message alone, as without any formatter."""

    def format(self, record: logging.LogRecord) -> str:
        return shown_lines(super().format(record))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def _show_completion(shell: str | None) -> None:
    if shell is not None:
        print(shell_scripts.script(_known_shell(shell)), end="")
        raise typer.Exit


def _install_completion(shell: str | None) -> None:
    if shell is not None:
        place, left = shell_scripts.install(_known_shell(shell))
        print(f"wrote {shown(place)}\n{shown(left)}")
        raise typer.Exit


def _known_shell(shell: str) -> str:
    from vptkit.cli.shared.options import require_choice

    require_choice("--show-completion", shell, shell_scripts.SHELLS)
    return shell


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "-V",
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version and exit.",
        ),
    ] = False,
    install_completion: Annotated[
        str | None,
        typer.Option(
            metavar="SHELL",
            is_eager=True,
            callback=_install_completion,
            help="Let the Tab key complete commands, options and files: bash, zsh, fish [yours].",
        ),
    ] = None,
    show_completion: Annotated[
        str | None,
        typer.Option(
            metavar="SHELL",
            is_eager=True,
            callback=_show_completion,
            help="Print the lines for that instead.",
        ),
    ] = None,
) -> None: ...
