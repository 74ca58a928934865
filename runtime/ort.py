"""ONNX Runtime on the processor. The only file that imports onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from vptkit.devices.detect import usable_cores
from vptkit.errors import BundleError, TargetError

from .probe import exact_int8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.bundle import Bundle

__all__ = ["OrtGraph"]

_ERRORS_ONLY = 3
_TYPES = {"images": "tensor(uint8)", "pixels": "tensor(float)"}
_TABLE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OrtGraph:
    """A bundle's graph in ONNX Runtime, all graph optimisations on.

    Threads that wait sleep. By default they spin, and hold cores that the image decoder, the other
    candidates of a profile or other programs want. Measured on two cores (ONNX Runtime 1.31): alone
    on the machine a ViT-B took 235 ms a run spinning and 282 ms sleeping; with both cores shared a
    ViT-Ti took 56 and 28 ms; five small ViTs in one profile 10 and 2 ms each.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """Load and optimise the graph.

        Raises:
            TargetError: this ONNX Runtime cannot load the graph.
            BundleError: the graph's input differs from the manifest.
        """
        self.threads = threads or usable_cores()
        self.versions: Mapping[str, str] = {"onnxruntime": onnxruntime.__version__}
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        exact_int8(options)
        try:
            self._session = onnxruntime.InferenceSession(
                str(bundle.model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no other base
            raise TargetError(
                f"{bundle.model}: ONNX Runtime {onnxruntime.__version__} cannot load the graph: "
                f"{str(error).strip()}"
            ) from error
        _require_signature(bundle, self._session.get_inputs(), self._session.get_outputs())
        self._input = bundle.input

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """One batch of the bundle's input → float32 [B, C].

        Raises:
            TargetError: ONNX Runtime failed, for example for lack of memory.
        """
        try:
            (logits,) = self._session.run(["logits"], {self._input: batch})
        except Exception as error:  # its exceptions share no other base
            raise TargetError(
                f"ONNX Runtime failed on {self._input} {batch.dtype} {list(batch.shape)}: "
                f"{str(error).strip()}"
            ) from error
        return np.asarray(logits, dtype=np.float32)

    def table_types(self) -> dict[str, np.dtype[Any]]:
        """Types of a bank's tables, which the graph's precision decides.

        Raises:
            TargetError: a type that this backend cannot be fed.
        """
        found = {i.name: i.type for i in self._session.get_inputs() if i.name.startswith("bank.")}
        unknown = sorted(set(found.values()) - set(_TABLE_TYPES))
        if unknown:
            raise TargetError(f"tables of the type {unknown[0]} cannot be fed on the cpu backend")
        return {name: np.dtype(_TABLE_TYPES[kind]) for name, kind in found.items()}

    def resident(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Tables wrapped once for many calls; the arrays are neither copied nor moved."""
        return {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in tables.items()
        }

    def look_up(
        self, batch: NDArray[Any], adapter: NDArray[np.int32], tables: Mapping[str, Any]
    ) -> NDArray[np.float32]:
        """One batch of a bank: its input, a row number for each image, `resident` tables.

        Raises:
            TargetError: ONNX Runtime failed, for example for lack of memory.
        """
        feed = {self._input: batch, "adapter": adapter}
        try:
            values = {**tables, **self.resident(feed)}
            (logits,) = self._session.run_with_ort_values(["logits"], values)
        except Exception as error:  # its exceptions share no other base
            raise TargetError(
                f"ONNX Runtime failed on {self._input} {batch.dtype} {list(batch.shape)}: "
                f"{str(error).strip()}"
            ) from error
        return np.asarray(logits.numpy(), dtype=np.float32)


def _require_signature(bundle: Bundle, inputs: list[Any], outputs: list[Any]) -> None:
    found = ([(i.name, i.type) for i in inputs], [o.name for o in outputs])
    expected = ([(bundle.input, _TYPES.get(bundle.input))], ["logits"])
    if bundle.layout == "bank":
        listed = [value["name"] for value in bundle.manifest["inputs"]]
        found[0][1:] = [(name, None) for name, _ in found[0][1:]]
        expected[0].extend((name, None) for name in listed[1:])
    if found != expected:
        raise BundleError(
            f"{bundle.model}: the graph has inputs and outputs {found}, its manifest wants "
            f"{expected}. Export the bundle again."
        )
