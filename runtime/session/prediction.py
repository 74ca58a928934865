"""Images → the best labels of each: decoded in parallel, run in batches, streamed in order."""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import DataError, VptkitError
from vptkit.formats.manifest_schema import LOGITS
from vptkit.scores.probabilities import softmax

from .image_inputs import HeldImage, inputs_of, is_live
from .image_loader import Decoded, decode
from .session_protocol import Prediction

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .image_inputs import Sources
    from .session_protocol import Session

__all__ = ["predict"]

_BATCH, _READ_AHEAD = 8, 32  # images


def predict(
    session: Session,
    sources: Sources,
    *,
    adapter: str | None = None,
    top_k: int = 5,
    batch: int | None = None,
    workers: int | None = None,
) -> Iterator[Prediction]:
    """Classify images; a broken image becomes a result with an error, and the work goes on.

    All of them are prepared alike, resized and cropped as the adapter's were. Files and Pillow's
    images are turned upright and may have any mode; arrays are RGB, not BGR as OpenCV's are
    (`frame[..., ::-1]`). Sources that are there as a whole are looked up at once, so a missing one
    raises here and not in the middle, and decoded ahead. Anything else that can be iterated, such as
    a generator of frames, is live: each image is answered before the next one is taken.

    Args:
        session: an open bundle.
        sources: a file, folder or glob, an image of Pillow, a uint8 array [H, W, 3] or
            [B, H, W, 3]; or several of them, mixed as they come.
        adapter: which of the bundle's adapters to ask; the only one unless given.
        top_k: labels for each image, at most C.
        batch: images for each run; 8 unless given, or what a fixed-batch bundle takes; 1 of what is
            live.
        workers: decoding threads, one for each usable core unless given.

    Returns:
        One prediction for each image, in the order of the sources, as they become ready.

    Raises:
        BundleError: the bundle has no such adapter.
        DataError: a source is missing, holds no images, or is none of the above; of what is live
            while it is iterated.
    """
    name = str(session.bundle.entry(adapter)["name"])
    if top_k < 1 or (batch is not None and batch < 1):
        raise VptkitError(f"top_k is {top_k} and batch is {batch}, expected at least 1 each")
    live = is_live(sources)
    size = (batch or 1) if live else session.bundle.batch or batch or _BATCH
    ahead = 0 if live else max(_READ_AHEAD, 2 * size)
    images = decode(
        inputs_of(sources), session.bundle.preprocess, workers=workers, read_ahead=ahead
    )
    return _predictions(session, name, images, top_k, size)


def _predictions(
    session: Session,
    adapter: str,
    images: Generator[Decoded[Path | HeldImage], None, None],
    top_k: int,
    batch: int,
) -> Iterator[Prediction]:
    done = 0
    with contextlib.closing(images):  # whoever stops early must not leave decoding threads behind
        while portion := list(islice(images, batch)):
            yield from _classify(session, adapter, portion, top_k, done)
            done += len(portion)


def _classify(
    session: Session,
    adapter: str,
    portion: list[Decoded[Path | HeldImage]],
    top_k: int,
    first: int,
) -> Iterator[Prediction]:
    pixels = [item for _, item in portion if not isinstance(item, DataError)]
    answers = session.answers(np.stack(pixels), adapter) if pixels else {}
    labels = session.bundle.labels_of(adapter)  # behind the run: it may have been replaced
    rows = iter(range(len(pixels)))
    for index, (image, item) in enumerate(portion, first):
        path = None if isinstance(image, HeldImage) else image
        if isinstance(item, DataError):
            yield Prediction(path=path, index=index, adapter=adapter, error=str(item))
            continue
        row = next(rows)  # [C], [f]; copies, for a view would keep the whole batch
        found = {name: value[row].copy() for name, value in answers.items()}
        broken = [name for name, value in found.items() if not np.isfinite(value).all()]
        if broken:
            error = f"{image}: the {broken[0]} hold NaN or Inf; the graph overflows on this image"
            yield Prediction(path=path, index=index, adapter=adapter, error=error)
            continue
        top = _best(softmax(found[LOGITS]), labels, top_k) if LOGITS in found else ()
        yield Prediction(path=path, index=index, adapter=adapter, top=top, **found)


def _best(
    scores: NDArray[np.float64], labels: tuple[str, ...], top_k: int
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-scores, kind="stable")[:top_k]  # equal scores: the first label first
    return tuple((labels[i], float(scores[i])) for i in order)
