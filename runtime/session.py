"""A session: a bundle that answers. `open_session` picks the backend; nothing falls back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from vptkit.errors import BundleError, DataError, VptkitError
from vptkit.formats.bundle import Bundle, open_bundle
from vptkit.images.preprocess import normalize

from .backends import open_graph
from .predict import Prediction, predict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from .timing import Times

    Choice = str | int | Sequence[str | int]

__all__ = [
    "BankGraph",
    "Graph",
    "GraphSession",
    "Session",
    "TimedGraph",
    "graph_input",
    "open_session",
    "require_images",
]


class Session(Protocol):
    """What every backend offers."""

    @property
    def bundle(self) -> Bundle:
        """The opened bundle."""

    @property
    def backend(self) -> str:
        """What runs the graph, one of `backends.BACKENDS`."""

    @property
    def choice(self) -> str:
        """Why this backend, and why not those that were passed over."""

    @property
    def threads(self) -> int:
        """CPU threads that one run may use."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that do the work."""

    def run(self, images: NDArray[np.uint8], adapter: Choice | None = None) -> NDArray[np.float32]:
        """Logits of prepared images: uint8 [B, H, W, 3] → float32 [B, C].

        `adapter` chooses among those of a bank: one name, or one for each image.
        """

    def timed(self, images: NDArray[np.uint8], adapter: Choice | None = None) -> Times | None:
        """One run taken apart, or None where the backend knows only the whole."""

    def predict(
        self, sources: Iterable[str | Path], *, adapter: str | None = None, top_k: int = 5
    ) -> Iterator[Prediction]:
        """The best labels of images, folders and globs, in order, as they are ready."""


@runtime_checkable
class TimedGraph(Protocol):
    """A loaded graph that can take its runs apart; see `trt_graph.TrtGraph`."""

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
        """One batch of the bundle's input → float32 [B, C]."""


class BankGraph(Graph, Protocol):
    """The loaded graph of a bank."""

    def table_types(self) -> dict[str, np.dtype[Any]]:
        """Types of the tables, which the graph's precision decides."""

    def resident(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Tables where the graph reads them, for many calls."""

    def look_up(
        self, batch: NDArray[Any], adapter: NDArray[np.int32], tables: Mapping[str, Any]
    ) -> NDArray[np.float32]:
        """One batch: its input, a row number for each image, `resident` tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSession:
    """A bundle and its loaded graph: checks, batches and normalises what goes in."""

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

    def predict(
        self, sources: Iterable[str | Path], *, adapter: str | None = None, top_k: int = 5
    ) -> Iterator[Prediction]:
        """The best labels of images, folders and globs; see `vptkit.runtime.predict`."""
        return predict(self, sources, adapter=adapter, top_k=top_k)

    def _require(self, images: NDArray[np.uint8], adapter: Choice | None) -> None:
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


def graph_input(images: NDArray[np.uint8], bundle: Bundle) -> NDArray[Any]:
    """What a bundle's graph takes for prepared images: themselves, or normalised pixels."""
    if bundle.input == "pixels":
        return normalize(images, bundle.preprocess)
    return np.ascontiguousarray(images)


def require_images(images: NDArray[np.uint8], bundle: Bundle) -> None:
    """Refuse what a bundle's graph does not take.

    Raises:
        DataError: not uint8 [B, H, W, 3] of the bundle's size.
    """
    height, width = bundle.preprocess.size
    if not isinstance(images, np.ndarray):
        came = type(images).__name__  # type: ignore[unreachable]
    elif images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3):
        came = f"{images.dtype} {list(images.shape)}"
    else:
        return
    raise DataError(
        f"images: came as {came}, expected uint8 [B, {height}, {width}, 3], RGB, resized and "
        "cropped. vptkit.images.preprocess.prepare makes one from an image of any size."
    )


def open_session(
    path: str | Path,
    backend: str = "cpu",
    threads: int | None = None,
    *,
    cuda_graph: bool = True,
) -> Session:
    """Open a bundle, check its digests, and load its graph.

    Args:
        path: the bundle.
        backend: one of `backends.BACKENDS`, or "auto": the first that runs it here. "cpu" is ONNX
            Runtime on the processor.
        threads: CPU threads of one run; one for each usable core unless given.
        cuda_graph: of TensorRT: capture launches and replay them.

    Raises:
        BundleError: not a bundle, or one of its files is missing or was changed.
        MissingError: a named backend's device, driver, package or engine is missing.
        TargetError: the backend cannot run this bundle.
    """
    if threads is not None and threads < 1:
        raise VptkitError(f"threads is {threads}, expected at least 1")
    bundle = open_bundle(Path(path))
    opened = open_graph(bundle, backend, threads, cuda_graph=cuda_graph)
    if bundle.layout == "bank":
        from .bank import BankSession  # imports this module

        return BankSession(bundle, opened.backend, opened.graph, opened.explanation)
    if bundle.layout != "baked":
        raise BundleError(f"{path}: layout {bundle.layout!r}, expected 'baked' or 'bank'")
    return GraphSession(
        bundle=bundle, backend=opened.backend, graph=opened.graph, choice=opened.explanation
    )
