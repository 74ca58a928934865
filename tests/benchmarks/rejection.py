"""How much `run --reject 0.05` accepts of what it does not know, for docs/export.md.

Features come from `vptkit run BUNDLE SET/train --features SET-train.npy`, and of SET/val. Sets are
compared by `val` alone: each class is left out in its turn; and all of another set's `val` is shown.

    python -m tests.benchmarks.rejection FOLDER caltech20 flowers5 photo2sketch5
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from vptkit.scores.score_interval import share_text
from vptkit.scores.typicality import fit_typicality, held_out_rates

RATE = 0.05


def features(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, f] and the numbers of their classes, by the folders of the images."""
    rows = np.load(folder / f"{name}.npy").astype(np.float64)
    with (folder / f"{name}.npy.csv").open(encoding="utf-8", newline="") as stream:
        names = [Path(row["path"]).parent.name for row in csv.DictReader(stream)]
    return rows, np.unique(names, return_inverse=True)[1]


def main() -> None:
    """Print a line a set."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        train, classes = features(folder, f"{name}-train")
        val, val_classes = features(folder, f"{name}-val")
        rates = held_out_rates(train, classes, val, val_classes, RATE)
        counts = np.bincount(val_classes)
        accepted = round(float(np.dot(rates, counts)))
        print(f"{name}: of a class left out {share_text(accepted, len(val))} accepted")
        known = fit_typicality(train, classes, val)
        for other in names:
            if other != name and known is not None:
                shown = features(folder, f"{other}-val")[0]
                count = int((known.shares(shown) > RATE).sum())
                print(f"  of {other} {share_text(count, len(shown))} accepted")


if __name__ == "__main__":
    main()
