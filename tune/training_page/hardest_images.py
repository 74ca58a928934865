"""The images that judged a run and that it finds hardest: those with the largest log-loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.images.broken_images import name_within
from vptkit.images.thumbnails import thumbnail
from vptkit.scores.multilabel import sigmoid
from vptkit.scores.probabilities import log_losses, softmax
from vptkit.scores.score_interval import percent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.tune.data.splits import Split

__all__ = ["HardImage", "cards", "hardest_images"]

_MOST = 12  # on a page
_LONGEST = 60  # letters of a name


class HardImage(NamedTuple):
    """An image that judged, and what was answered.

    Attributes:
        image, inside: the file, and where it must lie (`Split.inside`).
        name: below its data set.
        truth, answered: class, or labels with commas.
        probability: of what was answered; None of several labels.
        of_truth: of the truth likewise.
        loss: its log-loss in nats.
    """

    image: ImageFile
    inside: str | None
    name: str
    truth: str
    answered: str
    probability: float | None
    of_truth: float | None
    loss: float


def hardest_images(
    data: Path,
    split: Split,
    places: NDArray[np.int64],
    logits: NDArray[Any],
    labels: Sequence[str],
    thresholds: NDArray[Any] | None = None,
) -> tuple[HardImage, ...]:
    """A quarter of the images at most, the hardest first; of equals in their order.

    Args:
        data: the data set, which names are told from.
        split: of the images that judged: val, or train.
        places: which of its images those are, [images].
        logits: their answers, behind the temperature, [images, C].
        labels: C names.
        thresholds: of several labels an image, [C].
    """
    if not len(places) or not np.isfinite(logits).all():
        return ()
    truth = split.targets[places]
    losses = log_losses(logits.astype(np.float64), truth)
    most = min(_MOST, math.ceil(len(places) / 4))
    ranked = np.argsort(-losses, kind="stable")[:most]
    found = []
    for i in ranked:
        image = split.images[int(places[i])]
        told = _told(logits[i], truth[i], labels, thresholds)
        found.append(
            HardImage(image, split.inside, name_within(data, image), *told, float(losses[i]))
        )
    return tuple(found)


def _told(
    logits: NDArray[Any], truth: Any, labels: Sequence[str], thresholds: NDArray[Any] | None
) -> tuple[str, str, float | None, float | None]:
    """Truth, answer, and the probabilities of the answer and of the truth."""
    if thresholds is None:
        shares = softmax(logits[None].astype(np.float64))[0]
        best = int(shares.argmax())
        return labels[int(truth)], labels[best], float(shares[best]), float(shares[int(truth)])
    given = sigmoid(logits) >= thresholds
    both = [
        [label for label, has in zip(labels, row, strict=True) if has] for row in (truth, given)
    ]
    names = [", ".join(row) or "nothing" for row in both]
    return names[0], names[1], None, None


def cards(images: Sequence[HardImage]) -> list[dict[str, Any]]:
    """What the page shows of them: small pictures of their pixels alone, and texts."""
    return [
        {
            "image": thumbnail(one.image, inside=one.inside),
            "name": _short(one.name),
            "truth": _short(one.truth),
            "answered": _short(one.answered),
            "right": one.truth == one.answered,
            "probability": "" if one.probability is None else percent(one.probability),
            "of_truth": "" if one.of_truth is None else percent(one.of_truth),
            "loss": f"{one.loss:.2f}",
        }
        for one in images
    ]


def _short(name: str) -> str:
    """Both ends of a long name."""
    half = _LONGEST // 2
    return name if len(name) <= _LONGEST else f"{name[: half - 1]}…{name[-half:]}"
