"""The training loop: AdamW, warm-up and cosine, the epoch chosen on the validation split."""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vptkit.errors import VptkitError
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.images.preprocess import normalize
from vptkit.progress import keep_line, keep_score
from vptkit.scores.probabilities import top1_and_log_loss
from vptkit.scores.score_interval import percent

from .device import device_of
from .distributed import leads, share, sum_over_processes
from .optimizer_step import Batch, Stepper, require_finite, summed_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.tuned_model import Tuned

    from .train_state import TrainState

__all__ = [
    "EpochData",
    "answers",
    "gathered",
    "image_batches",
    "is_best",
    "judged",
    "keep_if_best",
    "out_of_patience",
    "rate_at",
    "split_logits",
    "top1_and_loss",
    "train",
]

_SOUP = 3  # epochs, at most: AutoGluon's number


class EpochData(NamedTuple):
    """What the epochs of a phase are made of.

    Attributes:
        batches: epoch → its batches.
        steps: how many those are.
        validation: (top-1 share, mean cross-entropy) on val of the model as it is; decides which
            epoch is the best. None if nothing can be said: then the last epoch is.
        from_features: the batches hold features, not pixels.
    """

    batches: Callable[[int], Iterator[Batch]]
    steps: int
    validation: Callable[[], tuple[float | None, float | None]]
    from_features: bool


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the base rate at a step: linear warm-up, then cosine to (almost) nothing."""
    ahead = warmup * steps
    if step < ahead:
        return (step + 1) / (ahead + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - ahead) / max(steps - ahead, 1)))


def image_batches(data: DataSet, config: TuneConfig) -> Callable[[int], Iterator[Batch]]:
    """Training batches of normalised pixels; of torchrun's processes each decodes its share.

    Raises:
        VptkitError: a batch has fewer images than there are processes.
    """
    size, (k, processes) = config.batch_of(len(data)), share()
    smallest = min(len(data), (size + 1) // 2)  # a last batch below that is dropped
    if smallest < processes:
        larger = f"pass --batch-size {2 * processes} or more, or "
        cure = larger if len(data) >= processes else ""  # no batch is larger than the set
        raise VptkitError(
            f"{processes} processes, but a batch may have as few as {smallest} of the {len(data)} "
            f"images: {cure}start fewer processes"
        )

    def batches(epoch: int) -> Iterator[Batch]:
        parts = data.training_batches(
            size,
            seed=config.seed,
            epoch=epoch,
            augment=config.augment,
            crop_scale=config.crop_scale,
            share=(k, processes),
        )
        for (images, targets), begin in zip(parts, range(0, len(data), size), strict=False):
            pixels = torch.from_numpy(normalize(images, data.preprocess))
            yield Batch(pixels, torch.from_numpy(targets), min(size, len(data) - begin))

    return batches


def top1_and_loss(model: Tuned, data: DataSet, batch_size: int) -> tuple[float, float]:
    """(top-1 share, mean cross-entropy) over a split; classes are never weighted here.

    With several labels an image: (mean average precision, mean binary cross-entropy).
    """
    if data.split.targets.ndim == 2:
        return top1_and_log_loss(split_logits(model, data, batch_size), data.split.targets)
    right, loss = answers(model, data, batch_size)
    return float(right.mean()), loss


@torch.no_grad()
def answers(model: Tuned, data: DataSet, batch_size: int) -> tuple[NDArray[np.bool_], float]:
    """Which images of a split are answered right, bool [images], and the mean cross-entropy."""
    return judged(_answered(model, data, batch_size), len(data), device_of(model))


@torch.no_grad()
def split_logits(model: Tuned, data: DataSet, batch_size: int) -> NDArray[np.float32]:
    """Logits of all images of a split, in order: [images, C], the same in each of torchrun's processes."""
    own = [logits for logits, _ in _answered(model, data, batch_size)]
    return gathered(own, (len(data), model.head.out_features), device_of(model))


def gathered(
    own: Iterable[Tensor], shape: tuple[int, int], device: torch.device
) -> NDArray[np.float32]:
    """Rows of all images, from this process's share of them in order."""
    (k, processes), noted = share(), torch.zeros(shape, device=device)
    noted[k::processes] = torch.cat([noted[:0], *own])
    sum_over_processes([noted])
    return noted.cpu().numpy()


def _answered(model: Tuned, data: DataSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits, targets) of this process's share of a split, by batches."""
    model.eval()
    device = device_of(model)
    for images, targets in data.evaluation_batches(batch_size, share=share()):
        logits = model(torch.from_numpy(normalize(images, data.preprocess)).to(device))
        yield logits, torch.from_numpy(targets).to(device)


def judged(
    pairs: Iterable[tuple[Tensor, Tensor]], count: int, device: torch.device
) -> tuple[NDArray[np.bool_], float]:
    """`answers`, of all `count` images, from this process's share of (logits, targets)."""
    k, processes = share()
    parts, loss = [torch.zeros(0, dtype=torch.bool, device=device)], 0.0
    for logits, targets in pairs:
        answered = logits.isfinite().all(dim=1)  # the largest of NaNs would be the first class
        parts.append(answered & (logits.argmax(dim=1) == targets))
        loss += float(summed_loss(logits, targets))
    noted = torch.zeros(count + 1, dtype=torch.float64, device=device)  # the last: the loss
    noted[:-1][k::processes] = torch.cat(parts).to(noted.dtype)
    noted[-1] = loss
    sum_over_processes([noted])
    return noted[:-1].cpu().numpy() > 0, float(noted[-1]) / count


