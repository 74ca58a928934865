"""Inference, evaluation and profiling of bundles. No torch, no onnx package."""

from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.session_protocol import Session

__all__ = ["Session", "open_session"]
