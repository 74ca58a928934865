"""Images → the best labels of each: decoded in parallel, run in batches, streamed in order."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import BundleError, DataError, VptkitError
from vptkit.formats.bundle import LOGITS, REJECTION, SCORES
from vptkit.runtime.backends.selection import on_processor
from vptkit.schema import abridged
from vptkit.scores.label_sets import decided
from vptkit.scores.probabilities import softmax
from vptkit.scores.typicality import typicality_of

from .image_inputs import HeldImage, inputs_of, is_live
from .image_loader import Decoded, decoded
from .ordered_work import in_order
from .session_protocol import Prediction

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.images.image_file import ImageFile
    from vptkit.scores.typicality import Typicality

    from .image_inputs import Sources
    from .session_protocol import Session

    _Ranked = tuple[tuple[str, float], ...]

__all__ = ["answered", "open_typicality", "predict", "ranked"]

_BATCH, _READ_AHEAD = 8, 32  # images


def predict(
    session: Session,
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
        top_k: labels for each image, at most C. Where an image may have several, those that it is
            given are all told, in `labels`, and `top` are the best whether given or not.
        batch: images for each run; 8 unless given, or what a fixed-batch bundle takes; 1 of what is
            live.
        workers: decoding threads, one for each usable core unless given.
        reject: the share of images like those of `val` that may be called none of the labels;
            needs a bundle that was exported with `--reject-from`.
        decode: how files are decoded, "exact" or "fast" (`vptkit.images.image_pixels`).
        runs: batches that are run at once on the processor, beside the decoding (`run_threads`);
            of what is live one image after the other.

    Returns:
        One prediction for each image, in the order of the sources, as they become ready.

    Raises:
        BundleError: the bundle has no such adapter, or cannot reject.
        DataError: a source is missing, holds no images, or is none of the above; of what is live
            while it is iterated.
    """
    name = str(session.bundle.entry(adapter)["name"])
    if min(top_k, 1 if batch is None else batch, runs) < 1:
        raise VptkitError(
            f"top_k is {top_k}, batch is {batch} and runs is {runs}, expected at least 1 each"
        )
    live = is_live(sources)
    size = (batch or 1) if live else session.bundle.batch or batch or _BATCH
    at_once = 0 if live else runs if on_processor(session.backend) else 1  # a GPU has one queue
    ahead = max(_READ_AHEAD, (at_once + 1) * size) if at_once else 0
    preprocess = session.bundle.preprocess.reading(decode)
    inputs = inputs_of(sources)
    images = decoded(
        inputs if live else _fetched(inputs), preprocess, workers=workers, read_ahead=ahead
    )
    known = None if reject is None else open_typicality(session.bundle, reject)
    found = _predictions(session, name, images, top_k, size, at_once)
    return found if known is None or reject is None else _judged(found, known, reject)


def _fetched(inputs: Iterable[ImageFile | HeldImage]) -> Iterable[ImageFile | HeldImage]:
    # Boards that only measure have no such room.
    from vptkit.runtime.stores.stored_image import fetched_ahead

    return fetched_ahead(inputs)


def open_typicality(bundle: Bundle, rate: float) -> Typicality:
    """What a bundle knows of the images that it was made for, for a rate that it can tell.

    Args:
        bundle: exported with `--reject-from`.
        rate: the share of images like those of `val` that may be rejected.

    Raises:
        BundleError: it was exported without, or its file does not fit its graph.
        VptkitError: the rate is no share, or smaller than the number of `val` images can tell.
    """
    if REJECTION not in bundle.manifest["files"] or bundle.features is None:
        raise BundleError(
            f"{bundle.path}: does not know the images that it was made for. Export the adapter "
            "again with --output both --reject-from DATA, the data that it was tuned on."
        )
    # A board that only runs bundles may lack safetensors.
    from vptkit.formats.tensor_file import parse_tensor_file

    file = bundle.path / REJECTION
    tensors = parse_tensor_file(bundle.read(REJECTION), file, BundleError)[1]
    found = typicality_of(tensors, bundle.features)
    if found is None:
        size, came = bundle.features, {name: value.shape for name, value in tensors.items()}
        raise BundleError(
            f"{file}: holds {abridged(came)}, expected "
            f"finite means [C, {size}], whitening [{size}, {size}] and known [n]. Export the bundle "
            "again."
        )
    if not 0 < rate < 1:
        raise VptkitError(f"--reject {rate:g}: expected a share above 0 and below 1, as 0.05")
    if rate < found.least_rate:
        raise VptkitError(
            f"--reject {rate:g}: {len(found.known)} images of val cannot tell less than "
            f"{found.least_rate:.2g}. Pass at least that, or export with more images in val."
        )
    return found


def _judged(
    predictions: Iterator[Prediction], known: Typicality, rate: float
) -> Iterator[Prediction]:
    """The same, each with its typicality."""
    for prediction in predictions:
        if prediction.features is None:
            yield prediction
            continue
        share = float(known.shares(prediction.features[None])[0])
        yield replace(prediction, typicality=share, rejected=share <= rate)


