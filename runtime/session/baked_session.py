"""A session of a bundle with one adapter, compiled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import BundleError
from vptkit.runtime.backends.graph_protocol import Graph, TimedGraph

from .session_base import ClosedGraph, SessionBase, require_open
from .session_protocol import graph_input, require_images

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.backends.graph_protocol import Times

    from .session_protocol import Choice


__all__ = ["GraphSession"]


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class GraphSession(SessionBase):
    """A bundle and its loaded graph: checks, batches and normalises what goes in.

    May be called from several threads.
    """

    bundle: Bundle
    backend: str
    graph: Graph
    choice: str = "it was asked for"

    @property
    def threads(self) -> int:
        """CPU threads that one run may use."""
        return self.graph.threads

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that do the work."""
        return self.graph.versions

    def run(self, images: NDArray[np.uint8], adapter: Choice | None = None) -> NDArray[np.float32]:
        """Logits of prepared images.

        A bundle with a fixed batch is fed in portions of that size; the last is padded.

        Args:
            images: uint8 [B, H, W, 3], RGB, resized and cropped (`vptkit.images.preprocess.prepare`).
            adapter: the only one there is, if any is named.

        Returns:
            float32 [B, C].

        Raises:
            VptkitError: the session was closed.
            DataError: another type or shape came.
            BundleError: the graph answers with another number of classes than its labels, or
                there is no such adapter.
        """
        self._require(images, adapter)
        step = self.bundle.batch or max(len(images), 1)
        parts = [self._run_portion(images[i : i + step]) for i in range(0, len(images), step)]
        if not parts:
            return np.empty((0, len(self.bundle.labels)), dtype=np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def timed(self, images: NDArray[np.uint8], adapter: Choice | None = None) -> Times | None:
        """One run taken apart, or None where the backend knows only the whole.

        Args:
            images: as for `run`, in a number that the graph takes at once.
            adapter: as for `run`.

        Raises:
            DataError, BundleError: see `run`.
            TargetError: the number does not go in one portion.
        """
        self._require(images, adapter)
        if not isinstance(self.graph, TimedGraph):
            return None
        return self.graph.timed(graph_input(images, self.bundle))[1]

    def close(self) -> None:
        """Free the graph and its memory when calls that are on their way have ended."""
        if not isinstance(self.graph, ClosedGraph):
            self.graph = ClosedGraph(self.graph, self.bundle.path)

    def _require(self, images: NDArray[np.uint8], adapter: Choice | None) -> None:
        require_open(self)
        require_images(images, self.bundle)
        for name in {adapter} if isinstance(adapter, (str, int)) else set(adapter or ()):
            self.bundle.entry(self.bundle.adapter_names[name] if name == 0 else str(name))

    def _run_portion(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        count, fixed = len(images), self.bundle.batch
        if fixed is not None and count < fixed:
            filler = np.repeat(images[-1:], fixed - count, axis=0)
            images = np.concatenate([images, filler])  # [fixed, H, W, 3]
        logits = self.graph(graph_input(images, self.bundle))
        expected = (len(images), len(self.bundle.labels))
        if logits.shape != expected:
            raise BundleError(
                f"{self.bundle.path}: logits came as {list(logits.shape)}, expected "
                f"{list(expected)}: the graph does not fit its labels. Export the bundle again."
            )
        return logits[:count]