def train(
    model: Tuned,
    optimizer: torch.optim.Optimizer,
    data: EpochData,
    config: TuneConfig,
    state: TrainState,
    *,
    progress: Progress,
    after_epoch: Callable[[], Any],
    epochs: range,
    last: int,
    until: int | None = None,
    weights: Tensor | None = None,
    enough: Callable[[TrainState], bool] = lambda _: False,
) -> None:
    """Train from `state.epoch` to the last of `epochs`, or until patience ends; fills in `state`.

    Args:
        model, optimizer: what is trained.
        data: the batches of an epoch, and the measurement that closes it.
        config: of the run.
        state: history and the best parameters; updated after each epoch.
        progress: told after each step.
        after_epoch: called after each epoch, e.g. to save a checkpoint.
        epochs: those of this phase, with a schedule of its own.
        last: the last epoch of the run, to be told.
        until: end after this one, if it comes first; the schedule stays that of all epochs.
        weights: of the classes in the training loss, float32 [C]; None: all 1.
        enough: asked before each epoch whether there shall be none.

    Raises:
        TrainingError: the loss is not finite any more.
    """
    steps = len(epochs) * data.steps
    stepper = Stepper(model, optimizer, config, from_features=data.from_features, weights=weights)
    if state.scaler:
        stepper.scaler.load_state_dict(state.scaler)
    for epoch in range(state.epoch, epochs.stop if until is None else min(until, epochs.stop)):
        if out_of_patience(state, config) or enough(state):
            return
        # All randomness of an epoch hangs on (seed, epoch), so that a resumed run repeats it.
        torch.manual_seed(int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0]))
        model.train()
        losses, right, seen, begun = [], 0.0, 0, time.perf_counter()
        counter = itertools.count((epoch - epochs.start) * data.steps)
        for batch, step in zip(data.batches(epoch), counter, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate_at(step, steps, config.warmup)
            loss, correct = stepper.step(batch, epoch)
            losses.append(loss)
            right += correct
            seen += batch.images
            rate = seen / (time.perf_counter() - begun)
            progress.update(
                batch.images,
                f"epoch {epoch + 1}/{last} loss {np.mean(losses):.3f}"
                f"  train {right / seen:.3f}  {rate:.0f} images/s",
            )
        state.scaler = stepper.scaler.state_dict()
        _close_epoch(model, data, config, state, loss=float(np.mean(losses)), top1=right / seen)
        keep_line(progress, _epoch_line(state, last, config))
        keep_score(progress, _score(state, config))
        if leads():
            after_epoch()


def out_of_patience(state: TrainState, config: TuneConfig) -> bool:
    """Whether `patience` epochs have passed since the best one."""
    return config.patience is not None and state.epoch - state.best_epoch >= config.patience


def _close_epoch(
    model: Tuned,
    data: EpochData,
    config: TuneConfig,
    state: TrainState,
    *,
    loss: float,
    top1: float,
) -> None:
    """Measure on val, note the epoch (`loss` and `top1` are of train), keep the best parameters."""
    val_top1, val_loss = data.validation()
    require_finite(loss if val_loss is None else val_loss, state.epoch, config)
    state.epoch += 1
    state.history.append(
        {
            "epoch": state.epoch,
            "train_loss": loss,
            "train_top1": top1,
            "val_top1": val_top1,
            "val_loss": val_loss,
        }
    )
    keep_if_best(model, config, state)


def keep_if_best(model: Tuned, config: TuneConfig, state: TrainState) -> None:
    """Keep the parameters, if the last record is the best one; of equals the earlier one stays.

    Args:
        model: as it was measured for that record.
        config: `select` says what is better, and whether the next best are kept, too.
        state: `best`, `best_epoch` and `runners_up` are filled in.
    """
    better = not state.best or is_best(config, state)
    if not better and config.select != "soup":
        return
    found = {name: value.clone() for name, value in model.state_dict().items()}
    kept = [(state.best_epoch, state.best)] if state.best else []
    ranks = [*kept, *state.runners_up, (state.epoch, found)]
    ranks.sort(key=lambda one: _merit(state.record_of(one[0]), config), reverse=True)  # stable
    state.best_epoch, state.best = ranks[0]
    state.runners_up = ranks[1:_SOUP] if config.select == "soup" else []


def is_best(config: TuneConfig, state: TrainState) -> bool:
    """Whether the last record is better than the best one before it."""
    record, best = (state.history or [state.start])[-1], state.best_record
    return best is None or _merit(record, config) > _merit(best, config)


def _merit(record: Mapping[str, Any], config: TuneConfig) -> tuple[float, float]:
    if config.select == "last" or record["val_loss"] is None:
        return record["epoch"], 0.0
    top1, loss = record["val_top1"], -record["val_loss"]
    return (top1, loss) if config.select == "top1" else (loss, top1)


def _score(state: TrainState, config: TuneConfig) -> str:
    """The last epoch's val, as "val loss 0.310 88.0 %"; empty where there is none."""
    record = state.history[-1]
    if record["val_loss"] is None:
        return ""
    what = "mAP " if config.task == MULTILABEL else ""
    top1 = record["val_top1"]
    share = "" if top1 is None else f" {what}{percent(top1)}"
    return f"val loss {record['val_loss']:.3f}{share}"


def _epoch_line(state: TrainState, last: int, config: TuneConfig) -> str:
    """What stays of an epoch that is over, with its own val."""
    what = "mAP " if config.task == MULTILABEL else ""
    record = state.history[-1]
    parts = [f"epoch {state.epoch}/{last}"]
    for part in ("train", "val"):
        top1, loss = record[f"{part}_top1"], record[f"{part}_loss"]
        if what and part == "train":
            parts.append(f"train loss {loss:.3f}")
            continue
        parts += [] if top1 is None else [f"{part} {what}{percent(top1)} (loss {loss:.3f})"]
    if record["val_top1"] is not None and state.best_epoch == state.epoch:
        parts.append("best so far")
    return "  ".join(parts)
