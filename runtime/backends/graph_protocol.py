"""What a loaded graph offers, whichever library runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BankGraph", "Graph", "TimedGraph", "Times"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """One call taken apart, in milliseconds; None where a backend has no such time.

    Attributes:
        enqueue: the processor hands the work to the GPU.
        gpu: from the first to the last kernel, by events on the stream.
        host: from the first enqueue to the end of the wait, data on the device already.
        end_to_end: images in host memory to logits in host memory.
    """

    enqueue: float | None = None
    gpu: float | None = None
    host: float | None = None
    end_to_end: float


@runtime_checkable
class TimedGraph(Protocol):
    """A loaded graph that can take its runs apart; see `tensorrt_graph.TrtGraph`."""

    def timed(
        self,
        batch: NDArray[Any],
        *,
        adapter: NDArray[np.int32] | None = None,
        tables: Mapping[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], Times]:
        """Run one batch, and take the time of its parts."""


class Graph(Protocol):
    """A loaded graph, the part of a session that differs between backends."""

    @property
    def threads(self) -> int:
        """CPU threads that one call may use."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that do the work."""

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """One batch of the bundle's input → its first output, float32 [B, C] or [B, f]."""

    def answers(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """One batch of the bundle's input → all outputs by name."""


class BankGraph(Graph, Protocol):
    """The loaded graph of a bank."""

    def table_types(self) -> dict[str, np.dtype[Any]]:
        """Types of the tables, which the graph's precision decides."""

    def resident(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Tables where the graph reads them, for many calls."""

    def look_up(
        self, batch: NDArray[Any], adapter: NDArray[np.int32], tables: Mapping[str, Any]
    ) -> dict[str, NDArray[np.float32]]:
        """One batch: its input, a row number for each image, `resident` tables → all outputs."""
