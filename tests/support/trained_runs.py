"""Runs as their pages see them, made up: none of them was trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vptkit.tune.training_page.hardest_images import HardImage
from vptkit.tune.training_page.trained_run import TrainedRun

if TYPE_CHECKING:
    from pathlib import Path

GRID = [{"strength": s, "train_loss": 0.1, "val_loss": 0.2} for s in (0.1, 1.0)]
PROBE = {"strength": 1.0, "grid": GRID, "val_top1": 0.5, "val_loss": 0.6, "knn_top1": {"10": 0.4}}
START = {"epoch": 0, "val_loss": 0.6, "val_top1": 0.5, "probe": PROBE, "taken": False}
EPOCH = {"train_loss": 0.3, "train_top1": 0.9, "val_loss": 0.5, "val_top1": 0.7, "taken": True}
BARE = TrainedRun(
    name="n", method="linear", learned=5, record={}, images={}, history=[START], judges=9
)
LINE_ROWS = [
    {"alpha": a, "val_loss": 0.5 - a / 10, "val_loss_error": 0.1 * (1 - a), "val_top1": 0.5}
    for a in (0.0, 0.5, 1.0)
]
OUTSIDE = {"test_top1": 0.6, "ood_top1": 0.4}
LAMBDA_ROWS = [
    {"lambda": f, "val_top1": 0.5, "val_loss": 0.5, "won": 4, "lost": 1, **OUTSIDE}
    for f in (0.5, 1.0)
]
SHIFT = {"total": 2.0, "gamma": 1.0, "beta": 1.0, "layers": [{"name": "n", "gamma": 1, "beta": 1}]}
EVIL = '<script>alert(1)</script> $\\frac{1}{2}$ "é日本\u202e'
RECORD = {"config": {"backbone": EVIL}, "labels": [EVIL]}
RECORD |= {"best_epoch": 1, "warnings": [EVIL]}


def run_with_all(image: Path) -> TrainedRun:
    """A run that has every part of a page, and nasty names.

    Args:
        image: one that can be read.
    """
    block = {"rank": 3, "condition": 1e4, "condition_is_bound": True, "kurtosis": [200.0, 0.5]}
    row = {"epochs": 2, "best_epoch": 1, "val_loss": 0.5, "val_top1": 0.7, "numbers": 1000}
    tried = [
        {"method": name, **row, "seconds": 1.0, "losses": [[e, 0.5] for e in range(3)]}
        for name in ("ln", "vpt")
    ]
    hard = HardImage(image, None, EVIL, EVIL, "other", 0.9, 0.1, 2.3)
    return replace(
        BARE,
        name=EVIL,
        record={**RECORD, "val_top1": 0.5, "whitening": [block] * 4},
        history=[START, *({"epoch": e, **EPOCH} for e in range(1, 9))],
        norms={"shift": SHIFT, "rescale": {"what": "both", "lambda": 0.5, "curve": LAMBDA_ROWS}},
        line={"alpha": 1.0, "curve": LINE_ROWS},
        auto={"kept": "ln", "config": {"budget": "10m"}, "tried": tried},
        hardest=[hard] * 5,
    )
