"""ONNX Runtime: on the processor, and on a GPU through its CUDA and TensorRT providers.

A GPU provider is accepted after a run of the bundle's own graph whose work it did, all of it
(`placement`): the providers that a build lists need not load, and nodes that a provider does not
take fall to the processor without a word. The GPU paths are tested with a stand-in for the package;
unverified on a GPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.devices.probes.jetson import detect_jetson
from vptkit.devices.probes.machine import usable_cores
from vptkit.errors import BundleError, MissingError, TargetError
from vptkit.formats.bank_tables import BankShape

from .engine_cache import library_cache
from .install_hints import mend
from .onnxruntime_library import onnxruntime, rest_soon
from .onnxruntime_probe import exact_int8
from .provider_placement import read_placement, require_on

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle

__all__ = ["OrtGraph", "Provider"]

Provider = Literal["cpu", "cuda", "tensorrt"]

_ERRORS_ONLY = 3
_TYPES = {"images": "tensor(uint8)", "pixels": "tensor(float)"}
_PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_NO_KERNEL = ("no kernel image", "NoKernelImageForDevice", "cudaErrorNoKernelImage")
_TABLE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OrtGraph:
    """A bundle's graph in ONNX Runtime, all graph optimisations on; threads that wait sleep soon."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        provider: Provider = "cpu",
        profile: Path | None = None,
    ) -> None:
        """Load and optimise the graph; on a GPU also run it once.

        Args:
            bundle: the bundle.
            threads: CPU threads of one run; one for each usable core unless given.
            provider: what computes.
            profile: of the processor alone: each run is profiled until `end_profile`; the file's name
                begins so.

        Raises:
            MissingError: this ONNX Runtime has no such provider, or its libraries do not load.
            TargetError: this ONNX Runtime cannot load the graph, or the provider not run all of it.
            BundleError: the graph's input differs from the manifest.
        """
        self.threads = threads or usable_cores()
        self._device = "cpu" if provider == "cpu" else "cuda"
        self.versions: Mapping[str, str] = {"onnxruntime": onnxruntime.__version__}
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        rest_soon(options)
        exact_int8(options)
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        if provider == "cpu":
            self._session = _load(bundle, options, ["CPUExecutionProvider"])
        else:
            self._session = _proven(bundle, options, provider)
        _require_signature(bundle, self._session.get_inputs(), self._session.get_outputs())
        self._input, self._outputs = bundle.input, bundle.outputs

    def end_profile(self) -> Path:
        """The file of a session that was opened to be profiled; its later runs are not."""
        return Path(self._session.end_profiling())

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """One batch of the bundle's input → its first output, float32 [B, C] or [B, f].

        Raises:
            TargetError: ONNX Runtime failed, for example for lack of memory.
        """
        return self._run(batch, self._outputs[:1])[0]

    def answers(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """One batch of the bundle's input → all outputs by name.

        Raises:
            TargetError: ONNX Runtime failed, for example for lack of memory.
        """
        return dict(zip(self._outputs, self._run(batch, self._outputs), strict=True))

    def _run(self, batch: NDArray[Any], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        try:
            found = self._session.run([*outputs], {self._input: batch})
        except Exception as error:  # its exceptions share no other base
            raise TargetError(
                f"ONNX Runtime failed on {self._input} {batch.dtype} {list(batch.shape)}: "
                f"{str(error).strip()}"
            ) from error
        return [np.asarray(value, dtype=np.float32) for value in found]

    def table_types(self) -> dict[str, np.dtype[Any]]:
        """Types of a bank's tables, which the graph's precision decides.

        Raises:
            TargetError: a type that this backend cannot be fed.
        """
        found = {i.name: i.type for i in self._session.get_inputs() if i.name.startswith("bank.")}
        unknown = sorted(set(found.values()) - set(_TABLE_TYPES))
        if unknown:
            raise TargetError(f"tables of the type {unknown[0]} cannot be fed to ONNX Runtime")
        return {name: np.dtype(_TABLE_TYPES[kind]) for name, kind in found.items()}

    def resident(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Tables made ready for many calls: on the processor the arrays themselves, else copies."""
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        return {name: make(value, self._device, 0) for name, value in tables.items()}

    def look_up(
        self, batch: NDArray[Any], adapter: NDArray[np.int32], tables: Mapping[str, Any]
    ) -> dict[str, NDArray[np.float32]]:
        """One batch of a bank: its input, a row number for each image, `resident` tables.

        Returns:
            All outputs by name.

        Raises:
            TargetError: ONNX Runtime failed, for example for lack of memory.
        """
        feed = {self._input: batch, "adapter": adapter}
        try:
            values = {**tables, **self.resident(feed)}
            found = self._session.run_with_ort_values([*self._outputs], values)
        except Exception as error:  # its exceptions share no other base
            raise TargetError(
                f"ONNX Runtime failed on {self._input} {batch.dtype} {list(batch.shape)}: "
                f"{str(error).strip()}"
            ) from error
        return {
            name: np.asarray(value.numpy(), dtype=np.float32)
            for name, value in zip(self._outputs, found, strict=True)
        }


def _load(bundle: Bundle, options: Any, providers: list[Any]) -> Any:
    with bundle.graph() as path:
        try:
            # Its own fallback would start again on the processor, with a message on standard output.
            return onnxruntime.InferenceSession(
                str(path), options, providers=providers, enable_fallback=0
            )
        except Exception as error:  # its exceptions share no other base
            raise TargetError(
                f"{bundle.model}: ONNX Runtime {onnxruntime.__version__} cannot load the graph: "
                f"{str(error).strip().replace(str(path), str(bundle.model))}"
            ) from error


def _proven(bundle: Bundle, options: Any, provider: Provider) -> Any:
    """A session whose provider has run the graph.

    The profile of that one run is the proof; it ends there, later runs are not profiled.
    """
    name = _PROVIDERS[provider]
    jetson = detect_jetson() is not None
    if name not in onnxruntime.get_available_providers():
        raise MissingError(
            f"{name} is not in this build of ONNX Runtime ({onnxruntime.__version__}, with "
            f"{', '.join(onnxruntime.get_available_providers())}). To have it: "
            f"{mend('onnxruntime-gpu', jetson=jetson)}."
        )
    with tempfile.TemporaryDirectory(prefix="vptkit-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "probe")
        session = _load(bundle, options, _requested(bundle, provider))
        session.disable_fallback()
        if session.get_providers()[0] != name:
            raise MissingError(
                f"{name} did not start: ONNX Runtime offers {', '.join(session.get_providers())} "
                "instead, mostly because libraries of CUDA, cuDNN or TensorRT are missing or of "
                f"another version. To mend it: {mend('onnxruntime-gpu', jetson=jetson)}."
            )
        _require_signature(bundle, session.get_inputs(), session.get_outputs())
        try:
            found = session.run([*bundle.outputs], _blank(bundle, session.get_inputs()))
        except Exception as error:  # its exceptions share no other base
            text = f"{name} failed on {bundle.model}: {str(error).strip()}"
            if any(sign in text for sign in _NO_KERNEL):
                hint = mend("onnxruntime-gpu", jetson=jetson)
                raise MissingError(
                    f"{text}. This build has no code for the GPU. To mend it: {hint}."
                ) from error
            raise TargetError(text) from error
        placement = read_placement(Path(session.end_profiling()))
    require_on(name, placement)
    for output, value in zip(bundle.outputs, found, strict=True):
        if not np.isfinite(value).all():
            raise TargetError(
                f"{name}: {output} of {bundle.model} are not finite. Pass another backend."
            )
    return session


def _requested(bundle: Bundle, provider: Provider) -> list[Any]:
    """The provider and its options; values are strings.

    TF32 would round the products of a fp32 graph; for TensorRT, whose default it is, ONNX Runtime
    has no such option. Nor is TensorRT bound to the types of the graph through it: the lower ones
    are allowed where the bundle has them, and no others.
    """
    cuda = ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})
    if provider == "cuda":
        return [cuda]
    low = bundle.precision in ("fp16", "int8", "fp8")
    options = {
        "device_id": "0",
        "trt_fp16_enable": str(int(low)),
        "trt_int8_enable": str(int(bundle.precision == "int8")),
        "trt_layer_norm_fp32_fallback": str(int(low)),
        **_engine_cache(bundle),
    }
    return [(_PROVIDERS[provider], options), cuda]


def _engine_cache(bundle: Bundle) -> dict[str, str]:
    """Where ONNX Runtime keeps TensorRT's engines, none if there is no safe place for them."""
    folder = library_cache(bundle, "ort")
    if folder is None:
        return {}
    return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}


def _blank(bundle: Bundle, inputs: list[Any]) -> dict[str, NDArray[Any]]:
    """Zeros for every input: the smallest batch, and one adapter of a bank."""
    rows: dict[str, tuple[int, ...]] = {}
    if bundle.layout == "bank":
        shape = BankShape.of_manifest(bundle.manifest, bundle.spec)
        rows = {name: (count, *row) for name, (count, row) in shape.rows().items()}
    types = _TABLE_TYPES | {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32}
    feed = {}
    for value in inputs:
        dims = rows.get(value.name) or [d if isinstance(d, int) else 1 for d in value.shape]
        feed[value.name] = np.zeros(tuple(dims), dtype=types[value.type])
    return feed


def _require_signature(bundle: Bundle, inputs: list[Any], outputs: list[Any]) -> None:
    found = ([(i.name, i.type) for i in inputs], [o.name for o in outputs])
    expected = ([(bundle.input, _TYPES.get(bundle.input))], [*bundle.outputs])
    if bundle.layout == "bank":
        found[0][1:] = [(name, None) for name, _ in found[0][1:]]
        expected[0].extend((name, None) for name in bundle.fed[1:])
    if found != expected:
        raise BundleError(
            f"{bundle.model}: the graph has inputs and outputs {found}, its manifest wants "
            f"{expected}. Export the bundle again."
        )
