"""The command line: every command parses, calls the library, prints.

Results go to standard output, `--json` makes them one document; everything else goes to standard
error. Heavy imports stand inside the commands, so that `--help` is instant. No future import of
annotations here: typer reads them at run time.
"""

import io
import logging
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from vptkit import __version__
from vptkit.cli.export_commands import bank, bisect, export
from vptkit.cli.runtime_commands import (
    build,
    check,
    devices,
    doctor,
    evaluate,
    inspect,
    profile,
    run,
)
from vptkit.cli.tune_commands import analyze, backbones, import_adapter, sweep, tune
from vptkit.demo import command
from vptkit.errors import VptkitError
from vptkit.paths.command_line import remember
from vptkit.shown_text import shown_lines, tell

__all__ = ["app", "main"]

app = typer.Typer(
    name="vptkit",
    help="Deploy Vision Transformers that were adapted by prompts or LayerNorm tuning.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; the only place where errors become exit codes."""
    signal.signal(signal.SIGTERM, _interrupt)
    # What Pillow warns of is either harmless or becomes an error that names the file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _show_what_others_say()
    try:
        remember(sys.argv[1:])
        code = app(standalone_mode=False)  # what it prints of an error is somebody's text, too
    except VptkitError as error:
        tell(f"error: {' '.join(str(error).split())}")
        sys.exit(error.exit_code)
    except typer.Abort:
        code = 1
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's, which typer has a copy of or not
            raise
        _usage_error(error)
    if code == 130:
        tell("interrupted")
    sys.exit(code or 0)


def _usage_error(error: Any) -> NoReturn:
    """As click does it; the words on the command line may be names that a shell found."""
    if isinstance(getattr(error, "message", None), str):
        error.message = shown_lines(error.message)
    error.show()
    sys.exit(error.exit_code)


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


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None: ...


# in the order in which --help lists them
app.command()(tune.tune)
app.command()(export.export)
app.command()(build.build)
app.command()(bisect.bisect)
app.command()(check.check)
app.command("eval")(evaluate.evaluate_bundle)
app.command()(run.run)
app.command()(inspect.inspect)
app.command()(profile.profile)
app.command()(doctor.doctor)
app.command()(command.demo)
app.command()(backbones.backbones)
app.command()(sweep.sweep)
app.command()(analyze.analyze)
app.command("import")(import_adapter.import_)
app.add_typer(devices.devices, name="devices")
app.add_typer(bank.bank, name="bank")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that temporary files go."""
    raise KeyboardInterrupt
