"""Which backend runs a bundle: the one that is named, or the one that this machine has.

Nothing falls back in silence. A named backend that cannot run is an error. "auto" is the default: an
engine where there is a GPU, the processor where there is none. It never leaves a GPU for the processor:
where nothing runs the bundle on the GPU that is there, it says what is missing, and stops.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.cuda import probe
from vptkit.devices.probes.jetson import detect_jetson
from vptkit.devices.probes.machine import visible_gpu
from vptkit.errors import MissingError, MissingExtraError, TargetError, VptkitError

from .engine_cache import build_command
from .install_hints import mend
from .tensorrt_library import LIBRARIES, find_module

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.devices.drivers.cuda import Gpu
    from vptkit.formats.bundle import Bundle

    from .onnxruntime_graph import OrtGraph, Provider
    from .openvino_graph import Device

__all__ = [
    "AUTO_ORDER",
    "BACKENDS",
    "OPENVINO",
    "TRT_LIBRARIES",
    "VARIABLE",
    "Opened",
    "computed_precisions",
    "default_backend",
    "means_cpu",
    "on_nvidia",
    "on_processor",
    "onnxruntime_graph",
    "open_graph",
]

VARIABLE = "VPTKIT_BACKEND"

# OpenVINO's, which are never chosen by themselves → device, and whether all is computed in bf16.
OPENVINO: dict[str, tuple[Device, bool]] = {
    "openvino": ("CPU", False),
    "openvino-bf16": ("CPU", True),
    "openvino-gpu": ("GPU", False),
    "openvino-npu": ("NPU", False),
}
# cpu, cuda and ort-tensorrt are ONNX Runtime's providers.
BACKENDS = ("cpu", "cuda", "tensorrt", "tensorrt-rtx", "ort-tensorrt", *OPENVINO)
# ort-tensorrt stands behind cuda: it builds an engine of its own when it is opened, for minutes.
# cpu is for machines without a GPU only.
AUTO_ORDER = ("tensorrt", "tensorrt-rtx", "cuda", "ort-tensorrt", "cpu")

# Backend → library that runs it.
TRT_LIBRARIES: dict[str, str] = {library.backend: name for name, library in LIBRARIES.items()}
_PROVIDERS: dict[str, Provider] = {"cpu": "cpu", "cuda": "cuda", "ort-tensorrt": "tensorrt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A graph that runs.

    Attributes:
        graph: an `OrtGraph`, an `OpenvinoGraph` or a `TrtGraph`.
        backend: the one of BACKENDS that runs it.
        reason: why this one.
        refused: backend → why it was passed over, in the order of the attempts.
    """

    graph: Any
    backend: str
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def explanation(self) -> str:
        """The reason, and those of the backends that were passed over, in one line."""
        return "; ".join([self.reason, *_grouped(self.refused)])


def default_backend(environ: Mapping[str, str] = os.environ) -> str:
    """What runs a bundle where no backend is named: $VPTKIT_BACKEND, else "auto".

    Raises:
        VptkitError: the variable names no backend.
    """
    named = environ.get(VARIABLE, "").strip()
    if not named:
        return "auto"
    return _known(named, f"${VARIABLE}")


def open_graph(
    bundle: Bundle,
    backend: str | None = None,
    threads: int | None = None,
    *,
    cuda_graph: bool = True,
    trust_engines: bool = False,
) -> Opened:
    """Load a bundle's graph.

    Args:
        bundle: the bundle.
        backend: one of BACKENDS; "auto": the first of AUTO_ORDER that runs it on the GPU that is here,
            or "cpu" where there is none; None: `default_backend`.
        threads: CPU threads of one run, for those of ONNX Runtime and OpenVINO.
        cuda_graph: of tensorrt and tensorrt-rtx: capture launches and replay them.
        trust_engines: of the same: load engines too that this user did not build here.

    Raises:
        VptkitError: no such backend.
        MissingError: a device, a driver, a package or an engine is missing.
        TargetError: the backend cannot run this graph.
        BundleError: the graph differs from its manifest.
    """
    options = {"cuda_graph": cuda_graph, "trust_engines": trust_engines}
    chosen = default_backend() if backend is None else _known(backend, "backend")
    if chosen == "auto":
        return _auto(bundle, threads, options)
    if on_nvidia(chosen):
        _require_gpu(chosen)
    graph = _open(bundle, chosen, threads, options)
    why = "it was asked for" if backend is not None else f"${VARIABLE} names it"
    return Opened(graph=graph, backend=chosen, reason=why)


def means_cpu(backend: str | None) -> bool:
    """Whether this name, or None for the default, ends at the processor on this machine."""
    chosen = default_backend() if backend is None else backend
    if chosen != "auto":
        return chosen == "cpu"
    try:
        probe()
    except MissingError:
        return visible_gpu() is None
    return False


def on_processor(backend: str) -> bool:
    """Whether a backend computes on the processor."""
    return backend == "cpu" or (backend in OPENVINO and OPENVINO[backend][0] == "CPU")


def on_nvidia(backend: str) -> bool:
    """Whether a backend computes on a GPU of NVIDIA's."""
    return backend != "cpu" and backend not in OPENVINO


def computed_precisions(backend: str, precision: str) -> tuple[str, ...]:
    """The precisions that a backend's answers to a bundle of some precision have gone through."""
    device, bf16 = OPENVINO.get(backend, ("CPU", False))
    own = "bf16" if bf16 else "fp16" if device == "NPU" else precision
    return (precision,) if own == precision else (precision, own)


def _known(backend: str, where: str) -> str:
    if backend not in (*BACKENDS, "auto"):
        known = ", ".join((*BACKENDS, "auto"))
        raise VptkitError(f"{where} {backend!r} is not known, expected one of {known}")
    return backend


