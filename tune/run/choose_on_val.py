"""The third step of a run: val chooses epoch, λ or α, head, temperature; then test and ood, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.scores.label_report import label_report
from vptkit.scores.multilabel import best_thresholds, sigmoid
from vptkit.scores.temperature import fit_temperature
from vptkit.tune.data.cross_validation_parts import cross_validation_parts
from vptkit.tune.phases.choose_line import choose_line
from vptkit.tune.phases.head_refit import refit_head
from vptkit.tune.phases.soup import make_soup
from vptkit.tune.training.loop import split_logits, top1_and_loss

from .choose_lambda import choose_rescale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.data.splits import Split
    from vptkit.tune.methods.tuned_model import Tuned
    from vptkit.tune.phases.phased_training import Trained
    from vptkit.tune.training.train_state import CrossValidation
    from vptkit.tune.training_page.hardest_images import HardImage

__all__ = ["Chosen", "choose_on_val", "judged_labels", "temper", "top1_on", "unseen_logits"]
__all__ += ["unseen_places"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What val chose; the model holds it.

    Attributes:
        best_epoch: whose parameters were taken, from 1; 0 for the probe before the first.
        soup: the epochs whose average was taken, the best one first; None if that is the only one.
        val_top1: accuracy on val with everything that was chosen, a share; without val, of the
            models that had not seen the image; None if there is no such (one image a class).
        layer_norms: shift, λ and its curve (`Rescaled.to_json`), and the FSR proxy where there is a
            full set; None if no LayerNorms are tuned.
        line: α, and the curve along the line (`Line.to_json`); None if none was walked.
        confidence: temperature, and what it did (`Temperature.to_json`); None if none was sought.
        warnings: of `vptkit.tune.phases.judge_training`.
        by_class: class → right answers, of val or of what was held out.
        judges: how many images judged, val's or those that were held out.
        hardest: some of them, for the page.
        thresholds: of several labels an image, probabilities, float32 [C]; None of one label.
        multilabel: mAP and F1 of each split, and of each label (`vptkit.scores.label_report`); None of
            one label. Then `val_top1` is the mAP of val before the last choices, and the others are None.
        test_top1, ood_top1: accuracy there, asked when all was chosen; None if there is no such
            split, or it shall not be looked at.
    """

    best_epoch: int
    val_top1: float | None
    layer_norms: dict[str, Any] | None
    line: dict[str, Any] | None = None
    confidence: dict[str, Any] | None = None
    soup: list[int] | None = None
    warnings: tuple[str, ...] = ()
    by_class: dict[str, int] = field(default_factory=dict)
    judges: int = 0
    hardest: tuple[HardImage, ...] = ()
    thresholds: NDArray[np.float32] | None = None
    multilabel: dict[str, Any] | None = None
    test_top1: float | None = None
    ood_top1: float | None = None


def choose_on_val(
    trained: Trained, sets: Mapping[str, DataSet], config: TuneConfig, progress: Progress
) -> Chosen:
    """Take the best epoch, or the best ones' average; choose λ or α where asked, and then train the head again where asked.

    Args:
        trained: its model is left with what was chosen.
        sets: train and val; of test and ood only the curve along λ or α is noted, to be looked at.
        config: `rescale` and `refit_epochs`.
        progress: told about each λ or α, and each step.

    Returns:
        what was chosen, without accuracies on test and ood.
    """
    tuned, state = trained
    tuned.load_state_dict(state.best)
    assert state.best_record is not None  # noqa: S101 - an epoch or a probe there was
    val_top1, soup = state.best_record["val_top1"], [state.best_epoch]
    if state.runners_up and "val" in sets:
        soup, val_top1 = make_soup(tuned, state, sets, config, progress)
    norms: dict[str, Any] | None = None
    if tuned.layer_norms is not None:
        rescaled = choose_rescale(tuned, tuned.layer_norms, sets, config, progress)
        val_top1 = val_top1 if rescaled.val_top1 is None else rescaled.val_top1
        norms = rescaled.to_json(config.rescale)
    line: dict[str, Any] | None = None
    if config.rescale == "all":
        walked = choose_line(tuned, state.start_parameters, sets, config, progress)
        val_top1, line = walked.chosen.top1, walked.to_json()
    if config.refit_epochs:
        val_top1 = refit_head(tuned, sets, config, progress)
    return Chosen(
        best_epoch=state.best_epoch,
        val_top1=val_top1,
        layer_norms=norms,
        line=line,
        soup=soup if len(soup) > 1 else None,
    )


