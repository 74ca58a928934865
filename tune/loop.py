"""The training loop: AdamW, warm-up and cosine, the best epoch chosen on the validation split."""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vptkit.errors import VptkitError
from vptkit.preprocess import normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vptkit.progress import Progress

    from .checkpoint import TrainState
    from .config import TuneConfig
    from .data import DataSet
    from .tuned import Tuned

__all__ = ["evaluate", "feature_batches", "image_batches", "rate_at", "train"]


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the base rate at a step: linear warm-up, then cosine to (almost) nothing."""
    ahead = warmup * steps
    if step < ahead:
        return (step + 1) / (ahead + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - ahead) / max(steps - ahead, 1)))


def image_batches(
    data: DataSet, config: TuneConfig
) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Training batches of normalised pixels, float [B, 3, H, W]."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in data.training_batches(
            config.batch_size,
            seed=config.seed,
            epoch=epoch,
            augment=config.augment,
            crop_scale=config.crop_scale,
        ):
            yield torch.from_numpy(normalize(images, data.preprocess)), torch.from_numpy(targets)

    return batches


@torch.no_grad()
def feature_batches(
    model: Tuned, data: DataSet, config: TuneConfig
) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Training batches of features, computed once, plain and mirrored: for a linear probe."""
    views = [
        torch.cat(
            [
                model.features(torch.from_numpy(normalize(images, data.preprocess)))
                for images, _ in data.evaluation_batches(config.batch_size, flip=flip)
            ]
        )
        for flip in ([False, True] if config.augment == "flip" else [False])
    ]
    stacked = torch.stack(views)  # [views, images, d]
    targets = torch.from_numpy(data.split.targets)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([config.seed, epoch])
        order = torch.from_numpy(rng.permutation(len(data)))
        view = torch.from_numpy(rng.integers(len(views), size=len(data)))
        for part, chosen in zip(
            torch.split(order, config.batch_size), torch.split(view, config.batch_size), strict=True
        ):
            yield stacked[chosen, part], targets[part]

    return batches


@torch.no_grad()
def evaluate(model: Tuned, data: DataSet, batch_size: int) -> tuple[float, float]:
    """(top-1 share, mean cross-entropy) over a split."""
    model.eval()
    right, loss = 0, 0.0
    for images, targets in data.evaluation_batches(batch_size):
        logits = model(torch.from_numpy(normalize(images, data.preprocess)))
        wanted = torch.from_numpy(targets)
        right += int((logits.argmax(dim=1) == wanted).sum())
        loss += float(F.cross_entropy(logits, wanted, reduction="sum"))
    return right / len(data), loss / len(data)


def train(
    model: Tuned,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]],
    steps_per_epoch: int,
    validation: DataSet,
    config: TuneConfig,
    state: TrainState,
    *,
    from_features: bool,
    progress: Progress,
    after_epoch: Callable[[], Any],
) -> None:
    """Train from `state.epoch` to the last epoch; fills in `state`.

    Args:
        model, optimizer: what is trained.
        batches: epoch → batches.
        steps_per_epoch: number of those batches.
        validation: decides which epoch is the best (accuracy, then loss).
        config: of the run.
        state: history and the best parameters; updated after each epoch.
        from_features: the batches hold features, not pixels.
        progress: told after each step.
        after_epoch: called after each epoch, e.g. to save a checkpoint.

    Raises:
        VptkitError: the loss is not finite any more.
    """
    steps = config.epochs * steps_per_epoch
    for epoch in range(state.epoch, config.epochs):
        # All randomness of an epoch hangs on (seed, epoch), so that a resumed run repeats it.
        torch.manual_seed(int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0]))
        model.train()
        losses, right, seen, begun = [], 0, 0, time.perf_counter()
        counter = itertools.count(epoch * steps_per_epoch)
        for (inputs, targets), step in zip(batches(epoch), counter, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate_at(step, steps, config.warmup)
            logits = model.head(inputs) if from_features else model(inputs)
            loss = F.cross_entropy(logits, targets)
            _require_finite(float(loss.detach()), epoch, config)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip:
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                torch.nn.utils.clip_grad_norm_(parameters, config.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
            right += int((logits.argmax(dim=1) == targets).sum())
            seen += len(targets)
            rate = seen / (time.perf_counter() - begun)
            progress.update(
                len(targets),
                f"epoch {epoch + 1}/{config.epochs} loss {np.mean(losses):.3f} "
                f"train {right / seen:.3f} val {_latest(state)} {rate:.0f} images/s",
            )
        _close_epoch(model, validation, config, state, float(np.mean(losses)), right / seen)
        after_epoch()


def _close_epoch(
    model: Tuned,
    validation: DataSet,
    config: TuneConfig,
    state: TrainState,
    loss: float,
    top1: float,
) -> None:
    val_top1, val_loss = evaluate(model, validation, config.batch_size)
    _require_finite(val_loss, state.epoch, config)
    best = state.history[state.best_epoch - 1] if state.best_epoch else None
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
    if best is None or (val_top1, -val_loss) > (best["val_top1"], -best["val_loss"]):
        state.best_epoch = state.epoch
        state.best = {name: value.clone() for name, value in model.state_dict().items()}


def _require_finite(loss: float, epoch: int, config: TuneConfig) -> None:
    if not math.isfinite(loss):
        lr, lr_head = config.rates
        raise VptkitError(
            f"the loss became {loss} in epoch {epoch + 1}: lower --lr (now {lr:g}) or --lr-head "
            f"(now {lr_head:g})"
        )


def _latest(state: TrainState) -> str:
    return f"{state.history[-1]['val_top1']:.3f}" if state.history else "-"
