"""A profile for another machine: `python3 -m vptkit.runtime.remote.profile_runner`, started by the agent.

Reads one JSON document, {"bundles": [path], "baselines": [{name: path}], "settings": {…}}, from
standard input, builds engines where the backend needs them, measures, and writes JSON lines:

    {"phase": title}                              the work has a new part
    {"total": n, "advance": n, "text": words}     its progress, at most one a second
    {"document": {…}}                             the profile; the last line
    {"error": {"code", "message"}}                or this: vptkit's exit code and its message

Standard error is free text. Needs numpy and what the backend needs, no other package.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

__all__ = ["Reporter", "main", "run"]


class Reporter:
    """Progress as JSON lines; every line costs the board time, so there are few."""

    def __init__(
        self,
        stream: TextIO,
        *,
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total: int | None = None
        self._stream, self._every, self._clock = stream, every, clock
        self._advance, self._text, self._last, self._pending = 0, "", clock(), False

    def update(self, advance: int = 1, text: str = "") -> None:
        """Count steps; write a line if the last one is old enough."""
        self._advance += advance
        self._text = text or self._text
        self._pending = True
        if self._clock() - self._last >= self._every:
            self.flush()

    def phase(self, title: str) -> None:
        """Begin a new part of the work."""
        self.flush()
        self.total, self._text = None, ""
        self._last -= self._every
        self.say(phase=title)

    def flush(self) -> None:
        """Write the steps that were only counted so far."""
        if self._pending:
            self.say(total=self.total, advance=self._advance, text=self._text)
        self._advance, self._last, self._pending = 0, self._clock(), False

    def say(self, **message: object) -> None:
        """Write one line. Whoever restores a power mode must not stumble over a lost desk."""
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(json.dumps(message) + "\n")
            self._stream.flush()


def main() -> None:
    """Run as a process of its own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What libraries print goes to standard error.
    own = os.dup(1)
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError), os.fdopen(own, "w", encoding="ascii") as stream:
        reporter = Reporter(stream)
        try:
            document = run(json.load(sys.stdin), reporter)
        except VptkitError as error:
            reporter.say(error={"code": error.exit_code, "message": str(error)})
        except ModuleNotFoundError as error:
            message = (
                f"the Python there lacks the package {error.name}: "
                f"{sys.executable} -m pip install {error.name}"
            )
            reporter.say(error={"code": 5, "message": message})
        except KeyboardInterrupt:
            sys.exit(130)
        else:
            reporter.flush()
            reporter.say(document=document)


def run(request: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Build what is missing, and measure.

    Args:
        request: {"bundles", "baselines", "settings"}, the last as `ProfileSettings.to_json`.
        reporter: told about it.

    Returns:
        As `profile_bundles`.
    """
    from vptkit.runtime.profile.prerequisites import build_engines
    from vptkit.runtime.profile.run_profile import profile_bundles
    from vptkit.runtime.profile.settings import ProfileSettings

    settings = ProfileSettings.from_json(request["settings"])
    bundles = [Path(path) for path in request["bundles"]]
    baselines = [{name: Path(p) for name, p in n.items()} for n in request["baselines"]]
    build_engines(bundles, settings, reporter, begin=lambda: reporter.phase("build"))
    reporter.phase("profile")
    return profile_bundles(bundles, settings, baselines=baselines, progress=reporter)


if __name__ == "__main__":
    main()
