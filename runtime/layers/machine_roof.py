"""The roof of a processor: the fastest that it was seen to multiply and to move bytes, by numpy or a layer."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from vptkit.devices.probes.machine import usable_cores

from .layer_time import Roof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .layer_time import LayerTime

__all__ = ["RoofMeter", "why_no_roof"]

_ROWS, _MEGABYTES = 1024, 64
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def why_no_roof(backend: str, precision: str, threads: int) -> str:
    """Why a bundle's layers cannot be compared with numpy's; "" where they can."""
    if backend != "cpu":
        return f"it is measured on the processor, and this is {backend}"
    if precision != "fp32":
        return f"it is measured in fp32, and the bundle computes in {precision}"
    if threads != usable_cores():
        return f"it is that of all {usable_cores()} cores, and a run has {threads} threads"
    limits = [name for name in _LIMITS if name in os.environ]
    return f"${limits[0]} keeps numpy from using all cores" if limits else ""


class RoofMeter:
    """Tries between the runs, of which the best count: a neighbour on the machine slows some of them.

    Args:
        threads: that copy; how many multiply is numpy's own choice, all cores.
    """

    def __init__(self, threads: int) -> None:
        self._left = np.ones((_ROWS, _ROWS), np.float32)
        self._right, self._product = self._left.copy(), self._left.copy()
        size = (_MEGABYTES << 20) // threads
        self._pairs = [(np.ones(size, np.uint8), np.ones(size, np.uint8)) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)
        self._moved = 2 * size * threads  # read and written
        self._flops = self._bandwidth = 0.0

    def measure(self) -> None:
        """Try once: some ten milliseconds."""
        seconds = _seconds(lambda: np.matmul(self._left, self._right, out=self._product))
        self._flops = max(self._flops, 2 * _ROWS**3 / seconds)
        copied = _seconds(lambda: list(self._pool.map(lambda pair: np.copyto(*pair), self._pairs)))
        self._bandwidth = max(self._bandwidth, self._moved / copied)

    def roof(self, layers: Iterable[LayerTime]) -> Roof:
        """The best that was seen, by these tries or of a layer: what lies in a cache is quicker than copies."""
        ran = [layer for layer in layers if layer.cost is not None and layer.ms]
        flops = [1000 * layer.cost.flops / layer.ms for layer in ran if layer.cost]
        moved = [1000 * layer.cost.bytes / layer.ms for layer in ran if layer.cost]
        return Roof(
            flops=max([*flops, self._flops]),
            bandwidth=max([*moved, self._bandwidth]),
            source=f"the best seen: numpy's products of {_ROWS} x {_ROWS} and copies of "
            f"{_MEGABYTES} MiB between the runs, and the layers themselves",
        )

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
