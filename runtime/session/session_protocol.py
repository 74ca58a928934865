"""What every session offers, and what it says of an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vptkit.errors import DataError
from vptkit.images.preprocess import normalize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.images.image_file import ImageFile
    from vptkit.runtime.backends.graph_protocol import Graph, Times

    from .image_inputs import Sources

    Choice = str | int | Sequence[str | int]

__all__ = ["Prediction", "Session", "graph_input", "require_images"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a bundle says about one image, or why it says nothing.

    Attributes:
        path: the image: a Path, or of one in a larger file or a store what is read like a Path
            (`vptkit.images.image_file.ImageFile`: name, read_bytes(), and as text what it is called);
            None of an image that was in memory.
        index: number of the image among those of the call, from 0.
        adapter: the name of the adapter that was asked.
        top: (label, score), best first; scores are softmax probabilities, with several labels an
            image those of each label apart from the others. Empty on an error.
        labels: with several labels an image: those whose score is at or above their threshold, with
            the score, best first; it may have none. None of one label an image, and on an error.
        error: what was wrong with the image, or None.
        logits: float32 [C], of all classes in the order of the labels; None on an error, and of
            a bundle that gives features alone (whose `top` is empty).
        scores: float32 [C], of bundles that give them: with several labels an image.
        features: float32 [f], what the head reads; None on an error, and of a bundle without.
        typicality: with `reject`: the share of `val` that is at least as far from what was learned.
        rejected: with `reject`: that share is at most the rate, so it is none of the labels.
    """

    path: ImageFile | None
    index: int = 0
    adapter: str
    top: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, float], ...] | None = None
    error: str | None = None
    logits: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    scores: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    features: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    typicality: float | None = None
    rejected: bool | None = None

    @property
    def label(self) -> str | None:
        """The best label, None where there is an error, or where no label is given."""
        best = self._best
        return best[0] if best else None

    @property
    def score(self) -> float | None:
        """Its probability, None where there is no such label."""
        best = self._best
        return best[1] if best else None

    @property
    def _best(self) -> tuple[str, float] | None:
        return next(iter(self.top if self.labels is None else self.labels), None)

    @property
    def source(self) -> str:
        """What messages call the image: its path, or its number as "images[3]"."""
        return f"images[{self.index}]" if self.path is None else str(self.path)

    def to_json(self) -> dict[str, Any]:
        """{"path", "adapter", "top": [{"label", "score"}]} or {"path", "adapter", "error"}.

        With several labels an image also "labels": names, best first, and "scores", theirs.
        Of an image that was in memory the path is null, and there is its "index".
        """
        head: dict[str, Any] = {"path": None if self.path is None else str(self.path)}
        if self.path is None:
            head["index"] = self.index
        head["adapter"] = self.adapter
        if self.error is not None:
            return {**head, "error": self.error}
        if self.rejected is not None:
            head |= {"rejected": self.rejected, "typicality": self.typicality}
        if self.labels is not None:
            head["labels"] = [label for label, _ in self.labels]
            head["scores"] = [score for _, score in self.labels]
        return {**head, "top": [{"label": label, "score": score} for label, score in self.top]}


class Session(Protocol):
    """What every backend offers."""

    @property
    def bundle(self) -> Bundle:
        """The opened bundle."""

    @property
    def graph(self) -> Graph:
        """The loaded graph."""

    @property
    def backend(self) -> str:
        """What runs the graph, one of `selection.BACKENDS`."""

    @property
    def choice(self) -> str:
        """Why this backend, and why not those that were passed over."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters: one, or those of a bank."""

    @property
    def labels(self) -> tuple[str, ...]:
        """C class names, in the order of the logits; of a bank with several see `labels_of`."""

    def labels_of(self, adapter: str | None = None) -> tuple[str, ...]:
        """C class names of one adapter: the only one unless named."""

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

    def features(
        self, images: NDArray[np.uint8], adapter: Choice | None = None
    ) -> NDArray[np.float32]:
        """What the head reads of prepared images: float32 [B, f], of bundles that give it."""

    def scores(
        self, images: NDArray[np.uint8], adapter: Choice | None = None
    ) -> NDArray[np.float32]:
        """Probability of each label: float32 [B, C], of bundles for several labels an image."""

    def answers(
        self, images: NDArray[np.uint8], adapter: Choice | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """All that the graph gives for prepared images: "logits", "scores", "features"."""

    def timed(self, images: NDArray[np.uint8], adapter: Choice | None = None) -> Times | None:
        """One run taken apart, or None where the backend knows only the whole."""

    def predict(
        self,
        sources: Sources,
        *,
        adapter: str | None = None,
        top_k: int = 5,
        batch: int | None = None,
        workers: int | None = None,
        reject: float | None = None,
        decode: str | None = None,
        runs: int = 1,
    ) -> Iterator[Prediction]:
        """The best labels of files, Pillow's images and arrays, in order, as they are ready."""

    def refresh(self) -> None:
        """See to it that `bundle` is what is on disk; every run does that itself."""

    def close(self) -> None:
        """Free the graph and its memory; every later call is an error."""

    def __enter__(self) -> Session:
        """Itself; closed at the end of the block."""

    def __exit__(self, *exception: object) -> None:
        """Close."""


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
