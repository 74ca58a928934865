"""Inference, evaluation and profiling of bundles. No torch, no onnx package."""

from .session import Session, open_session

__all__ = ["Session", "open_session"]
