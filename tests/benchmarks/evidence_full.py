"""Full fine-tuning, to compare with: every number of the backbone and the head, by AdamW."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from vptkit.images.preprocess import normalize
from vptkit.tune.backbone.timm_backbone import create_backbone, preprocess_of
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.data.splits import load_splits
from vptkit.tune.training.device import choose_device
from vptkit.tune.training.loop import rate_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vptkit.tune import TuneConfig

RATE, HEAD_RATE = 1e-4, 2e-2  # found on val of flowers5 with ViT-Ti; not searched for the others


def full_fine_tuning(data: Path, config: TuneConfig) -> dict[str, Any]:
    """The same images, schedule and choice of the epoch (log-loss on val; without val, the last).

    Returns:
        the fields of a cell's record that a training fills in.

    Raises:
        RuntimeError: the schedule was not made to its end.
    """
    device = choose_device(config.device)
    labels, splits = load_splits(data, config.seed, config.val_share, config.test_share)
    torch.manual_seed(config.seed)
    model: Any = create_backbone(config.backbone, config.backbone_args, config.weights)
    preprocess = preprocess_of(model)
    sets = {name: DataSet(split, preprocess) for name, split in splits.items()}
    model.reset_classifier(len(labels))
    model.requires_grad_(True).to(device)
    best, chosen, curve = None, 0, []
    for epoch in _epochs(model, sets["train"], config, device):
        answers, loss = answered(model, sets["val"], device) if "val" in sets else (None, None)
        top1 = None if answers is None else _share(answers, sets["val"])
        curve.append([epoch + 1, top1, loss])
        if loss is None or best is None or loss < best[0]:
            best, chosen = (loss, copy.deepcopy(model.state_dict())), epoch
    assert best is not None
    model.load_state_dict(best[1])
    noted = {
        name: answered(model, sets[name], device)[0] for name in ("test", "ood") if name in sets
    }
    head = sum(p.numel() for p in model.get_classifier().parameters())
    return {
        "trained": sum(p.numel() for p in model.parameters()) - head,
        "best_epoch": chosen + 1,
        "val_top1": curve[chosen][1],
        "val_loss": curve[chosen][2],
        "test_top1": _share(noted["test"], sets["test"]),
        "ood_top1": _share(noted["ood"], sets["ood"]) if "ood" in noted else None,
        "curve": curve,
        "answers": {name: found.tolist() for name, found in noted.items()},
        "truth": {
            name: np.bincount(sets[name].split.targets, minlength=len(labels)).tolist()
            for name in noted
        },
        "device": str(device),
    }


def _epochs(model: Any, data: DataSet, config: TuneConfig, device: Any) -> Any:
    """Train; yield after each epoch."""
    size, optimizer = config.batch_of(len(data)), _optimizer(model)
    steps, step = config.epochs * data.training_steps(size), 0
    for epoch in range(config.epochs):
        model.train()
        for images, targets in data.training_batches(
            size, seed=config.seed, epoch=epoch, augment="flip", crop_scale=0.5
        ):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate_at(step, steps, config.warmup)
            pixels = torch.from_numpy(normalize(images, data.preprocess)).to(device)
            loss = F.cross_entropy(model(pixels), torch.from_numpy(targets).to(device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
        yield epoch
    if step != steps:
        raise RuntimeError(f"{step} steps of {steps} were made")


def _optimizer(model: Any) -> torch.optim.Optimizer:
    head = list(model.get_classifier().parameters())
    known = {id(p) for p in head}
    rest = [p for p in model.parameters() if id(p) not in known]
    return torch.optim.AdamW(
        [
            {"params": rest, "weight_decay": 0.05, "base_lr": RATE},
            {"params": head, "weight_decay": 0.1, "base_lr": HEAD_RATE},
        ],
        lr=RATE,
    )


@torch.no_grad()
def answered(model: Callable[..., Any], data: DataSet, device: Any) -> tuple[Any, float]:
    """Class index of each image, int64 [images], and the mean cross-entropy."""
    model.eval()  # type: ignore[attr-defined]
    found, loss = [], 0.0
    for images, targets in data.evaluation_batches(32):
        logits = model(torch.from_numpy(normalize(images, data.preprocess)).to(device)).cpu()
        found.append(logits.argmax(1).numpy())
        loss += float(F.cross_entropy(logits, torch.from_numpy(targets), reduction="sum"))
    return np.concatenate(found), loss / len(data)


def _share(answers: Any, data: DataSet) -> float:
    return float((answers == data.split.targets).mean())
