"""The compiler: adapter and weights in, one folded ONNX bundle out. numpy and onnx, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bank_pipeline import BankOptions, export_bank
    from .pipeline import ExportOptions, export

__all__ = ["BankOptions", "ExportOptions", "export", "export_bank"]


def __getattr__(name: str) -> Any:
    """Load the compiler when it is asked for: a bank is edited without onnx (`bank_edit`)."""
    if name in ("ExportOptions", "export"):
        from . import pipeline

        return getattr(pipeline, name)
    if name in ("BankOptions", "export_bank"):
        from . import bank_pipeline

        return getattr(bank_pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
