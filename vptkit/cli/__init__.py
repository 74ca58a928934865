"""The command line: `vptkit.cli:main`. Commands lie with the room that does their work.

- `entry`: registers the commands; the only place where errors become exit codes.
- `export_commands`: export, bank, bisect.
- `runtime_commands`: run, eval, check, inspect, build, profile, doctor, devices.
- `shared`: options, output and reports that commands share.
- `tune_commands`: tune, sweep, analyze, import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.api.lazy_names import lazy_names

if TYPE_CHECKING:
    from .entry import app, main

__all__ = ["app", "main"]

# Not imported with `shared`, which the Python API uses: it shall not need typer, nor its time.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__, {"app": "vptkit.cli.entry", "main": "vptkit.cli.entry"}
    )
