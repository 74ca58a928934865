"""How far a build is, from what its child process tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.progress import Progress

__all__ = ["Follower"]


class Follower:
    """Tells a `Progress` in percent how far the build is; without phases, that it is alive.

    Phases are nested and their steps uneven: the time left that follows from them is a guess.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done, self._tactics = progress, 0, 0
        self._phases: list[list[Any]] = []  # name, steps, steps finished; outermost first

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take note of an event of `vptkit.runtime.engine_build.worker_process.converse`."""
        kind = event["event"]
        if kind == "tactic":
            self._tactics = event["count"]
        elif kind == "beat":
            phase = self._phases[-1][0] if self._phases else "still building"
            timed = f", tactic {self._tactics}" if self._tactics else ""
            self._progress.update(0, f"{phase}, {event['seconds']:.0f} s{timed}")
        elif kind in ("phase", "step", "finish"):
            self._follow(kind, event)
        elif kind == "result" and self._phases and event["stage"] == "done":
            self._advance(100, "")

    def _follow(self, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "phase":
            self._progress.total = 100
            self._phases.append([event["name"], max(event["steps"], 1), 0])
        else:
            places = [i for i, phase in enumerate(self._phases) if phase[0] == event["name"]]
            if not places:
                return
            if kind == "step":
                self._phases[places[-1]][2] += 1
            else:  # the outermost stays: it is what the percentage is of
                del self._phases[max(places[-1], 1) :]
        part = 0.0
        for _, steps, finished in reversed(self._phases):
            part = min((finished + part) / steps, 1.0)
        self._advance(int(100 * part), self._phases[-1][0])

    def _advance(self, percent: int, text: str) -> None:
        gained = max(percent - self._done, 0)
        self._done += gained
        self._progress.update(gained, text)