def _auto(bundle: Bundle, threads: int | None, options: Mapping[str, bool]) -> Opened:
    try:
        gpu = probe()
    except MissingError as error:
        return _without_gpu(bundle, threads, options, error)
    refused: dict[str, Exception] = {}
    for name in AUTO_ORDER:
        if name == "cpu":
            continue
        try:
            graph = _open(bundle, name, threads, options)
        except (MissingError, TargetError) as error:
            refused[name] = error
        else:
            what = f"the first of {', '.join(AUTO_ORDER[:-1])} that runs this bundle on {gpu.name}"
            texts = {other: str(error) for other, error in refused.items()}
            return Opened(graph=graph, backend=name, reason=what, refused=texts)
    raise _nothing_on_the_gpu(bundle, gpu, refused)


def _without_gpu(
    bundle: Bundle, threads: int | None, options: Mapping[str, bool], error: MissingError
) -> Opened:
    """The processor, unless a GPU is there that cannot be reached."""
    seen = visible_gpu()
    if seen is not None:
        hint = mend("driver", jetson=detect_jetson() is not None)
        raise MissingError(
            f"{bundle.path}: there is a GPU here ({seen}), but it cannot be used: {error} The driver: "
            f"{hint}. {_ON_THE_PROCESSOR}"
        ) from error
    graph = _open(bundle, "cpu", threads, options)
    return Opened(graph=graph, backend="cpu", reason="there is no GPU to use")


_ON_THE_PROCESSOR = f"To run on the processor all the same: --backend cpu, or {VARIABLE}=cpu."


def _nothing_on_the_gpu(bundle: Bundle, gpu: Gpu, refused: Mapping[str, Exception]) -> VptkitError:
    """Say what the GPU lacks; the processor would answer too, but many times slower.

    Returns:
        A MissingError: no engine is built, or TensorRT is not installed; or a TargetError: TensorRT
        cannot run this bundle.
    """
    names = [name for name, library in TRT_LIBRARIES.items() if _installed(library)]
    if names:
        # an engine that is there and does not serve says more than one that was never built
        names.sort(key=lambda name: not isinstance(refused[name], TargetError))
        error = refused[names[0]]
        reason = str(error)
    else:
        error = refused["tensorrt"]
        reason = (
            f"TensorRT is not installed ({str(error).rstrip('.')}). Then build the engine: "
            f"{build_command(bundle, 'tensorrt')}"
        )
    kind = TargetError if isinstance(error, TargetError) else MissingError
    return kind(
        f"there is a GPU here ({gpu.name}), and nothing yet that runs the bundle on it: "
        f"{reason.rstrip('.')}. {_ON_THE_PROCESSOR} Of the other backends tells: "
        f"vptkit doctor {bundle.path}"
    )


def _installed(library: str) -> bool:
    try:
        find_module(library)
    except MissingError:
        return False
    return True


def _grouped(refused: Mapping[str, str]) -> list[str]:
    """Each reason once, behind all that it holds for."""
    names: dict[str, list[str]] = {}
    for name, reason in refused.items():
        names.setdefault(reason.rstrip("."), []).append(name)
    return [f"{', '.join(group)}: {reason}" for reason, group in names.items()]


def _require_gpu(backend: str) -> None:
    try:
        probe()
    except MissingError as error:
        hint = mend("driver", jetson=detect_jetson() is not None)
        raise MissingError(
            f"backend {backend} needs an NVIDIA GPU and its driver: {error} If there is a GPU, "
            f"install the driver: {hint}. Else pass --backend cpu."
        ) from error


def _open_openvino(bundle: Bundle, backend: str, threads: int | None) -> Any:
    try:
        # openvino is optional and slow to import.
        from .openvino_graph import OpenvinoGraph
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise MissingExtraError("openvino", "openvino", f"the {backend} backend") from error
    except ImportError as error:
        raise MissingError(
            f"backend {backend}: OpenVINO is installed but does not load: {error}. To mend it: "
            "pip install --force-reinstall openvino."
        ) from error
    device, bf16 = OPENVINO[backend]
    return OpenvinoGraph(bundle, threads=threads, device=device, bf16=bf16)


def _open(bundle: Bundle, backend: str, threads: int | None, options: Mapping[str, bool]) -> Any:
    if backend in OPENVINO:
        return _open_openvino(bundle, backend, threads)
    if backend in TRT_LIBRARIES:
        from .tensorrt_graph import TrtGraph  # ctypes and engines: only for TensorRT

        return TrtGraph(bundle, library=TRT_LIBRARIES[backend], **options)
    graph = onnxruntime_graph(backend)
    return graph(bundle, threads=threads, provider=_PROVIDERS[backend])


def onnxruntime_graph(backend: str) -> type[OrtGraph]:
    """The graph of ONNX Runtime's backends; what is missing is named with what installs it.

    Raises:
        MissingError: ONNX Runtime is not installed, or does not load.
    """
    try:
        # onnxruntime is optional and slow to import.
        from .onnxruntime_graph import OrtGraph
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        if backend == "cpu":
            raise MissingExtraError("onnxruntime", "cpu", "the cpu backend") from error
        raise MissingError(
            f"backend {backend} needs ONNX Runtime with GPU support, which is not installed. "
            f"To have it: {mend('onnxruntime-gpu', jetson=detect_jetson() is not None)}."
        ) from error
    except ImportError as error:
        raise MissingError(
            f"backend {backend}: ONNX Runtime is installed but does not load: {error}. To mend "
            f"it: {mend('onnxruntime', jetson=detect_jetson() is not None)}, after "
            "pip uninstall -y onnxruntime onnxruntime-gpu."
        ) from error
    return OrtGraph
