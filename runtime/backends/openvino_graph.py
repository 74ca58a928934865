"""OpenVINO: on processors of Intel, AMD and Arm, and on Intel's GPUs and NPUs.

The package is imported here alone, and without Intel's telemetry: importing it sends an event to Google
Analytics where `openvino_telemetry` is installed, which comes along, and nobody opted out.

Left alone OpenVINO computes in what is fastest, bf16 on a processor that has it, and says nothing:
answers move by 1e-2. Here it computes in the types of the graph, and in lower ones only where that was
named. The processor is tested; a GPU and an NPU with a stand-in for the package: unverified.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.devices.probes.jetson import detect_jetson
from vptkit.devices.probes.machine import usable_cores
from vptkit.errors import BundleError, MissingError, TargetError

from .engine_cache import library_cache
from .install_hints import mend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle

if "openvino_telemetry" in sys.modules:  # whoever loaded it has decided
    import openvino
else:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules["openvino_telemetry"]

__all__ = ["OpenvinoGraph", "openvino", "version"]

Device = Literal["CPU", "GPU", "NPU"]

_TYPES = {"images": "u8", "pixels": "f32"}
_TABLE_TYPES = {"f32": np.float32, "f16": np.float16}
_MOST_RUNS = 4  # as of `session.run_threads`


class OpenvinoGraph:
    """A bundle's graph in OpenVINO. May be called from several threads.

    On the processor runs that overlap have a stream each, of `threads` threads, as far as there are
    cores; on a GPU and an NPU they take turns.

    Attributes:
        threads: CPU threads of one run; 1 on a GPU or an NPU, the one that waits.
        versions: of OpenVINO.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        device: Device = "CPU",
        bf16: bool = False,
    ) -> None:
        """Compile the graph; on a GPU or an NPU that takes long, and is kept in the cache.

        Args:
            bundle: the bundle.
            threads: CPU threads of one run; one for each usable core unless given.
            device: what computes.
            bf16: of a processor that multiplies bf16: what the graph has in higher types, too.

        Raises:
            MissingError: there is no such device, or no driver for it.
            TargetError: OpenVINO cannot load the graph, or not compute it in this type.
            BundleError: the graph's inputs or outputs differ from the manifest.
        """
        core = openvino.Core()
        _require_device(core, device)
        if device == "NPU":
            _require_fixed(bundle)
        self.threads = (threads or usable_cores()) if device == "CPU" else 1
        self.versions: Mapping[str, str] = {"openvino": version()}
        settings = {"PERFORMANCE_HINT": "LATENCY", "EXECUTION_MODE_HINT": "ACCURACY"}
        if device == "CPU":
            settings |= _on_processor(core, bundle, self.threads, bf16=bf16)
        else:
            settings |= _kept(bundle)
        self._compiled = _compiled(core, bundle, device, settings)
        self._types = _require_signature(bundle, self._compiled)
        self._input, self._outputs = bundle.input, bundle.outputs
        self._idle: list[Any] = []  # requests, of which each serves one call at a time

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """One batch of the bundle's input → its first output, float32 [B, C] or [B, f].

        Raises:
            TargetError: OpenVINO failed, for example for lack of memory.
        """
        return self.answers(batch)[self._outputs[0]]

    def answers(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """One batch of the bundle's input → all outputs by name.

        Raises:
            TargetError: OpenVINO failed, for example for lack of memory.
        """
        return self._run({self._input: batch})

    def table_types(self) -> dict[str, np.dtype[Any]]:
        """Types of a bank's tables, which the graph's precision decides.

        Raises:
            TargetError: a type that this backend cannot be fed.
        """
        found = {name: kind for name, kind in self._types.items() if name.startswith("bank.")}
        unknown = sorted(set(found.values()) - set(_TABLE_TYPES))
        if unknown:
            raise TargetError(f"tables of the type {unknown[0]} cannot be fed to OpenVINO")
        return {name: np.dtype(_TABLE_TYPES[kind]) for name, kind in found.items()}

    def resident(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Tables made ready for many calls: the arrays themselves, without a copy."""
        return {name: openvino.Tensor(t, shared_memory=True) for name, t in tables.items()}

    def look_up(
        self, batch: NDArray[Any], adapter: NDArray[np.int32], tables: Mapping[str, Any]
    ) -> dict[str, NDArray[np.float32]]:
        """One batch of a bank: its input, a row number for each image, `resident` tables.

        Returns:
            All outputs by name.

        Raises:
            TargetError: OpenVINO failed, for example for lack of memory.
        """
        return self._run({self._input: batch, "adapter": adapter, **tables})

    def _run(self, feed: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            found = request.infer(feed, share_inputs=True)
        except Exception as error:  # its exceptions share no other base
            batch = feed[self._input]
            raise TargetError(
                f"OpenVINO failed on {self._input} {batch.dtype} {list(batch.shape)}: "
                f"{_text(error)}"
            ) from error
        # copies: the request's next run writes into the same memory
        answers = {name: np.array(found[name], dtype=np.float32) for name in self._outputs}
        self._idle.append(request)
        return answers


def version() -> str:
    """As "2026.4.1"; its builds add their number and branch."""
    return str(openvino.__version__).partition("-")[0]


def _require_device(core: Any, device: Device) -> None:
    there = [str(name) for name in core.available_devices]
    if device not in {name.partition(".")[0] for name in there}:
        hint = mend("openvino-gpu" if device == "GPU" else "openvino-npu", jetson=_jetson())
        raise MissingError(
            f"OpenVINO {version()} finds no {device} here, only {', '.join(there) or 'nothing'}. "
            f"If there is one: {hint}. Else pass --backend openvino, which is the processor."
        )


def _on_processor(core: Any, bundle: Bundle, threads: int, *, bf16: bool) -> dict[str, Any]:
    """How the processor computes, and with which threads.

    fp16 is computed in f32: no processor that was tried multiplies it faster. Threads are not tied to
    cores, which other programs may want.
    """
    able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if bf16 and not able:
        raise TargetError(
            "this processor does not multiply bf16 (it has no AVX512_BF16 and no AMX), so it would "
            "answer less exactly and no faster. Pass --backend openvino."
        )
    low = bf16 or (able and bundle.precision == "bf16")
    streams = max(1, min(usable_cores() // threads, _MOST_RUNS))
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
        "INFERENCE_NUM_THREADS": threads * streams,
        "NUM_STREAMS": str(streams),
        "ENABLE_CPU_PINNING": False,
    }


def _kept(bundle: Bundle) -> dict[str, Any]:
    """Where what was compiled for a GPU or an NPU is kept.

    Not for the processor: a ViT-B took 0.7 s from the cache and 0.9 s from the graph, and twice its
    weights in memory.
    """
    folder = library_cache(bundle, "openvino")
    return {} if folder is None else {"CACHE_DIR": str(folder)}


def _require_fixed(bundle: Bundle) -> None:
    """Refuse what an NPU does not take: inputs whose shapes are not fixed."""
    if bundle.batch is None or (bundle.layout == "bank" and not bundle.constant_tables):
        raise TargetError(
            f"{bundle.path}: an NPU takes inputs of fixed shapes alone. Export one adapter again "
            "with --batch 1."
        )


def _compiled(core: Any, bundle: Bundle, device: Device, settings: Mapping[str, Any]) -> Any:
    with bundle.graph() as path:
        try:
            compiled = core.compile_model(core.read_model(str(path)), device, dict(settings))
        except Exception as error:  # its exceptions share no other base
            raise TargetError(
                f"{bundle.model}: OpenVINO {version()} cannot load the graph: "
                f"{_text(error).replace(str(path), str(bundle.model))}"
            ) from error
    wanted = settings.get("INFERENCE_PRECISION_HINT")
    if wanted is None:
        return compiled
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != wanted:
        raise TargetError(
            f"{bundle.model}: OpenVINO would compute in {found}, and {wanted} was asked for."
        )
    return compiled


def _require_signature(bundle: Bundle, compiled: Any) -> dict[str, str]:
    """The inputs' types by name, as OpenVINO has them.

    Raises:
        BundleError: others than the manifest's.
    """
    sides = ((compiled.inputs, bundle.fed), (compiled.outputs, bundle.outputs))
    types = [port.element_type.to_string() for port in compiled.inputs]
    if not all(map(_named, *zip(*sides, strict=True))) or types[0] != _TYPES.get(bundle.input):
        found = [[sorted(port.names) for port in ports] for ports, _ in sides]
        raise BundleError(
            f"{bundle.model}: the graph has inputs {found[0]} of the types {types} and outputs "
            f"{found[1]}, its manifest wants {[*bundle.fed]} and {[*bundle.outputs]}. Export the "
            "bundle again."
        )
    return dict(zip(bundle.fed, types, strict=True))


def _named(ports: Sequence[Any], names: Sequence[str]) -> bool:
    """Whether ports are called so, in this order; each may have further names."""
    return len(ports) == len(names) and all(n in p.names for n, p in zip(names, ports, strict=True))


def _jetson() -> bool:
    return detect_jetson() is not None


def _text(error: Exception) -> str:
    """In one line; it tells the lines of its own sources, too."""
    return " ".join(str(error).split())