def temper(
    tuned: Tuned,
    sets: Mapping[str, DataSet],
    config: TuneConfig,
    held: CrossValidation | None = None,
    judges: tuple[NDArray[np.float32], NDArray[Any]] | None = None,
) -> dict[str, Any] | None:
    """Fit a temperature on val and divide the head by it: no answer changes, only how sure it sounds.

    Args:
        tuned: with all else chosen.
        sets: val is asked.
        config: `calibrate`.
        held: where there is no val, what held-out images said.
        judges: the answer of `unseen_logits`, if it was asked already.

    Returns:
        `Temperature.to_json` and the split that it was fitted on; None if none is wanted, or a logit on val is not finite.
    """
    if config.calibrate == "none":
        return None
    fitted = fit_temperature(*(judges or unseen_logits(tuned, sets, config, held)))
    if fitted is None:
        return None
    tuned.divide_logits(fitted.temperature)
    return {**fitted.to_json(), "split": "val" if "val" in sets else "cross-validation"}


def top1_on(
    split: str, tuned: Tuned, sets: Mapping[str, DataSet], config: TuneConfig
) -> float | None:
    """Accuracy on a split, None if there is none; asked once, after everything is decided."""
    return top1_and_loss(tuned, sets[split], config.batch_to_ask)[0] if split in sets else None


def judged_labels(
    tuned: Tuned,
    sets: Mapping[str, DataSet],
    config: TuneConfig,
    labels: Sequence[str],
    judges: tuple[NDArray[np.float32], NDArray[Any]],
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Thresholds by F1 on images that were not trained on, and all figures at these.

    Args:
        tuned: with all else chosen, its temperature too; asked about test and ood, once.
        sets: of the run.
        config: `batch_to_ask`.
        labels: C names.
        judges: of `unseen_logits`, behind the temperature.

    Returns:
        float32 [C], and `vptkit.scores.label_report.label_report` of val (or of what was held out), test
        and ood.
    """
    logits, truth = judges
    thresholds = best_thresholds(sigmoid(logits), truth)
    answers = {"val": (sigmoid(logits), truth)}
    for name in ("test", "ood"):
        if name in sets:
            found = split_logits(tuned, sets[name], config.batch_to_ask)
            answers[name] = sigmoid(found), sets[name].split.targets
    return thresholds, label_report(labels, thresholds, answers)


def unseen_logits(
    tuned: Tuned,
    sets: Mapping[str, DataSet],
    config: TuneConfig,
    held: CrossValidation | None,
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Logits of images that were not trained on, [images, C], and their classes (or labels, [images, C]).

    Args:
        tuned: asked about val.
        sets, config: of the run.
        held: where there is no val: then the models without their part have answered.
    """
    if held is None:
        val = sets["val"]
        return split_logits(tuned, val, config.batch_to_ask), val.split.targets
    split, places = unseen_places(sets, config, held)
    return held.logits.numpy(), split.targets[places]


def unseen_places(
    sets: Mapping[str, DataSet], config: TuneConfig, held: CrossValidation | None
) -> tuple[Split, NDArray[np.int64]]:
    """Where the images of `unseen_logits` are: the split, and their places in it, in the same order.

    Args:
        sets, config, held: of `unseen_logits`.
    """
    if held is None:
        return sets["val"].split, np.arange(len(sets["val"]))
    split = sets["train"].split
    parts = cross_validation_parts(split.targets, config.seed)
    return split, np.flatnonzero(parts >= 0)
