"""The command line: `vptkit.cli:main`. Commands lie with the room that does their work.

- `entry`: registers the commands; the only place where errors become exit codes.
- `export_commands`: export, bank, bisect.
- `runtime_commands`: run, eval, check, inspect, build, profile, doctor, devices.
- `shared`: options, output and reports that commands share.
- `tune_commands`: tune, sweep, analyze, import.
"""

from .entry import app, main

__all__ = ["app", "main"]
