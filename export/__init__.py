"""The compiler: adapter and weights in, one folded ONNX bundle out. numpy and onnx, no torch."""

from .pipeline import ExportOptions, export

__all__ = ["ExportOptions", "export"]
