"""Which backend runs a bundle: the one that is named, or the first that can, and why not the others.

Nothing falls back in silence. A named backend that cannot run is an error; "auto" keeps the reason
of every backend that it passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.cuda import probe
from vptkit.devices.probes.jetson import detect_jetson
from vptkit.errors import MissingError, MissingExtraError, TargetError, VptkitError

from .install_hints import mend
from .tensorrt_library import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.formats.bundle import Bundle

    from .onnxruntime_graph import Provider

__all__ = ["AUTO_ORDER", "BACKENDS", "TRT_LIBRARIES", "Opened", "open_graph"]

# cpu, cuda and ort-tensorrt are ONNX Runtime's providers.
BACKENDS = ("cpu", "cuda", "tensorrt", "tensorrt-rtx", "ort-tensorrt")
# ort-tensorrt stands behind cuda: it builds an engine of its own when it is opened, for minutes.
AUTO_ORDER = ("tensorrt", "tensorrt-rtx", "cuda", "ort-tensorrt", "cpu")

# Backend → library that runs it.
TRT_LIBRARIES: dict[str, str] = {library.backend: name for name, library in LIBRARIES.items()}
_PROVIDERS: dict[str, Provider] = {"cpu": "cpu", "cuda": "cuda", "ort-tensorrt": "tensorrt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A graph that runs.

    Attributes:
        graph: an `OrtGraph` or a `TrtGraph`.
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


def open_graph(
    bundle: Bundle,
    backend: str = "cpu",
    threads: int | None = None,
    *,
    cuda_graph: bool = True,
    trust_engines: bool = False,
) -> Opened:
    """Load a bundle's graph.

    Args:
        bundle: the bundle.
        backend: one of BACKENDS, or "auto": the first of AUTO_ORDER that can.
        threads: CPU threads of one run, for those of ONNX Runtime.
        cuda_graph: of tensorrt and tensorrt-rtx: capture launches and replay them.
        trust_engines: of the same: load engines too that this user did not build here.

    Raises:
        VptkitError: no such backend.
        MissingError: a device, a driver, a package or an engine is missing.
        TargetError: the backend cannot run this graph.
        BundleError: the graph differs from its manifest.
    """
    options = {"cuda_graph": cuda_graph, "trust_engines": trust_engines}
    if backend == "auto":
        return _first(bundle, threads, options)
    if backend not in BACKENDS:
        known = ", ".join((*BACKENDS, "auto"))
        raise VptkitError(f"backend {backend!r} is not known, expected one of {known}")
    if backend != "cpu":
        _require_gpu(backend)
    graph = _open(bundle, backend, threads, options)
    return Opened(graph=graph, backend=backend, reason="it was asked for")


def _first(bundle: Bundle, threads: int | None, options: Mapping[str, bool]) -> Opened:
    refused: dict[str, str] = {}
    try:
        gpu = probe()
    except MissingError as error:
        refused = {name: str(error) for name in AUTO_ORDER if name != "cpu"}
        what = "there is no GPU to use"
    else:
        what = f"the first of {', '.join(AUTO_ORDER)} that runs this bundle on {gpu.name}"
    for name in AUTO_ORDER:
        if name in refused:
            continue
        try:
            graph = _open(bundle, name, threads, options)
        except (MissingError, TargetError) as error:
            refused[name] = str(error)
        else:
            return Opened(graph=graph, backend=name, reason=what, refused=refused)
    reasons = "; ".join(_grouped(refused))
    raise MissingError(f"{bundle.path}: no backend runs it here. {reasons}")


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


def _open(bundle: Bundle, backend: str, threads: int | None, options: Mapping[str, bool]) -> Any:
    if backend in TRT_LIBRARIES:
        from .tensorrt_graph import TrtGraph  # ctypes and engines: only for TensorRT

        return TrtGraph(bundle, library=TRT_LIBRARIES[backend], **options)
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
    return OrtGraph(bundle, threads=threads, provider=_PROVIDERS[backend])
