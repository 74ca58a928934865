"""One step of the optimizer over a batch, however the batch is divided.

The gradient is that of the mean loss over the whole batch. `accumulate` divides a process's images
into parts, for memory; torchrun divides the batch over processes, for time. Neither changes the
result but by rounding: each part's sum of losses is divided by the whole batch's number of images,
and the parts' gradients are added. Dropout draws one mask a step, the same for all parts.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vptkit.errors import TrainingError

from .device import device_of
from .distributed import sum_over_processes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vptkit.tune.config import TuneConfig
    from vptkit.tune.methods.tuned_model import Tuned

__all__ = [
    "Batch",
    "Stepper",
    "class_weights",
    "require_finite",
    "summed_loss",
    "what_to_lower",
]


class Batch(NamedTuple):
    """This process's share of a batch.

    Attributes:
        inputs: pixels, float [b, 3, H, W], or features, float [b, d].
        targets: int64 [b]; with several labels an image 0 or 1, float32 [b, C].
        images: B, of all processes together.
    """

    inputs: Tensor
    targets: Tensor
    images: int


def class_weights(config: TuneConfig, targets: NDArray[np.int64], classes: int) -> Tensor | None:
    """Weights of the classes in the training loss, float32 [C]; None: all count as they come.

    "balanced" makes every class count the same: n / (C n_c). The mean over the n images is 1, so a
    balanced set is not changed at all.
    """
    if config.class_weights == "none":
        return None
    counts = np.bincount(targets, minlength=classes).clip(min=1)  # an absent class is never asked
    return torch.from_numpy((len(targets) / (classes * counts)).astype(np.float32))


def summed_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, the sum over images; of several labels each image's is a mean over labels.

    Args:
        logits: [b, C].
        targets: of `Batch`.
        weights: of the classes, float32 [C]; None: all 1. Not of several labels.
    """
    if targets.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(targets.T)
    return F.cross_entropy(logits, targets, weight=weights, reduction="sum")


def _right(logits: Tensor, targets: Tensor) -> Tensor:
    """How many images are answered right; of several labels the share of them that is, at p = 1/2."""
    if targets.dim() == 2:
        return ((logits > 0) == (targets > 0.5)).float().mean(dim=1).sum()
    return (logits.argmax(dim=1) == targets).sum()


class Stepper:
    """Applies an optimizer to batches."""

    def __init__(
        self,
        model: Tuned,
        optimizer: torch.optim.Optimizer,
        config: TuneConfig,
        *,
        from_features: bool = False,
        weights: Tensor | None = None,
    ) -> None:
        """Nothing is computed yet.

        Args:
            model, optimizer: what is trained.
            config: of the run.
            from_features: the batches hold features, not pixels.
            weights: of the classes in the loss, float32 [C]; None: all 1.
        """
        self._model, self._optimizer, self._config = model, optimizer, config
        self._logits = model.head if from_features else model
        self._device = device_of(model)
        self._weights = None if weights is None else weights.to(self._device)
        # fp16 ends at 65504 and at 6e-8: the scaler keeps gradients between, and skips overflows
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=config.precision == "fp16")

    def step(self, batch: Batch, epoch: int) -> tuple[float, float]:
        """Learn from one batch.

        Returns:
            (mean loss, right answers) over the whole batch, of all processes; see `_right`.

        Raises:
            TrainingError: the loss is not finite any more.
        """
        self._optimizer.zero_grad(set_to_none=True)
        noted = torch.zeros(2, device=self._device)  # loss, right answers
        inputs_of = batch.inputs.chunk(self._config.accumulate)
        pairs = zip(inputs_of, batch.targets.chunk(self._config.accumulate), strict=True)
        for number, (inputs, targets) in enumerate(pairs, 1):
            with self._put_back(last=number == len(inputs_of)):
                noted += self._backward(
                    inputs.to(self._device), targets.to(self._device), batch.images
                )
        learned = [p for group in self._optimizer.param_groups for p in group["params"]]
        sum_over_processes([*(p.grad for p in learned if p.grad is not None), noted])
        loss, right = noted.tolist()
        require_finite(loss, epoch, self._config)
        self.scaler.unscale_(self._optimizer)
        if self._config.clip:
            torch.nn.utils.clip_grad_norm_(learned, self._config.clip)
        self.scaler.step(self._optimizer)
        self.scaler.update()
        return loss, right

    def _backward(self, inputs: Tensor, targets: Tensor, images: int) -> Tensor:
        logits = self._logits(inputs)
        total = summed_loss(logits, targets, self._weights)
        loss = total / images  # [], its sum over parts and processes is the batch's mean
        self.scaler.scale(loss).backward()
        return torch.stack([loss.detach(), _right(logits, targets).to(loss.dtype)])

    def _put_back(self, *, last: bool) -> Any:
        """Random generators go back to where they were, so that all parts draw the same masks."""
        if last:
            return contextlib.nullcontext()
        return torch.random.fork_rng([self._device] if self._device.type == "cuda" else [])


def require_finite(loss: float, epoch: int, config: TuneConfig) -> None:
    """Stop a training that has run away.

    Raises:
        TrainingError: the loss is NaN or infinite; says what to lower.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in epoch {epoch + 1}: lower {what_to_lower(config)}"
        )


def what_to_lower(config: TuneConfig) -> str:
    """The rates of a training that ran away: those that were given, else all that it has."""
    lr, lr_head = config.rates
    rates = {"lr": lr} if config.prompted else {}
    rates |= {"lr_ln": config.rate_of_norms} if config.learns("ln") else {}
    rates |= {"lr_lora": config.rate_of_lora} if config.learns("lora") else {}
    rates |= {"lr_head": lr_head}
    given = {key: rate for key, rate in rates.items() if getattr(config, key) is not None} or rates
    told = [f"--{key.replace('_', '-')} (now {rate:g})" for key, rate in given.items()]
    half = ", or pass --precision bf16 (fp16 ends at 65504)" if config.precision == "fp16" else ""
    return " or ".join(told) + half
