"""Layers as a trace for Perfetto (ui.perfetto.dev) and chrome://tracing.

The form is Chrome's Trace Event Format: complete events ("X"), times in microseconds. Each bundle is a
process with three tracks: the runs, the parts of the model within them, and the layers within those.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .layer_time import LayerProfile, LayerTime

__all__ = ["trace_of", "write_trace"]

_TRACKS = ("runs", "model", "layers")
_MOST_RUNS = 20  # of each bundle: the first ones; a trace of thousands is slow to open


def write_trace(profiles: Sequence[LayerProfile], path: Path) -> None:
    """Write a trace.

    Args:
        profiles: of some bundles.
        path: the JSON file; replaced if it is there.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as part:
        part.write_text(json.dumps(trace_of(profiles)), encoding="utf-8")


def trace_of(profiles: Sequence[LayerProfile]) -> dict[str, Any]:
    """The same as a document."""
    events: list[dict[str, Any]] = []
    for process, profile in enumerate(profiles, 1):
        about = {"backend": profile.backend, "batch": profile.batch}
        if profile.adapters:
            about["adapter"] = ", ".join(profile.adapters)
        events.append(_meta("process_name", process, 0, f"{profile.name} ({profile.backend})"))
        for track, name in enumerate(_TRACKS):
            events.append(_meta("thread_name", process, track, name))
        for number, run in enumerate(profile.runs[:_MOST_RUNS]):
            events.append(_event(process, 0, f"run {number}", run.start, run.ms, about))
            events += _of_run(profile, process, number, about)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _of_run(
    profile: LayerProfile, process: int, run: int, about: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for group in _neighbours(profile.layers):
        first, last = group[0].spans[run], group[-1].spans[run]
        ms = last.start + last.ms - first.start
        yield _event(process, 1, group[0].place, first.start, ms, about)
        for layer in group:
            own = about | {"operator": layer.operator, "type": layer.type}
            if layer.cost is not None:
                own |= {"gflop": layer.cost.flops / 1e9, "megabytes": layer.cost.bytes / 1e6}
            yield _event(process, 2, layer.name, layer.spans[run].start, layer.spans[run].ms, own)


def _neighbours(layers: Sequence[LayerTime]) -> list[list[LayerTime]]:
    """Layers of one place that ran one after the other."""
    found: list[list[LayerTime]] = []
    for layer in layers:
        if found and found[-1][0].place == layer.place:
            found[-1].append(layer)
        else:
            found.append([layer])
    return found


def _event(
    process: int, track: int, name: str, start: float, ms: float, about: dict[str, Any]
) -> dict[str, Any]:
    event: dict[str, Any] = {"name": name, "cat": _TRACKS[track], "ph": "X", "args": about}
    return event | {"pid": process, "tid": track, "ts": 1000 * start, "dur": 1000 * ms}


def _meta(kind: str, process: int, track: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": track, "args": {"name": name}}
