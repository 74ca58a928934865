"""How right answers are where an image may have several labels, label by label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.scores.label_sets import decided, f1_interval
from vptkit.scores.multilabel import average_precisions, f1_scores, mean_average_precision
from vptkit.scores.score_interval import wilson

from .evaluation_result import few, notes_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile

    from .rejection_rates import RejectionRates

__all__ = ["MultilabelEvaluation", "MultilabelMistake"]

_MOST = 20  # mistakes in a document; all of them are in --save


class MultilabelMistake(NamedTuple):
    """An image that is not given exactly its labels.

    Attributes:
        image: the file.
        truth, answered: names of labels, in their order.
        distance: of the score that is furthest off among the wrong decisions, from 0 or 1.
    """

    image: ImageFile
    truth: tuple[str, ...]
    answered: tuple[str, ...]
    distance: float

    def to_json(self) -> dict[str, Any]:
        """As `vptkit eval --json` and `--save wrong.jsonl` have it."""
        return {
            "path": str(self.image),
            "truth": list(self.truth),
            "answered": list(self.answered),
            "missing": [label for label in self.truth if label not in self.answered],
            "extra": [label for label in self.answered if label not in self.truth],
            "distance": self.distance,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class MultilabelEvaluation:
    """How right a bundle is, of images that may have several labels.

    Attributes:
        data: what was judged on: a file or folder.
        split: which split of it; None if there are none.
        labels: C names.
        thresholds: score from which on each is given, [C].
        images: N files.
        scores: float32 [N, C].
        truth: whether an image has a label, [N, C].
        skipped: broken images, which were left out.
        rejection: what `--reject` does to these images, where that was asked for.
    """

    data: Path
    split: str | None
    labels: tuple[str, ...]
    thresholds: NDArray[np.float32]
    images: tuple[ImageFile, ...]
    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]
    skipped: tuple[ImageFile, ...] = ()
    rejection: RejectionRates | None = None

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.images)

    @cached_property
    def given(self) -> NDArray[np.bool_]:
        """Which labels are given to each image, [N, C]."""
        return decided(self.scores, self.thresholds)

    @property
    def exact(self) -> int:
        """Images that are given exactly their labels."""
        return int((self.given == self.truth).all(axis=1).sum())

    @cached_property
    def average_precisions(self) -> NDArray[np.float64]:
        """Of each label, [C]; NaN where no image has it. Thresholds do not matter to it."""
        return average_precisions(self.scores, self.truth)

    @property
    def mean_average_precision(self) -> float | None:
        """Their mean over the labels that some image has; None where there are none."""
        found = mean_average_precision(self.scores, self.truth)
        return found if np.isfinite(found) else None

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together."""
        return f1_scores(self.given, self.truth).micro

    @property
    def macro_f1(self) -> float:
        """Mean of the labels' F1; 0 of one that no image has and none is given."""
        return f1_scores(self.given, self.truth).macro

    @cached_property
    def micro_f1_interval(self) -> tuple[float, float]:
        """95 %, by drawing the images anew 1,000 times (percentile bootstrap)."""
        return f1_interval(self.given, self.truth)

    @property
    def log_loss(self) -> float:
        """Mean binary cross-entropy of a decision, in nats."""
        p = np.where(self.truth, self.scores, 1 - self.scores).astype(np.float64)
        return float(-np.log(np.maximum(p, np.finfo(np.float32).tiny)).mean())

    @property
    def classes(self) -> dict[str, dict[str, Any]]:
        """Label → how many images have it and are given it, and what of both is right.

        Precision is None of a label that is never given, recall and average precision of one that no
        image has.
        """
        return {label: self._of_label(i) for i, label in enumerate(self.labels)}

    def _of_label(self, i: int) -> dict[str, Any]:
        truth, given = self.truth[:, i], self.given[:, i]
        there, said, right = int(truth.sum()), int(given.sum()), int((truth & given).sum())
        return {
            "count": there,
            "given": said,
            "right": right,
            "threshold": float(self.thresholds[i]),
            "precision": right / said if said else None,
            "recall": right / there if there else None,
            "f1": 2 * right / (there + said) if there + said else None,
            "average_precision": float(self.average_precisions[i]) if there else None,
        }

    @property
    def absent(self) -> list[str]:
        """Labels that no image has."""
        return [self.labels[i] for i in np.flatnonzero(~self.truth.any(axis=0))]

    @cached_property
    def mistakes(self) -> tuple[MultilabelMistake, ...]:
        """Every image that is not given exactly its labels, the one that is furthest off first."""
        wrong = self.given != self.truth
        distances = np.where(wrong, np.abs(self.truth - self.scores), 0.0).max(axis=1)
        rows = np.flatnonzero(wrong.any(axis=1))
        return tuple(
            MultilabelMistake(
                self.images[i],
                self._names(self.truth[i]),
                self._names(self.given[i]),
                float(distances[i]),
            )
            for i in rows[np.argsort(-distances[rows], kind="stable")]
        )

    def _names(self, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(self.labels[i] for i in np.flatnonzero(chosen))

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        told = None
        if self.absent:
            judged = len(self.labels) - len(self.absent)
            told = (
                f"no image has {few(self.absent)}: mean average precision is of {judged} of "
                f"{len(self.labels)} labels"
            )
        return notes_of(self.data, self.split, self.skipped, told)

    def to_json(self) -> dict[str, Any]:
        """As `vptkit eval --json` prints it, without the bundle."""
        return {
            "data": str(self.data),
            "split": self.split,
            "task": "multilabel",
            "count": self.count,
            "map": self.mean_average_precision,
            "micro_f1": self.micro_f1,
            "micro_f1_interval": list(self.micro_f1_interval),
            "macro_f1": self.macro_f1,
            "exact": self.exact,
            "exact_interval": list(wilson(self.exact, self.count)),
            "log_loss": self.log_loss,
            "classes": self.classes,
            "absent": self.absent,
            "rejection": None if self.rejection is None else self.rejection.to_json(),
            "skipped": [str(image) for image in self.skipped],
            "mistakes": [mistake.to_json() for mistake in self.mistakes[:_MOST]],
        }
