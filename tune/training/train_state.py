"""How far a training has come, without the file it is kept in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["TrainState"]


@dataclass(slots=True)
class TrainState:
    """How far a training has come.

    Attributes:
        identity: configuration and digests; a checkpoint of another run is refused.
        epoch: epochs done.
        history: one record an epoch.
        best_epoch: the epoch (from 1) with the best validation accuracy so far.
        best: the parameters of that epoch.
        whitening: diagnostics of the whitening matrices.
        scaler: of fp16's losses, as torch's GradScaler has it; empty otherwise.
    """

    identity: dict[str, Any]
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    whitening: list[dict[str, float]] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)
