"""`export --reject-from`: what a bundle must know to say "none of these".

Class means, a whitening and the distances of `val` go into `rejection.safetensors`; how well it works
on classes that it does not know is measured with each class left out in its turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.errors import DataError
from vptkit.export.numerics.evidence import answers_of
from vptkit.formats.manifest_schema import FEATURES
from vptkit.formats.tensor_file import write_tensors
from vptkit.scores.typicality import fit_typicality, held_out_rates
from vptkit.strict_json import canonical_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.export.numerics.evidence import Images, Run
    from vptkit.scores.typicality import Typicality

__all__ = ["Rejection", "rejection_of", "write_rejection"]

RATE = 0.05  # at which the report says how much of other classes is accepted


class Rejection(NamedTuple):
    """What was fitted, and the report on it."""

    typicality: Typicality
    report: dict[str, Any]


def rejection_of(run: Run, train: Images, val: Images, *, several: bool = False) -> Rejection:
    """Fit on the features of `train`; distances and report are of `val`.

    Args:
        run: the opened fp32 graph.
        train, val: labelled images (`Images.truth`) of the adapter's classes.
        several: images may have several labels: then all of `train` is one class, and none is left
            out in its turn.

    Raises:
        DataError: the classes of the images are unknown, or no class has two different images.
    """
    known: list[tuple[NDArray[np.float64], NDArray[np.intp]]] = []
    for images in (train, val):
        truth = np.zeros(images.count, dtype=np.intp) if several else images.truth
        if truth is None:
            raise DataError("--reject-from: its classes are not the labels of the adapter")
        known.append((answers_of(run, images)[FEATURES], truth))
    (features, classes), (others, other_classes) = known
    fitted = fit_typicality(features, classes, others)
    if fitted is None:
        raise DataError("--reject-from: no class has two different images in train; at least one")
    rates = held_out_rates(features, classes, others, other_classes, RATE)
    return Rejection(
        fitted,
        {
            "statistic": "mahalanobis",
            "train": {"count": train.count, "images": train.digest},
            "val": {"count": val.count, "images": val.digest},
            "least_rate": fitted.least_rate,
            "rate": RATE,
            "false_accept": float(np.mean(rates)) if rates else None,
            "classes_left_out": len(rates),
        },
    )


def write_rejection(path: Path, rejection: Rejection) -> None:
    """Write the tensors, and the report as metadata.

    Raises:
        OutputError: the disk is full or not writable.
    """
    found, report = rejection
    tensors: dict[str, NDArray[Any]] = {
        "means": found.means,
        "whitening": found.whitening,
        "known": found.known,
    }
    write_tensors(path, tensors, ("vptkit", canonical_json(report)))
