"""The compiler: adapter and weights in, one folded ONNX bundle out. numpy and onnx, no torch.

- `analysis`: a finished graph, read.
- `bank`: many adapters, one graph: `export_bank`.
- `bundle`: the steps in order: `export`.
- `fold`: float64 algebra.
- `graph`: folded numbers to ONNX.
- `numerics`: what real images say of a graph.
- `precision`: fp16, bf16, int8, fp8.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vptkit.export.bank.export_bank import BankOptions, export_bank
    from vptkit.export.bundle.export_bundle import export
    from vptkit.export.bundle.export_options import ExportOptions

__all__ = ["BankOptions", "ExportOptions", "export", "export_bank"]

_PLACES = {
    "BankOptions": "vptkit.export.bank.export_bank",
    "ExportOptions": "vptkit.export.bundle.export_options",
    "export": "vptkit.export.bundle.export_bundle",
    "export_bank": "vptkit.export.bank.export_bank",
}


def __getattr__(name: str) -> Any:
    """Load the compiler when it is asked for: a bank is edited without onnx (`bank.edit_bank`)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
