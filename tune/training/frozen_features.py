"""Features of whole splits, computed once while nothing behind them changes.

For the probe that a training begins with, and for phases in which the head learns alone.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vptkit.images.preprocess import normalize
from vptkit.progress import begin_phase
from vptkit.scores.probabilities import top1_and_log_loss
from vptkit.tune.probe.fit_probe import Rows

from .device import device_of
from .distributed import share, sum_over_processes
from .loop import gathered, judged
from .optimizer_step import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.tuned_model import Tuned

__all__ = ["feature_batches", "feature_evaluation", "feature_rows"]

_BATCH = 64  # at most; else twice what a step computes at once, which keeps more of each image
_IN_MEMORY = 2 << 30  # bytes of features; more of them lie in a file without a name
_VIEWS = {"none": 1, "flip": 2, "crop": 4}  # of each training image: plain, mirrored, two crops


@torch.no_grad()
def feature_rows(
    model: Tuned, data: DataSet, config: TuneConfig, progress: Progress, *, augmented: bool
) -> Rows:
    """Features of the backbone alone, without prompts, of every image.

    Args:
        model: whose backbone.
        data: the split.
        config: `augment` says which views of an image there are, `seed` draws the crops.
        progress: told about each batch; nothing is counted.
        augmented: all views, not only the plain one.

    Returns:
        float32 [V n, d], view after view, on the model's device (of more than 2 GiB on a CPU: in a
        temporary file), and the class (or the labels) of each row.
    """
    begin_phase(progress, "features")
    model.eval()
    views, count = _VIEWS[config.augment] if augmented else 1, len(data)
    features = _space(views * count, model.head.in_features, device_of(model))
    for view, rows in enumerate(features.split(count)):
        done, told = 0, f"view {view + 1} of {views}, " if views > 1 else ""
        for pixels in _pixels(data, config, view):
            found = model.frozen_features(pixels.to(features.device))
            rows[share()[0] :: share()[1]][done : done + len(found)] = found
            done += len(found)
            progress.update(0, f"{told}{done} of {count} images")
        sum_over_processes([rows])
    targets = torch.from_numpy(data.split.targets).to(features.device)
    return Rows(features, torch.cat([targets] * views))


def _space(rows: int, width: int, device: torch.device) -> Tensor:
    """Float32 zeros [rows, width]."""
    if device.type != "cpu" or 4 * rows * width <= _IN_MEMORY:
        return torch.zeros(rows, width, device=device)
    with tempfile.TemporaryFile() as file:  # the memory keeps it, without a name
        file.truncate(4 * rows * width)
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(rows, width)))


def _pixels(
    data: DataSet, config: TuneConfig, view: int, size: int | None = None
) -> Iterator[Tensor]:
    """This process's share of the images, in order: normalised, float [b, 3, H, W]."""
    size = size or min(2 * config.batch_to_ask, _BATCH)
    batches = data.evaluation_batches(
        size, view=view, seed=config.seed, crop_scale=config.crop_scale, share=share()
    )
    for images, _ in batches:
        yield torch.from_numpy(normalize(images, data.preprocess))


@torch.no_grad()
def feature_batches(
    model: Tuned, data: DataSet, config: TuneConfig
) -> Callable[[int], Iterator[Batch]]:
    """Training batches of features, computed once, plain and mirrored: while the head learns alone."""
    (k, processes), device = share(), device_of(model)
    count = 2 if config.augment == "flip" else 1
    views = torch.zeros(count, len(data), model.head.in_features, device=device)
    for number, view in enumerate(views):
        view[k::processes] = _features(model, data, config, number)
    sum_over_processes([views])
    targets, size = torch.from_numpy(data.split.targets), config.batch_of(len(data))

    def batches(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([config.seed, epoch])
        order = torch.from_numpy(rng.permutation(len(data)))
        view = torch.from_numpy(rng.integers(len(views), size=len(data)))
        for part, chosen in zip(torch.split(order, size), torch.split(view, size), strict=True):
            own = part[k::processes]
            yield Batch(views[chosen[k::processes], own], targets[own], len(part))

    return batches


@torch.no_grad()
def feature_evaluation(
    model: Tuned, data: DataSet, config: TuneConfig
) -> Callable[[], tuple[float, float]]:
    """What `top1_and_loss` says of a split while only the head learns: features are computed once."""
    features, (k, processes) = _features(model, data, config), share()
    targets = torch.from_numpy(data.split.targets)[k::processes].to(features.device)

    @torch.no_grad()
    def evaluation() -> tuple[float, float]:
        if targets.dim() == 2:
            shape = len(data), model.head.out_features
            logits = gathered([model.head(features)], shape, features.device)
            return top1_and_log_loss(logits, data.split.targets)
        right, loss = judged([(model.head(features), targets)], len(data), features.device)
        return float(right.mean()), loss

    return evaluation


def _features(model: Tuned, data: DataSet, config: TuneConfig, view: int = 0) -> Tensor:
    """Of this process's share of the images, with the prompts, in order: [own images, d]."""
    model.eval()  # no dropout on what is kept
    device = device_of(model)
    parts = [model.features(x.to(device)) for x in _pixels(data, config, view, config.batch_to_ask)]
    return torch.cat([torch.zeros(0, model.head.in_features, device=device), *parts])
