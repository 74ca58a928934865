"""Images → the best labels of each: decoded in parallel, run in batches, streamed in order."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import DataError, VptkitError
from vptkit.scores.probabilities import softmax

from .image_loader import Decoded, decode
from .image_sources import find_images
from .session_protocol import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .session_protocol import Session

__all__ = ["predict"]


def predict(
    session: Session,
    sources: Iterable[str | Path],
    *,
    adapter: str | None = None,
    top_k: int = 5,
    batch: int = 8,
    workers: int | None = None,
) -> Iterator[Prediction]:
    """Classify images; a broken image becomes a result with an error, and the work goes on.

    The sources are looked up at once, so a missing one raises here and not in the middle.

    Args:
        session: an open bundle.
        sources: files, folders and globs (`find_images`).
        adapter: which of the bundle's adapters to ask; the only one unless given.
        top_k: labels for each image, at most C.
        batch: images for each run; a fixed-batch bundle takes its own.
        workers: decoding threads, one for each usable core unless given.

    Returns:
        One prediction for each image, in the order of the sources, as they become ready.

    Raises:
        BundleError: the bundle has no such adapter.
        DataError: a source is missing or holds no images.
    """
    name = str(session.bundle.entry(adapter)["name"])
    if top_k < 1 or batch < 1:
        raise VptkitError(f"top_k is {top_k} and batch is {batch}, expected at least 1 each")
    paths = find_images(sources)
    return _predictions(session, name, paths, top_k, session.bundle.batch or batch, workers)


def _predictions(
    session: Session, adapter: str, paths: list[Path], top_k: int, batch: int, workers: int | None
) -> Iterator[Prediction]:
    preprocess = session.bundle.preprocess
    ahead = max(32, 2 * batch)
    # closing: whoever stops early must not leave decoding threads behind.
    with contextlib.closing(decode(paths, preprocess, workers=workers, read_ahead=ahead)) as images:
        portion: list[Decoded[Path]] = []
        for decoded in images:
            portion.append(decoded)
            if len(portion) == batch:
                yield from _classify(session, adapter, portion, top_k)
                portion = []
        yield from _classify(session, adapter, portion, top_k)


def _classify(
    session: Session, adapter: str, portion: list[Decoded[Path]], top_k: int
) -> Iterator[Prediction]:
    pixels = [item for _, item in portion if not isinstance(item, DataError)]
    rows = iter(session.run(np.stack(pixels), adapter) if pixels else np.empty((0, 0), np.float32))
    labels = session.bundle.labels_of(adapter)  # behind the run: it may have been replaced
    for path, item in portion:
        if isinstance(item, DataError):
            yield Prediction(path=path, adapter=adapter, error=str(item))
            continue
        logits = next(rows)  # [C]
        if np.isfinite(logits).all():
            top = _best(softmax(logits), labels, top_k)
            yield Prediction(path=path, adapter=adapter, top=top)
        else:
            error = f"{path}: the logits hold NaN or Inf; the graph overflows on this image"
            yield Prediction(path=path, adapter=adapter, error=error)


def _best(
    scores: NDArray[np.float64], labels: tuple[str, ...], top_k: int
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-scores, kind="stable")[:top_k]  # equal scores: the first label first
    return tuple((labels[i], float(scores[i])) for i in order)
