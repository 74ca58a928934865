"""What sessions of both layouts have in common: labels, predictions, an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from vptkit.errors import VptkitError
from vptkit.formats.manifest_schema import FEATURES, SCORES
from vptkit.shown_text import shown

from .prediction import predict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.runtime.backends.graph_protocol import Graph

    from .image_inputs import Sources
    from .session_protocol import Choice, Prediction, Session

__all__ = ["ClosedGraph", "SessionBase", "require_open"]

_Own = TypeVar("_Own", bound="SessionBase")


class ClosedGraph:
    """Stands where a session's graph was, which is freed with the last call that uses it.

    Attributes:
        threads, versions: of the graph that was.
    """

    def __init__(self, graph: Graph, path: Path) -> None:
        """Remember of a bundle's graph what can be asked for afterwards."""
        self.threads: int = graph.threads
        self.versions: Mapping[str, str] = graph.versions
        self._path = path

    def refuse(self) -> NoReturn:
        """Say that it is closed.

        Raises:
            VptkitError: always.
        """
        raise VptkitError(
            f"the session of {self._path} is closed: open the bundle again, or ask inside of its "
            "with block. What predict returns is computed while it is iterated: list(...) keeps it."
        )

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Refuse."""
        self.refuse()

    def answers(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Refuse."""
        self.refuse()

    def table_types(self) -> dict[str, np.dtype[Any]]:
        """Refuse."""
        self.refuse()

    def resident(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Refuse."""
        self.refuse()

    def look_up(
        self, batch: NDArray[Any], adapter: NDArray[np.int32], tables: Mapping[str, Any]
    ) -> dict[str, NDArray[np.float32]]:
        """Refuse."""
        self.refuse()


def require_open(session: Session) -> None:
    """Do nothing if the session is open.

    Raises:
        VptkitError: it was closed.
    """
    if isinstance(session.graph, ClosedGraph):
        session.graph.refuse()


class SessionBase:
    """Labels, predictions, `with` and `repr` of what is a `Session` otherwise."""

    __slots__ = ()

    @property
    def adapters(self: Session) -> tuple[str, ...]:
        """Names of the adapters: one, or those of a bank."""
        return self.bundle.adapter_names

    @property
    def labels(self: Session) -> tuple[str, ...]:
        """C class names, in the order of the logits.

        Raises:
            BundleError: a bank of several adapters: `labels_of` takes the name of one.
        """
        return self.labels_of()

    def labels_of(self: Session, adapter: str | None = None) -> tuple[str, ...]:
        """C class names of one adapter: the only one unless named.

        Raises:
            BundleError: there is no such adapter, or there are several and none is named.
        """
        return self.bundle.labels_of(adapter)

    def features(
        self: Session, images: NDArray[np.uint8], adapter: Choice | None = None
    ) -> NDArray[np.float32]:
        """What the head reads of prepared images: float32 [B, f].

        Args:
            images, adapter: as for `run`.

        Raises:
            VptkitError, DataError: see `run`.
            BundleError: the graph gives none; or see `run`.
        """
        self.bundle.require_output(FEATURES)
        return self.answers(images, adapter)[FEATURES]

    def scores(
        self: Session, images: NDArray[np.uint8], adapter: Choice | None = None
    ) -> NDArray[np.float32]:
        """Probability of each label, apart from the others, of prepared images: float32 [B, C].

        An image has the labels whose score is at or above `bundle.thresholds_of(adapter)`.

        Args:
            images, adapter: as for `run`; of a sequence of adapters, columns that an image's adapter
                does not have are 0.

        Raises:
            VptkitError, DataError: see `run`.
            BundleError: the graph gives none: its adapters have one label an image; or see `run`.
        """
        self.bundle.require_output(SCORES)
        return self.answers(images, adapter)[SCORES]

    def refresh(self: Session) -> None:
        """See to it that `bundle` is what is on disk; only a bank's adapters change.

        Raises:
            VptkitError: the session was closed.
            BundleError: the bundle was changed in a way that needs reopening.
        """
        require_open(self)

    def predict(
        self: Session,
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
        """The best labels of images; see `vptkit.runtime.session.prediction.predict`."""
        require_open(self)
        return predict(
            self,
            sources,
            adapter=adapter,
            top_k=top_k,
            batch=batch,
            workers=workers,
            reject=reject,
            decode=decode,
            runs=runs,
        )

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(self: Session, *exception: object) -> None:
        self.close()

    def __repr__(self: Session) -> str:
        """One line: bundle, backend, precision, classes."""
        bundle, count = self.bundle, len(self.adapters)
        what = f"bank of {count} adapters" if count > 1 else f"{len(self.labels)} classes"
        closed = ", closed" if isinstance(self.graph, ClosedGraph) else ""
        name = shown(bundle.path.name or bundle.path)
        return f"<vptkit session {name}: {self.backend}, {bundle.precision}, {what}{closed}>"
