"""How often answers are right, in which classes, and how sure they were."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.images.broken_images import skipped_text
from vptkit.images.labelled_images import split_of_name
from vptkit.scores.calibration_error import calibration_bins, expected_calibration_error
from vptkit.scores.probabilities import log_softmax
from vptkit.scores.score_interval import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.scores.calibration_error import CalibrationBin

    from .rejection_rates import RejectionRates

__all__ = ["ANSWER", "Confused", "Evaluation", "Mistake", "answers_to", "few", "judge", "notes_of"]

ANSWER = np.dtype(
    [("label", np.intp), ("probability", "f8"), ("log_loss", "f8"), ("among_five", "?")]
)
_MOST = 20  # confused pairs and mistakes in a document; all mistakes are in --save


class Mistake(NamedTuple):
    """An image whose answer is wrong.

    Attributes:
        image: the file.
        truth, answered: class names.
        probability: of the answer, which is the highest one.
    """

    image: ImageFile
    truth: str
    answered: str
    probability: float

    def to_json(self) -> dict[str, Any]:
        """As `vptkit eval --json` and `--save wrong.jsonl` have it."""
        return {
            "path": str(self.image),
            "truth": self.truth,
            "answered": self.answered,
            "probability": self.probability,
        }


@dataclass(frozen=True, slots=True)
class Confused:
    """Two classes, and how many images of the first were taken for the second."""

    truth: str
    answered: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """How often a bundle is right. Intervals are Wilson's, 95 %.

    Attributes:
        data: the folder of classes, or the file or folder that lists them.
        split: which split of the data that is; None if there are none.
        labels: C class names.
        confusion: images by class (rows) and answer (columns), [C, C].
        among_five: images whose class is among the five best answers.
        log_loss: mean cross-entropy, in nats.
        ece: expected calibration error (`vptkit.scores.calibration_error`).
        mistakes: every wrong answer, the most confident first.
        calibration: the bins behind `ece`.
        skipped: broken images, which were left out.
        rejection: what `--reject` does to these images, where that was asked for.
    """

    data: Path
    split: str | None
    labels: tuple[str, ...]
    confusion: NDArray[np.intp]
    among_five: int
    log_loss: float
    ece: float
    mistakes: tuple[Mistake, ...]
    calibration: tuple[CalibrationBin, ...] = ()
    skipped: tuple[ImageFile, ...] = ()
    rejection: RejectionRates | None = None

    @property
    def count(self) -> int:
        """How many images."""
        return int(self.confusion.sum())

    @property
    def right(self) -> int:
        """How many of them have the right answer."""
        return int(np.trace(self.confusion))

    @property
    def top1(self) -> float:
        """Share of images whose class is the best answer."""
        return self.right / self.count

    @property
    def top5(self) -> float:
        """Share of those whose class is among the five best; with fewer than six classes it is 1."""
        return self.among_five / self.count

    @property
    def classes(self) -> dict[str, dict[str, Any]]:
        """Class name → {"count", "right", "top1", "interval"}, for classes with images."""
        counts, right = self.confusion.sum(axis=1), np.diagonal(self.confusion)
        return {
            label: {
                "count": int(n),
                "right": int(k),
                "top1": int(k) / int(n),
                "interval": list(wilson(int(k), int(n))),
            }
            for label, n, k in zip(self.labels, counts, right, strict=True)
            if n
        }

    @property
    def absent(self) -> list[str]:
        """Labels of which there is no image."""
        return [self.labels[i] for i in np.flatnonzero(self.confusion.sum(axis=1) == 0)]

    @property
    def confused(self) -> list[Confused]:
        """Pairs of classes, those that are confused most often first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        rows, columns = np.nonzero(wrong)
        order = np.argsort(-wrong[rows, columns], kind="stable")
        return [
            Confused(self.labels[i], self.labels[k], int(wrong[i, k]))
            for i, k in zip(rows[order], columns[order], strict=True)
        ]

    @property
    def notes(self) -> list[str]:
        """What a reader of the accuracy must know."""
        told = None
        if self.absent:
            judged = len(self.labels) - len(self.absent)
            told = (
                f"judged on {judged} of {len(self.labels)} classes; no images of {few(self.absent)}"
            )
        return notes_of(self.data, self.split, self.skipped, told)

    def to_json(self) -> dict[str, Any]:
        """As `vptkit eval --json` prints it, without the bundle."""
        return {
            "data": str(self.data),
            "split": self.split,
            "count": self.count,
            "right": self.right,
            "top1": self.top1,
            "top1_interval": list(wilson(self.right, self.count)),
            "top5": self.top5,
            "top5_interval": list(wilson(self.among_five, self.count)),
            "log_loss": self.log_loss,
            "ece": self.ece,
            "calibration": [asdict(one) for one in self.calibration],
            "classes": self.classes,
            "absent": self.absent,
            "rejection": None if self.rejection is None else self.rejection.to_json(),
            "skipped": [str(image) for image in self.skipped],
            "confused": [asdict(pair) for pair in self.confused[:_MOST]],
            "mistakes": [mistake.to_json() for mistake in self.mistakes[:_MOST]],
            "confusion": {"labels": list(self.labels), "counts": self.confusion.tolist()},
        }


