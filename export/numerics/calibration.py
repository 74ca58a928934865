"""What values look like on real images: histograms of magnitudes, and ranges chosen from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .evidence import Images, Runner

__all__ = ["RangeMethod", "Spread", "choose_range", "observe"]

RangeMethod = Literal["max", "percentile", "mse"]
PERCENTILE = 0.9999
# A bin is what float32 bit patterns share in sign-less exponent and the first 4 bits of mantissa:
# sixteen bins an octave over the whole range, without knowing the range beforehand.
_SHIFT = 19
_BINS = 1 << (31 - _SHIFT)


@dataclass(slots=True)
class Spread:
    """Magnitudes of one value over all images seen.

    Attributes:
        counts: int64 [bins], how many numbers fell into each (see `edges`).
        channel_max: float32 [d], largest magnitude of each position on the last axis.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    channel_max: NDArray[np.float32] | None = None

    def add(self, value: NDArray[np.float32]) -> None:
        """Count one batch [..., d]."""
        flat = np.abs(np.ascontiguousarray(value, dtype=np.float32)).reshape(-1, value.shape[-1])
        self.counts += np.bincount(flat.view(np.uint32).ravel() >> _SHIFT, minlength=_BINS)
        largest = flat.max(axis=0)
        if self.channel_max is not None:
            largest = np.maximum(largest, self.channel_max)
        self.channel_max = largest

    @property
    def largest(self) -> float:
        """Largest magnitude of all."""
        return 0.0 if self.channel_max is None else float(self.channel_max.max())


def edges() -> NDArray[np.float64]:
    """Lower edge of each bin [bins]."""
    patterns = np.minimum(np.arange(_BINS, dtype=np.uint32) << _SHIFT, 0x7F7FFFFF)
    return np.asarray(
        patterns.view(np.float32), dtype=np.float64
    )  # Inf and NaN count as the largest number


def choose_range(spread: Spread, method: RangeMethod, levels: int = 127) -> float:
    """The magnitude that the largest of `levels` steps stands for.

    Args:
        spread: of the value.
        method: "max" loses nothing at the ends; "percentile" cuts the largest 0.01 %; "mse" has the
            smallest expected squared error of rounding and cutting together.
        levels: steps on one side of zero.

    Returns:
        A positive number; 1 for a value that is always zero.
    """
    largest = spread.largest
    if largest == 0:
        return 1.0
    if method == "max":
        return largest
    lower = edges()
    used = np.flatnonzero(spread.counts)
    counts, middle = spread.counts[used].astype(np.float64), lower[used] * (1 + 1 / 32)
    if method == "percentile":
        place = int(np.searchsorted(np.cumsum(counts), PERCENTILE * counts.sum()))
        return float(min(middle[min(place, len(used) - 1)], largest))
    candidates = np.append(lower[(lower > largest / 64) & (lower < largest)], largest)
    errors = [_expected_error(counts, middle, float(end), levels) for end in candidates]
    return float(candidates[int(np.argmin(errors))])


def _expected_error(
    counts: NDArray[np.float64], middle: NDArray[np.float64], end: float, levels: int
) -> float:
    """Sum of squared errors: a number within is rounded (at most to zero), one beyond is cut."""
    step = end / levels
    rounded = np.minimum(middle**2, step**2 / 12)
    return float((counts * np.where(middle <= end, rounded, (middle - end) ** 2)).sum())


def observe(
    model: onnx.ModelProto,
    names: Sequence[str],
    run: Runner,
    images: Images,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, Spread]:
    """Histograms of some values of a graph, over all images.

    Args:
        model: fp32; the same again afterwards.
        names: which of its values.
        run: opens a graph.
        images: real ones.
        tick: told how many images are done, after each batch.
    """
    spreads = {name: Spread() for name in names}
    inputs = {value.name for value in model.graph.input}
    outputs, own = model.graph.output, len(model.graph.output)
    try:  # in place: a copy would hold a large ViT once more
        for name in names:
            if name not in inputs:
                outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        opened = run(model)
    finally:
        del outputs[own:]
    for batch in images.batches():
        found = opened(batch)
        for name, spread in spreads.items():
            spread.add(found[name])
        tick(len(batch))
    return spreads
