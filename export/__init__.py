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

from typing import TYPE_CHECKING

from vptkit.api.callable_rooms import ExportRoom, make_callable
from vptkit.api.lazy_names import lazy_names

if TYPE_CHECKING:
    from vptkit.api.compiling import export, export_bank
    from vptkit.export.bank.export_bank import BankOptions
    from vptkit.export.bundle.export_options import ExportOptions
    from vptkit.export.precision.lowering import Lowering

__all__ = ["BankOptions", "ExportOptions", "Lowering", "export", "export_bank"]

# The compiler is loaded when it is asked for: a bank is edited without onnx (`bank.edit_bank`).
_PLACES = {
    "BankOptions": "vptkit.export.bank.export_bank",
    "ExportOptions": "vptkit.export.bundle.export_options",
    "Lowering": "vptkit.export.precision.lowering",
    "export": "vptkit.api.compiling",
    "export_bank": "vptkit.api.compiling",
}
_OF_ONNX = dict.fromkeys(("BankOptions", "ExportOptions", "Lowering"), ("onnx", "export"))
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _PLACES, _OF_ONNX)
make_callable(__name__, ExportRoom)
