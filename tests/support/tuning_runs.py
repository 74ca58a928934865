"""What tests of whole tuning runs share: progress that stops or counts, files, a script to kill."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.tune import TuneResult

CYCLIC = {"method": "ln", "cycles": 2, "head_epochs": 2, "ln_epochs": 2}


class Stop:
    """A progress that raises after some images."""

    def __init__(self, after: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.total: int | None = None
        self._left, self._error = after, error

    def update(self, advance: int = 1, text: str = "") -> None:
        self._left -= advance
        if self._left <= 0:
            raise self._error


class Count:
    """A progress that takes notes."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done, self.texts = 0, []

    def update(self, advance: int = 1, text: str = "") -> None:
        self.done += advance
        self.texts.append(text)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def records(result: TuneResult) -> list[dict]:
    """The metrics of a run, one document an epoch."""
    return [json.loads(line) for line in result.metrics.read_text().splitlines()]


# Kills itself after 30 images: DATA OUTPUT SETTINGS.
KILLED = """
import os, signal, sys
from pathlib import Path
from vptkit.tune import config_from_mapping, tune
import json, torch
torch.set_num_threads(1)

class Kill:
    total = None
    left = 30
    def update(self, advance=1, text=""):
        self.left -= advance
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

data, output, settings = sys.argv[1:]
tune(Path(data), Path(output), config_from_mapping(json.loads(settings)), progress=Kill())
"""
