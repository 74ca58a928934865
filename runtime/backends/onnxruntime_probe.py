"""Any graph on the processor, with all of its outputs: what judges and calibrates runs on this."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.devices.probes.machine import cpu_has_vnni, usable_cores
from vptkit.errors import TargetError
from vptkit.images.preprocess import normalize

from .onnxruntime_library import onnxruntime, rest_soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vptkit.images.preprocess import Preprocess

__all__ = ["OrtProbe", "exact_int8"]

_ERRORS_ONLY = 3


class OrtProbe:
    """A graph whose outputs are all returned, by name."""

    def __init__(
        self,
        write: Callable[[Path], None],
        preprocess: Preprocess,
        *,
        threads: int | None = None,
    ) -> None:
        """Load a graph.

        Args:
            write: writes model.onnx (with its external data) to a path it is given.
            preprocess: for graphs that take normalised pixels.
            threads: CPU threads of one run; one for each usable core unless given.

        Raises:
            TargetError: this ONNX Runtime cannot load the graph.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        rest_soon(options)
        exact_int8(options)
        self._preprocess = preprocess
        with tempfile.TemporaryDirectory(prefix="vptkit-") as folder:
            path = Path(folder) / "model.onnx"
            write(path)
            try:
                self._session = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # its exceptions share no other base
                raise TargetError(
                    f"ONNX Runtime {onnxruntime.__version__} cannot load the graph: "
                    f"{str(error).strip()}"
                ) from error
        self._input = self._session.get_inputs()[0]
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Prepared images uint8 [B, H, W, 3] → outputs by name.

        A graph of a fixed batch is fed in portions of that size, the last one filled up with its
        last image; outputs without a batch dimension are combined by their maximum.
        """
        step = self._input.shape[0]
        if not isinstance(step, int) or step == len(images):
            return self._run(images)
        parts = []
        for i in range(0, len(images), step):
            portion = images[i : i + step]
            filler = np.repeat(portion[-1:], step - len(portion), axis=0)
            found = self._run(np.concatenate([portion, filler]))
            parts.append({k: v[: len(portion)] if v.ndim else v for k, v in found.items()})
        return {
            name: np.concatenate([p[name] for p in parts])
            if parts[0][name].ndim
            else np.max([p[name] for p in parts])
            for name in self._outputs
        }

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        feed: NDArray[Any] = np.ascontiguousarray(images)
        if self._input.name == "pixels":
            feed = normalize(images, self._preprocess)
        try:
            found = self._session.run(self._outputs, {self._input.name: feed})
        except Exception as error:  # its exceptions share no other base
            raise TargetError(f"ONNX Runtime failed: {str(error).strip()}") from error
        return dict(zip(self._outputs, found, strict=True))


def exact_int8(options: onnxruntime.SessionOptions) -> None:
    """On x86 without VNNI, have int8 products summed without saturation.

    There AVX2 adds pairs of products in 16 bits, which overflows silently: one linear of ViT-B lost
    3.6 dB of SQNR and 8 % of its range. The exact kernels took 1.3 times as long (EPYC 7003,
    ONNX Runtime 1.32).
    """
    if cpu_has_vnni() is False:
        options.add_session_config_entry("session.x64quantprecision", "1")
