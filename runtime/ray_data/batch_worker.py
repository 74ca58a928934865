"""What runs on the nodes: a session in a process of its own, which answers batches by number."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import BundleError, DataError, MissingError, MissingExtraError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.bulk.prediction_record import line_of, record_of
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.image_inputs import FoundImages
from vptkit.runtime.session.prediction import predict

from .image_list import ImageList

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.images.image_file import ImageFile
    from vptkit.runtime.session.session_protocol import Prediction, Session

__all__ = ["BatchWorker", "WorkOrder", "require_shared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """What every node is told.

    Attributes:
        bundle: where it lies, on every node; absolute.
        digest: of the bundle's manifest.
        parts: the folder of the run's parts, on every node; absolute.
        batches: so many are listed there.
        folder: where the command was given: names of images are relative to it.
        batch: images for each run.
        adapter, top_k, reject, decode: of `vptkit.runtime.session.prediction.predict`.
        backend, threads, trust_engines: of `vptkit.runtime.session.factory.open_session`.
    """

    bundle: Path
    digest: str
    parts: Path
    batches: int
    folder: Path
    batch: int
    adapter: str | None
    top_k: int
    reject: float | None
    decode: str | None
    backend: str
    threads: int
    trust_engines: bool


def require_shared(order: WorkOrder) -> None:
    """Find out on a node whether it reaches what every node must reach.

    Raises:
        DataError: not the folder of the command, or other parts in the place of these.
        BundleError: no bundle there, or another one.
    """
    with _named_node():
        _enter(order.folder)
        ImageList(order.parts, order.batches)
        _require_bundle(open_bundle(order.bundle), order)


class BatchWorker:
    """An actor of Ray Data. It opens its session with the first batches, where errors are told."""

    def __init__(self, order: WorkOrder) -> None:
        self._order = order
        self._session: Session | None = None

    def __call__(self, block: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Answer batches.

        Args:
            block: "id" → numbers of batches.

        Returns:
            "id" → the same in order; "answers" → of each the records of its images, a line each;
            "backend" → what ran the graph.

        Raises:
            VptkitError: the node lacks something, with the node's name.
        """
        with _named_node():
            session = self._opened()
            numbers = np.sort(block["id"])
            answers = list(self._answers(session, numbers.tolist()))
        return {
            "id": numbers,
            "answers": np.array(answers, dtype=object),
            "backend": np.array([session.backend] * len(answers), dtype=object),
        }

    def _opened(self) -> Session:
        """The session; opened once, and only of the bundle that the command has."""
        order = self._order
        if self._session is None:
            _enter(order.folder)
            self._listed = ImageList(order.parts, order.batches)
            session = open_session(
                order.bundle, order.backend, order.threads, trust_engines=order.trust_engines
            )
            _require_bundle(session.bundle, order)
            self._session = session
        return self._session

    def _answers(self, session: Session, numbers: list[int]) -> Iterator[str]:
        """The records of each batch; batches are put together as one process would."""
        order = self._order
        for group in self._groups(numbers):
            predictions = predict(
                session,
                FoundImages(image for _, images in group for image in images),
                adapter=order.adapter,
                top_k=order.top_k,
                batch=order.batch,
                workers=order.threads,
                reject=order.reject,
                decode=order.decode,
            )
            for number, images in group:
                first = self._listed.first(number)
                found = zip(range(first, first + len(images)), predictions, strict=False)
                yield "\n".join(_record(replace(answer, index=index)) for index, answer in found)

    def _groups(self, numbers: list[int]) -> Iterator[list[tuple[int, list[ImageFile]]]]:
        """Batches that are answered in one go, so that decoding runs ahead: whole but the last."""
        group = []
        for number in numbers:
            images = self._listed.batch(number)
            group.append((number, images))
            if len(images) < self._order.batch:
                yield group
                group = []
        if group:
            yield group


def _record(answer: Prediction) -> str:
    return line_of(record_of(answer, features=False)).decode("ascii")


def _require_bundle(bundle: Bundle, order: WorkOrder) -> None:
    if bundle.digest != order.digest:
        raise BundleError(
            f"{order.bundle}: not the bundle that the command has ({bundle.digest[:12]}…, expected "
            f"{order.digest[:12]}…). Copy it there, or put it on a disk that all nodes share."
        )


def _enter(folder: Path) -> None:
    """Names of images mean what they mean to the command; nothing is imported from there."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: {error.strerror}. All nodes must reach the command's folder, its sources, its "
            "output and its bundle at the same paths."
        ) from error
    sys.path[:] = [place for place in sys.path if place]


@contextlib.contextmanager
def _named_node() -> Iterator[None]:
    """Errors say where they came from, and are of a kind that travels."""
    try:
        yield
    except VptkitError as error:
        kind = MissingError if isinstance(error, MissingExtraError) else type(error)
        raise kind(f"node {socket.gethostname()}: {error}") from None
