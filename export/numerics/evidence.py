"""What a lower precision is judged by: real images, and something that runs graphs.

The exporter runs nothing itself. Whoever assembles the stages (the command line) hands it images
and a runner, and the passes ask these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vptkit.formats.manifest_schema import LOGITS, OUTPUTS
from vptkit.progress import Phases, no_phases

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

__all__ = ["Evidence", "Images", "Run", "Runner", "answers_of", "logits_of"]

# Prepared images, uint8 [B, H, W, 3] → outputs by name.
Run = Callable[["NDArray[np.uint8]"], Mapping[str, "NDArray[Any]"]]
# A graph that the CPU can run → a function that runs it.
Runner = Callable[["onnx.ModelProto"], Run]


class Images(Protocol):
    """Prepared images that can be gone through more than once."""

    @property
    def count(self) -> int:
        """How many."""

    @property
    def digest(self) -> str:
        """SHA-256 that stands for the set: the file names and contents, in order."""

    @property
    def truth(self) -> NDArray[np.intp] | None:
        """Index of each image's class among the adapter's labels, or None if unknown."""

    def batches(self) -> Iterator[NDArray[np.uint8]]:
        """uint8 [B, H, W, 3], in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Images and a runner.

    Attributes:
        run: opens a graph.
        calibration: images that may shape the graph (ranges, islands), or None.
        gate: other images, which only judge it, or None.
        calibration_split, gate_split: "train", "val", "test" or "ood"; None where nothing names one.
        too_kind: why the gate's images flatter every graph, as "they are training images"; None
            where they do not.
        decode: how the images are decoded, "exact" or "fast"; None where they come decoded.
        phase: is told what is done, image by image.
    """

    run: Runner
    calibration: Images | None = None
    gate: Images | None = None
    calibration_split: str | None = None
    gate_split: str | None = None
    too_kind: str | None = None
    decode: str | None = None
    phase: Phases = no_phases

    def calibration_record(self) -> dict[str, Any] | None:
        """Which images shaped the graph, as the manifest writes it."""
        if self.calibration is None:
            return None
        return {
            "split": self.calibration_split,
            "count": self.calibration.count,
            "images": self.calibration.digest,
            "decode": self.decode,
        }


def answers_of(
    run: Run, images: Images, tick: Callable[[int], None] = lambda _: None
) -> dict[str, NDArray[np.float64]]:
    """What a graph gives for all images: logits [N, C], and features [N, f] where it has them.

    Args:
        run: an opened graph.
        images: what to run it on.
        tick: told how many images are done, after each batch.
    """
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for batch in images.batches():
        found = run(batch)
        for name in OUTPUTS:
            if name in found:
                parts.setdefault(name, []).append(np.asarray(found[name], dtype=np.float64))
        tick(len(batch))
    return {name: np.concatenate(values) for name, values in parts.items()}


def logits_of(
    run: Run, images: Images, tick: Callable[[int], None] = lambda _: None
) -> NDArray[np.float64]:
    """The logits of `answers_of`."""
    return answers_of(run, images, tick)[LOGITS]
