"""The training image that is most like another one, by the bundle's own features."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.runtime.session.session_protocol import Session

__all__ = ["MOST", "Nearest", "nearest_training_images"]

MOST = 2000  # training images that are compared, drawn evenly: a page is not worth hours
_BATCH = 16


class Nearest(NamedTuple):
    """A training image beside another one.

    Attributes:
        image, label: the file and its class.
        cosine: of the two feature vectors.
    """

    image: ImageFile
    label: str
    cosine: float


def nearest_training_images(
    session: Session,
    images: Sequence[ImageFile],
    data: Path,
    *,
    adapter: str | None = None,
    decode: str | None = None,
) -> tuple[list[Nearest | None], int]:
    """For each image the most similar one of the train split.

    Args:
        session: of a bundle that gives features.
        images: what is looked at.
        data: the data set, with a split train.
        adapter: of a bank.
        decode: how files are decoded.

    Returns:
        One for each image, None where it cannot be read; and how many training images were compared.

    Raises:
        DataError: the data has no training images.
    """
    import numpy as np

    from vptkit.runtime.evaluation.accuracy import labelled_data

    _, _, paths, truth = labelled_data(session, data, adapter=adapter, split="train")
    drawn = np.unique(np.linspace(0, len(paths) - 1, min(MOST, len(paths))).astype(int))
    labels = session.bundle.labels_of(adapter)
    theirs = _features(session, [paths[i] for i in drawn], adapter, decode)
    ours = _features(session, images, adapter, decode)
    known = {k: row for k, row in enumerate(theirs) if row is not None}
    if not known:
        return [None] * len(images), 0
    places, table = [*known], np.stack([*known.values()])  # [train, f]
    found: list[Nearest | None] = []
    for row in ours:
        if row is None:
            found.append(None)
            continue
        cosines = table @ row
        best = int(cosines.argmax())
        at = drawn[places[best]]
        found.append(Nearest(paths[at], labels[int(truth[at])], float(cosines[best])))
    return found, len(known)


def _features(
    session: Session, images: Sequence[ImageFile], adapter: str | None, decode: str | None
) -> list[NDArray[Any] | None]:
    """Features of length 1, float32 [f] each; None of what cannot be read."""
    import numpy as np

    from vptkit.errors import DataError
    from vptkit.formats.manifest_schema import FEATURES
    from vptkit.runtime.session.image_loader import decoded
    from vptkit.scores.feature_distance import unit_length

    found: list[NDArray[Any] | None] = []
    size = session.bundle.batch or _BATCH
    stream = decoded(images, session.bundle.preprocess.reading(decode))
    while portion := [pixels for _, pixels in islice(stream, size)]:
        whole = [pixels for pixels in portion if not isinstance(pixels, DataError)]
        rows = iter(
            unit_length(session.answers(np.stack(whole), adapter)[FEATURES]) if whole else ()
        )
        found += [None if isinstance(pixels, DataError) else next(rows) for pixels in portion]
    return found
