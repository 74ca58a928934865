"""The command line: every command parses, calls the library, prints.

Results go to standard output, `--json` makes them one document; everything else goes to standard
error. Heavy imports stand inside the commands, so that `--help` is instant. No future import of
annotations here: typer reads them at run time.
"""

import signal
import sys
import warnings
from types import FrameType
from typing import Annotated

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
from vptkit.cli.tune_commands import analyze, import_adapter, sweep, tune
from vptkit.demo import command
from vptkit.errors import VptkitError

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
    try:
        app()
    except VptkitError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as error:
        if error.code == 130:
            print("interrupted", file=sys.stderr)
        raise


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
app.command()(sweep.sweep)
app.command()(analyze.analyze)
app.command("import")(import_adapter.import_)
app.add_typer(devices.devices, name="devices")
app.add_typer(bank.bank, name="bank")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that temporary files go."""
    raise KeyboardInterrupt
