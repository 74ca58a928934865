"""A session of a bundle with one adapter, compiled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import BundleError
from vptkit.formats.manifest_schema import FEATURES, LOGITS, SCORES
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
            BundleError: the graph answers with another number of classes than its labels, gives
                features alone, or there is no such adapter.
        """
        self.bundle.require_output(LOGITS)
        return self.answers(images, adapter)[LOGITS]

    def answers(
        self, images: NDArray[np.uint8], adapter: Choice | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """All that the graph gives for prepared images, by name.

        Args:
            images, adapter: as for `run`.

        Raises:
            VptkitError, DataError, BundleError: see `run`.
        """
        self._require(images, adapter)
        step = self.bundle.batch or max(len(images), 1)
        parts = [self._run_portion(images[i : i + step]) for i in range(0, len(images), step)]
        if len(parts) == 1:
            return parts[0]
        return {
            name: np.concatenate([np.empty((0, size), np.float32), *(p[name] for p in parts)])
            for name, size in self._sizes().items()
        }

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

    def _sizes(self) -> dict[str, int]:
        """Numbers of an image by output, as the manifest has them."""
        classes = len(self.bundle.labels)
        known = {LOGITS: classes, SCORES: classes, FEATURES: self.bundle.features or 0}
        return {name: known[name] for name in self.bundle.outputs}

    def _run_portion(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        count, fixed = len(images), self.bundle.batch
        if fixed is not None and count < fixed:
            filler = np.repeat(images[-1:], fixed - count, axis=0)
            images = np.concatenate([images, filler])  # [fixed, H, W, 3]
        batch, names = graph_input(images, self.bundle), self.bundle.outputs
        answers = {names[0]: self.graph(batch)} if len(names) == 1 else self.graph.answers(batch)
        for name, size in self._sizes().items():
            came, expected = answers[name].shape, (len(images), size)
            if came != expected:
                fits = "its manifest" if name == FEATURES else "its labels"
                raise BundleError(
                    f"{self.bundle.path}: {name} came as {list(came)}, expected "
                    f"{list(expected)}: the graph does not fit {fits}. Export the bundle again."
                )
        return {name: value[:count] for name, value in answers.items()}
