"""The command line: `vptkit.cli:main`. Commands lie with the room that does their work.

- `entry`: registers the commands; the only place where errors become exit codes.
- `interrupts`: Ctrl-C and SIGTERM, from the first line on.
- `failures`: what an exception is called, and its exit code.
- `export_commands`: export, bank, bisect.
- `run_command`: run.
- `runtime_commands`: eval, check, inspect, build, profile, doctor, devices.
- `shared`: options and output that commands share.
- `command_line`: help pages, suggestions, completion: how the line is read and explained.
- `texts`: results as text for people.
- `tune_commands`: tune, sweep, analyze, import.
"""

from __future__ import annotations

import gc

from . import interrupts

TYPE_CHECKING = False  # see interrupts
if TYPE_CHECKING:
    from typing import Any

    from .entry import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line as the whole of this process."""
    interrupts.listen()  # before anything is loaded: that takes a tenth of a second
    from .entry import main as run_line

    try:
        run_line()
    finally:
        gc.freeze()  # the system frees all at once; looking for what refers to what took 40 ms


def __getattr__(name: str) -> Any:
    if name == "app":
        from .entry import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
