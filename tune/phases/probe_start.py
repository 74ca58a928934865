"""Every training begins as the linear probe: its head is what a head alone can make of the features.

Linear probing, then tuning (Kumar et al., ICLR 2022): with a head that knows nothing the first
steps push prompts and norms around for a head that is noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vptkit.progress import begin_phase
from vptkit.scores.probabilities import top1_and_log_loss
from vptkit.tune.data.cross_validation_parts import cross_validation_parts
from vptkit.tune.probe.fit_probe import Rows, fit_probe
from vptkit.tune.probe.label_probe import fit_label_probe
from vptkit.tune.probe.nearest_neighbours import knn_top1
from vptkit.tune.training.distributed import leads, sum_over_processes
from vptkit.tune.training.frozen_features import feature_rows
from vptkit.tune.training.loop import keep_if_best, top1_and_loss
from vptkit.tune.training.optimizer_step import class_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.tuned_model import Tuned
    from vptkit.tune.probe.fit_probe import Probe
    from vptkit.tune.training.train_state import TrainState

__all__ = ["NEIGHBOURS", "fitted_probe", "put_head", "start_from_probe"]

NEIGHBOURS = (10, 20)
_FEW = 2000  # training images: with more, val is large enough to choose by


def start_from_probe(
    tuned: Tuned,
    sets: Mapping[str, DataSet],
    config: TuneConfig,
    state: TrainState,
    progress: Progress,
) -> None:
    """Put the probe into the head, and note it as the state before the first epoch.

    Args:
        tuned: whose head.
        sets: train, and val, which chooses the strength, of few images together with held-out parts
            of train.
        config: `augment`, `class_weights` and `calibrate`.
        state: `start`, and with it the best so far.
        progress: told about each step.
    """
    classes = tuned.head.out_features
    val = feature_rows(tuned, sets["val"], config, progress, augmented=False)
    train = feature_rows(tuned, sets["train"], config, progress, augmented=True)
    plain = Rows(*(part[: len(sets["train"])] for part in train))
    one = val.targets.dim() == 1  # label an image: neighbours vote
    neighbours = {str(k): knn_top1(plain, val, classes, k) for k in NEIGHBOURS if one}
    begin_phase(progress, "probe")
    progress.update(0, "probe")
    parts = _parts(sets["train"], config, val.targets.device)
    probe = fitted_probe(train, sets["train"], config, classes, val=val, parts=parts)
    put_head(tuned, probe.weight, probe.bias)
    logits = torch.addmm(probe.bias, val.features, probe.weight.T)
    own = top1, loss = top1_and_log_loss(logits.cpu().numpy(), val.targets.cpu().numpy())
    if tuned.prompts is not None:  # which the features of the probe were without
        top1, loss = top1_and_loss(tuned, sets["val"], config.batch_to_ask)
    about = {**probe.to_json(), "val_top1": own[0], "val_loss": own[1], "knn_top1": neighbours}
    state.start = {"epoch": 0, "val_top1": top1, "val_loss": loss, "probe": about}
    keep_if_best(tuned, config, state)


def fitted_probe(
    rows: Rows,
    train: DataSet,
    config: TuneConfig,
    classes: int,
    *,
    val: Rows | None = None,
    parts: Tensor | None = None,
) -> Probe:
    """The probe: one logistic regression, or with several labels an image one for each.

    Args:
        rows: features of `train`, which are overwritten.
        train: the training images.
        config: `class_weights` and `calibrate`.
        classes: C
        val, parts: of `vptkit.tune.probe.fit_probe.fit_probe`.
    """
    tempered = config.calibrate == "temperature"
    if rows.targets.dim() == 2:
        return fit_label_probe(rows, val=val, parts=parts, tempered=tempered)
    weights = class_weights(config, train.split.targets, classes)
    return fit_probe(rows, classes, val=val, parts=parts, weights=weights, tempered=tempered)


def _parts(train: DataSet, config: TuneConfig, device: torch.device) -> Tensor | None:
    """Which part of `train` each image is held out with; None where val is enough."""
    if len(train) > _FEW:
        return None
    return torch.from_numpy(cross_validation_parts(train.split.targets, config.seed)).to(device)


@torch.no_grad()
def put_head(tuned: Tuned, weight: Tensor, bias: Tensor) -> None:
    """Give the model that head; in all processes of torchrun the bytes of the first."""
    for parameter, value in ((tuned.head.weight, weight), (tuned.head.bias, bias)):
        parameter.copy_(value if leads() else torch.zeros_like(value))
        sum_over_processes([parameter.data])
