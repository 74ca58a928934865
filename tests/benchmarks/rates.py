"""Which learning rates (and cycles) each method wants, before `evidence.py` compares the methods at one each.

Few images, one seed that the comparison does not use, and `val` alone: best accuracy, and the loss
of that epoch, which tells more than the accuracy of a hundred images.

    python tests/benchmarks/rates.py --shared ../shared --backbone vit-ti --sets flowers5:10 caltech20:5
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import evidence
import torch
from evidence import BACKBONES, Cell, full_fine_tuning, settings_of

from vptkit.tune import tune

GRID: dict[str, tuple[dict[str, Any], ...]] = {
    "LN joint": (
        {"lr_ln": 2e-3},
        {"lr_ln": 2e-3, "lr_head": 2e-2},
        {"lr_ln": 2e-3, "lr_head": 5e-2},
    ),
    "LN cyclic": (  # twelve epochs of the norms in each; head phases see cached features
        {"cycles": 3, "head_epochs": 4, "ln_epochs": 4},
        {"cycles": 3, "head_epochs": 12, "ln_epochs": 4},
        {"cycles": 2, "head_epochs": 12, "ln_epochs": 6},
        {"cycles": 2, "head_epochs": 12, "ln_epochs": 6, "lr_head": 2e-2},
    ),
    "VPT-deep": ({}, {"lr": 2e-3}, {"lr_head": 2e-2}, {"lr": 2e-2, "lr_head": 2e-2}),
    "BPT-deep bilinear": ({"lr": 5e-3}, {"lr": 2e-3}, {"lr": 1e-3}, {"lr": 5e-4}),
    "BPT-deep fWhiten": ({}, {"lr": 1e-3}, {"lr": 2e-2}),
    "full fine-tuning": (
        {"FULL_RATE": 1e-5, "FULL_HEAD_RATE": 2e-2},
        {"FULL_RATE": 3e-5, "FULL_HEAD_RATE": 2e-2},
        {"FULL_RATE": 1e-4, "FULL_HEAD_RATE": 5e-3},
        {"FULL_RATE": 1e-4, "FULL_HEAD_RATE": 2e-2},
        {"FULL_RATE": 3e-4, "FULL_HEAD_RATE": 2e-2},
    ),
}
SEED = 7


def measured(cell: Cell, rates: dict[str, Any], shared: Path, folder: Path) -> str:
    """Best accuracy on val and the loss of that epoch (of full fine-tuning only the first)."""
    if cell.method == "full fine-tuning":
        for name, rate in rates.items():
            setattr(evidence, name, rate)
        return f"{full_fine_tuning(cell, shared, folder)['val_top1']:.2f}"
    config: Any = replace(settings_of(cell, shared), **rates)
    result = tune(
        shared / "data" / cell.data, folder / "a.safetensors", config, force=True, test=False
    )
    lines = result.metrics.read_text(encoding="utf-8").splitlines()
    best = json.loads(lines[result.best_epoch - 1])
    return f"{best['val_top1']:.2f} ({best['val_loss']:.2f})"


def main() -> None:
    """Train on each set at each rate, and print what val says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--backbone", choices=BACKBONES, required=True)
    parser.add_argument("--sets", nargs="+", default=["flowers5:10"], help="SET:SHOTS")
    parser.add_argument("--methods", nargs="+", default=list(GRID), choices=GRID)
    args = parser.parse_args()
    torch.set_num_threads(1)
    heads = ["method", "settings other than the defaults", *args.sets]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for method in args.methods:
            for rates in GRID[method]:
                texts = [method, ", ".join(f"{k} {v:g}" for k, v in rates.items()) or "-"]
                for name in args.sets:
                    data, _, shots = name.partition(":")
                    cell = Cell(args.backbone, data, int(shots), method, SEED)
                    texts.append(measured(cell, rates, args.shared, Path(folder)))
                print("| " + " | ".join(texts) + " |", flush=True)


if __name__ == "__main__":
    main()