def _predictions(
    session: Session,
    adapter: str,
    images: Generator[Decoded[ImageFile | HeldImage], None, None],
    top_k: int,
    batch: int,
    runs: int,
) -> Iterator[Prediction]:
    """Answers to decoded images.

    Args:
        session, adapter, images, top_k: of `predict`.
        batch: images of one run.
        runs: runs at once, in threads: 0 where each is over before the next image is taken.
    """

    def answer(portion: tuple[int, list[Decoded[ImageFile | HeldImage]]]) -> list[Prediction]:
        return list(_classify(session, adapter, portion[1], top_k, portion[0] * batch))

    with contextlib.closing(images):  # whoever stops early must not leave decoding threads behind
        portions = enumerate(iter(lambda: list(islice(images, batch)), []))
        if not runs:
            for portion in portions:
                yield from answer(portion)
            return
        # One more than is run, so that none waits for its images.
        running = in_order(answer, portions, threads=runs, ahead=runs, name="vptkit-run")
        with contextlib.closing(running):
            for predictions in running:
                yield from predictions


def _classify(
    session: Session,
    adapter: str,
    portion: list[Decoded[ImageFile | HeldImage]],
    top_k: int,
    first: int,
) -> Iterator[Prediction]:
    pixels = [item for _, item in portion if not isinstance(item, DataError)]
    answers, bundle = _steadily(session, pixels, adapter)
    labels, thresholds = bundle.labels_of(adapter), bundle.thresholds_of(adapter)
    rows = iter(range(len(pixels)))
    for index, (image, item) in enumerate(portion, first):
        path = None if isinstance(image, HeldImage) else image
        if isinstance(item, DataError):
            yield Prediction(path=path, index=index, adapter=adapter, error=str(item))
            continue
        row = next(rows)  # [C], [f]; copies, for a view would keep the whole batch
        found = {name: value[row].copy() for name, value in answers.items()}
        head = Prediction(path=path, index=index, adapter=adapter)
        yield answered(head, found, labels, thresholds, top_k, str(image))


def _steadily(
    session: Session, pixels: list[NDArray[np.uint8]], adapter: str
) -> tuple[dict[str, NDArray[np.float32]], Bundle]:
    """Answers, and the bundle that they are of: a run takes over a bank's change, also for others."""
    if not pixels:
        return {}, session.bundle
    batch = np.stack(pixels)
    while True:
        bundle = session.bundle
        answers = session.answers(batch, adapter)
        if session.bundle is bundle:
            return answers, bundle


def answered(
    head: Prediction,
    found: Mapping[str, NDArray[np.float32]],
    labels: tuple[str, ...],
    thresholds: NDArray[np.float32] | None,
    top_k: int,
    name: str,
) -> Prediction:
    """A prediction with what a graph gave for its image; with an error where that is not finite.

    Args:
        head: says which image, and which adapter.
        found: output → [C] or [f], which the prediction keeps.
        labels, thresholds: of the adapter.
        top_k: of `predict`.
        name: what the error calls the image.
    """
    broken = [output for output, value in found.items() if not np.isfinite(value).all()]
    if broken:
        error = f"{name}: the {broken[0]} hold NaN or Inf; the graph overflows on this image"
        return replace(head, error=error)
    top, given = _told(found, labels, thresholds, top_k)
    return replace(head, top=top, labels=given, **found)  # type: ignore[arg-type]


def _told(
    found: Mapping[str, NDArray[np.float32]],
    labels: tuple[str, ...],
    thresholds: NDArray[np.float32] | None,
    top_k: int,
) -> tuple[_Ranked, _Ranked | None]:
    """The best labels of an image, and those that it is given where it may have several.

    Args:
        found: what the graph gives for it, by name: logits and scores [C].
        labels: C names.
        thresholds: float32 [C] where it may have several labels.
        top_k: labels that are told.
    """
    if LOGITS not in found:
        return (), None
    if thresholds is None:
        return ranked(softmax(found[LOGITS]), labels, None, top_k)
    return ranked(found[SCORES], labels, thresholds, top_k)


def ranked(
    scores: NDArray[np.floating[Any]],
    labels: tuple[str, ...],
    thresholds: NDArray[np.float32] | None,
    top_k: int,
) -> tuple[_Ranked, _Ranked | None]:
    """The same of probabilities [C], as `_told`."""
    if thresholds is None:
        return _best(scores.astype(np.float64), labels, top_k), None
    every = _best(scores.astype(np.float64), labels, len(labels))
    given = {labels[i] for i in np.flatnonzero(decided(scores, thresholds))}
    return every[:top_k], tuple(pair for pair in every if pair[0] in given)


def _best(scores: NDArray[np.float64], labels: tuple[str, ...], top_k: int) -> _Ranked:
    order = np.argsort(-scores, kind="stable")[:top_k]  # equal scores: the first label first
    return tuple((labels[i], float(scores[i])) for i in order)