def answers_to(logits: NDArray[np.float32], truth: NDArray[np.intp]) -> NDArray[np.void]:
    """What logits say of some images, and how right that is; of equal logits the first label.

    Args:
        logits: finite, [images, C].
        truth: index of each image's class, [images].

    Returns:
        a record of type ANSWER for each image.
    """
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    logs = log_softmax(logits)
    rows = np.arange(len(logits))
    answers = np.empty(len(logits), dtype=ANSWER)
    answers["label"] = best[:, 0]
    answers["probability"] = np.exp(logs[rows, best[:, 0]])
    answers["log_loss"] = -logs[rows, truth]
    answers["among_five"] = (best == truth[:, None]).any(axis=1)
    return answers


def judge(
    data: Path,
    split: str | None,
    labels: tuple[str, ...],
    images: Sequence[ImageFile],
    truth: NDArray[np.intp],
    answers: NDArray[np.void],
) -> Evaluation:
    """Count.

    Args:
        data, split, labels: of the evaluation.
        images: the files.
        truth: index of each one's class, [images].
        answers: of `answers_to`, [images].
    """
    size, answered, sure = len(labels), answers["label"], answers["probability"]
    pairs = np.bincount(truth * size + answered, minlength=size * size)
    wrong = np.flatnonzero(answered != truth)
    return Evaluation(
        data=data,
        split=split,
        labels=labels,
        confusion=pairs.reshape(size, size),
        among_five=int(answers["among_five"].sum()),
        log_loss=float(answers["log_loss"].mean()),
        ece=expected_calibration_error(sure, answered == truth),
        calibration=calibration_bins(sure, answered == truth),
        mistakes=tuple(
            Mistake(images[i], labels[truth[i]], labels[answered[i]], float(sure[i]))
            for i in wrong[np.argsort(-sure[wrong], kind="stable")]
        ),
    )


def notes_of(
    data: Path, split: str | None, skipped: Sequence[ImageFile], absent: str | None
) -> list[str]:
    """What a reader of figures must know: broken images, absent labels, and what was learned from.

    Args:
        data, split, skipped: of `Evaluation`.
        absent: what is to be said of labels without an image, if there are any.
    """
    told = [skipped_text(data, skipped)] if skipped else []
    if absent is not None:
        told.append(absent)
    if split is not None and split_of_name(split) == "train":
        told.append("what was learned from; on other images it is right less often")
    return [f"{data}: {text}" for text in told]


def few(names: Sequence[str]) -> str:
    """The first ten of some names."""
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
