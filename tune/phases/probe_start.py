"""Every training begins as the linear probe: its head is what a head alone can make of the features.

Linear probing, then tuning (Kumar et al., ICLR 2022): with a head that knows nothing the first
steps push prompts and norms around for a head that is noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vptkit.tune.probe.fit_probe import Rows, fit_probe
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
    from vptkit.tune.training.train_state import TrainState

__all__ = ["NEIGHBOURS", "put_head", "start_from_probe"]

NEIGHBOURS = (10, 20)


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
        sets: train, and val, which chooses the strength.
        config: `augment`, `class_weights` and `calibrate`.
        state: `start`, and with it the best so far.
        progress: told about each step.
    """
    classes = tuned.head.out_features
    val = feature_rows(tuned, sets["val"], config, progress, augmented=False)
    train = feature_rows(tuned, sets["train"], config, progress, augmented=True)
    plain = Rows(*(part[: len(sets["train"])] for part in train))
    neighbours = {str(k): knn_top1(plain, val, classes, k) for k in NEIGHBOURS}
    progress.update(0, "probe")
    weights = class_weights(config, sets["train"].split.targets, classes)
    tempered = config.calibrate == "temperature"
    probe = fit_probe(train, val, classes, weights, tempered=tempered)
    put_head(tuned, probe.weight, probe.bias)
    top1, loss = probe.chosen.val_top1, probe.chosen.val_loss
    if tuned.prompts is not None:  # which the features of the probe were without
        top1, loss = top1_and_loss(tuned, sets["val"], config.batch_to_ask)
    record = {"epoch": 0, "val_top1": top1, "val_loss": loss}
    state.start = {**record, "probe": {**probe.to_json(), "knn_top1": neighbours}}
    keep_if_best(tuned, config, state)


@torch.no_grad()
def put_head(tuned: Tuned, weight: Tensor, bias: Tensor) -> None:
    """Give the model that head; in all processes of torchrun the bytes of the first."""
    for parameter, value in ((tuned.head.weight, weight), (tuned.head.bias, bias)):
        parameter.copy_(value if leads() else torch.zeros_like(value))
        sum_over_processes([parameter.data])
