"""TensorRT by its two names, loaded only where a GPU answers. Versions 8.6 to 11, and TensorRT-RTX.

Where a version differs in what a session needs, the difference is here and nowhere else.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.devices.drivers.cuda import probe
from vptkit.devices.probes.jetson import detect_jetson
from vptkit.errors import MissingError

from .install_hints import mend

if TYPE_CHECKING:
    from types import ModuleType

    from vptkit.devices.drivers.cuda import Gpu

__all__ = [
    "LIBRARIES",
    "Library",
    "find_module",
    "load",
    "make_context",
    "make_profiler",
    "nptype",
    "reasons",
    "the_logger",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What one of the two is called.

    Attributes:
        title: for people.
        backend: on the command line.
        modules: names of its Python module, the usual one first.
    """

    title: str
    backend: Literal["tensorrt", "tensorrt-rtx"]
    modules: tuple[str, ...]


LIBRARIES = {
    "tensorrt": Library(title="TensorRT", backend="tensorrt", modules=("tensorrt",)),
    "tensorrt_rtx": Library(
        title="TensorRT-RTX",
        backend="tensorrt-rtx",
        modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
    ),
}
_TYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}


def load(library: str) -> tuple[ModuleType, Gpu]:
    """TensorRT's module and the GPU it will run on.

    The driver is asked first: without one, some versions end with a segmentation fault as soon as
    a runtime is made.

    Args:
        library: one of LIBRARIES.

    Raises:
        MissingError: no GPU, or no such module in this Python.
    """
    gpu = probe()
    return find_module(library), gpu


def find_module(library: str) -> ModuleType:
    """TensorRT's module; no GPU is asked for, so nothing may be made with it but a builder.

    Raises:
        MissingError: no such module in this Python, or one whose libraries do not load.
    """
    reasons = []
    for name in LIBRARIES[library].modules:
        try:
            return importlib.import_module(name)
        except ImportError as error:  # noqa: PERF203 -- two names at most
            reasons.append(str(error))
    raise MissingError(
        f"{library}: {'; '.join(reasons)}. To have it: "
        f"{mend(LIBRARIES[library].backend, jetson=detect_jetson() is not None)}."
    )


@cache
def the_logger(trt: Any) -> Any:
    """The ILogger of this process, which keeps the last errors in its list `errors`.

    One for all: TensorRT keeps the first that it is given and passes over others, so that one must
    outlive every runtime, and reasons arrive there.
    """
    severe, kept = ("INTERNAL_ERROR", "ERROR"), 20  # here: at exit a module's names may be gone

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity.name in severe:
                self.errors = [*self.errors, message][-kept:]

    return Logger()


def reasons(logger: Any) -> str:
    """What TensorRT complained of since the last call, in one line."""
    said, logger.errors = "; ".join(logger.errors), []
    return said or "TensorRT gave no reason"


def make_profiler(trt: Any) -> Any:
    """An IProfiler which keeps (layer, milliseconds) in its list `times`, in the order of the calls."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.append((layer_name, ms))

    return Profiler()


def make_context(trt: Any, engine: Any, *, cuda_graph: bool) -> tuple[Any, bool]:
    """An execution context, and whether its launches are for the caller to capture.

    TensorRT-RTX compiles kernels for a shape when it first meets it, and captures CUDA graphs
    itself once they are ready; a graph that we captured might hold the slow ones that serve until
    then. So there it is told to do both, and to compile before it answers.
    """
    if hasattr(trt, "CudaGraphStrategy"):
        runtime_config = engine.create_runtime_config()
        strategy = trt.CudaGraphStrategy
        runtime_config.cuda_graph_strategy = (
            strategy.WHOLE_GRAPH_CAPTURE if cuda_graph else strategy.DISABLED
        )
        runtime_config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        return engine.create_execution_context(runtime_config), False
    return engine.create_execution_context(), True


def nptype(data_type: Any) -> np.dtype[Any] | None:
    """The numpy type of a trt.DataType, or None if numpy has none (bfloat16, fp8)."""
    found = _TYPES.get(data_type.name)
    return None if found is None else np.dtype(found)
