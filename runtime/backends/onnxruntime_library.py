"""The package `onnxruntime`, which is imported here alone: its telemetry is off before it loads a graph.

Microsoft's builds may report what they run (https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md).
A toolkit that asks for no network must not have one asked behind its back.
"""

from __future__ import annotations

from typing import Any

import onnxruntime

__all__ = ["onnxruntime", "without_telemetry"]


def without_telemetry(library: Any) -> Any:
    """The library, after it was told not to report; a build that cannot report has nothing to be told."""
    getattr(library, "disable_telemetry_events", lambda: None)()
    return library


without_telemetry(onnxruntime)
