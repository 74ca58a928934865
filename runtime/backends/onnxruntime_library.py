"""The package `onnxruntime`, which is imported here alone: its telemetry is off before it loads a graph.

Microsoft's builds may report what they run (https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md).
A toolkit that asks for no network must not have one asked behind its back. How its threads wait is
decided here, too.
"""

from __future__ import annotations

from typing import Any

import onnxruntime

__all__ = ["onnxruntime", "rest_soon", "without_telemetry"]


def without_telemetry(library: Any) -> Any:
    """The library, after it was told not to report; a build that cannot report has nothing to be told."""
    getattr(library, "disable_telemetry_events", lambda: None)()
    return library


def rest_soon(options: Any) -> None:
    """Have threads that wait for work look for it for 30 µs, which bridges two operators, and then sleep.

    By default they spin on, and hold cores that the image decoder, the other candidates of a profile or
    other programs want. Measured for one image of a ViT-Ti on two cores (docs/benchmarks.md): where these
    are free, sleeping at once takes 1.35 times what spinning does, and this 1.06 times; with a busy
    neighbour spinning takes 2.6 times what sleeping does, and this 1.25 times.

    Args:
        options: `SessionOptions`. Before 1.26 nothing bounds the spinning: there they sleep at once.
    """
    bounded = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 26)
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(bounded)))
    if bounded:
        options.add_session_config_entry("session.intra_op.spin_duration_us", "30")


without_telemetry(onnxruntime)
