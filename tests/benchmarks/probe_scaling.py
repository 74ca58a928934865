"""How the linear probe should see its features, and behind which temperature its strength is chosen.

Cross-validated on train and val (5 parts, twice): log-loss and top-1 for features divided by one
number, by each channel's deviation, or by each channel's root mean square; the strength chosen as it
is, or behind a temperature that the other half of the images chose. Then one probe on train, its
strength by val, and what it reaches on test and ood (looked at, never chosen by).

    python tests/benchmarks/probe_scaling.py ../shared --backbones vit-ti
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from vptkit.images.preprocess import normalize
from vptkit.scores.probabilities import log_loss
from vptkit.scores.temperature import best_factor
from vptkit.tune.backbone.timm_backbone import create_backbone, preprocess_of
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.data.splits import load_splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

SETS = ("flowers5", "caltech20", "photo2sketch5", "breakhis100x")
BACKBONES = {
    "vit-ti": (
        "vit_tiny_patch16_224",
        112,
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k/model.safetensors",
    ),
    "vit-s": (
        "vit_small_patch14_dinov2",
        84,
        "vit_small_patch14_dinov2.saliency/model.safetensors",
    ),
}
STRENGTHS = tuple(10 ** (1 - half / 2) for half in range(9))  # λ: 10 … 1e-3
SCALES = ("one number", "deviation", "root mean square")

Split = tuple["NDArray[np.float64]", "NDArray[np.int64]"]


def features(backbone: str, data: Path, weights: Path) -> dict[str, Split]:
    """Split → (features [n, d], classes [n])."""
    name, size, file = BACKBONES[backbone]
    model: Any = create_backbone(name, {"img_size": size}, weights / file)
    preprocess = preprocess_of(model)
    _, splits = load_splits(data, 0, 0.15, 0.15)
    found = {}
    for split, images in splits.items():
        rows = []
        for pixels, _ in DataSet(images, preprocess).evaluation_batches(64):
            with torch.no_grad():
                tokens = model.forward_features(torch.from_numpy(normalize(pixels, preprocess)))
                rows.append(model.forward_head(tokens, pre_logits=True).double().numpy())
        found[split] = np.concatenate(rows), images.targets
    return found


def scale_of(rows: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """What each channel is divided by, [d]."""
    if kind == "one number":
        return np.full(rows.shape[1], rows.std(axis=0).mean())
    return rows.std(axis=0) if kind == "deviation" else np.sqrt((rows**2).mean(axis=0))


def solved(
    rows: NDArray[np.float64], classes: NDArray[np.int64], strength: float, kind: str
) -> Any:
    """A function: features → logits [n, C], of the optimum at a strength."""
    scale = scale_of(rows, kind)
    model = LogisticRegression(C=1 / (strength * len(rows)), max_iter=2000)
    model.fit(rows / scale, classes)

    def logits(others: NDArray[np.float64]) -> NDArray[np.float64]:
        found = model.decision_function(others / scale)
        return found if found.ndim > 1 else np.stack([-found / 2, found / 2], axis=1)

    return logits


def cross_validated(
    rows: NDArray[np.float64], classes: NDArray[np.int64], kind: str
) -> list[float]:
    """[log-loss, top-1, log-loss behind a temperature, top-1 there], each at its best strength."""
    plain, tempered = [], []
    for strength in STRENGTHS:
        seen = []
        for draw in (0, 1):
            parts = np.random.default_rng(draw).permutation(len(rows)) % 5
            held = np.zeros((len(rows), classes.max() + 1))
            for part in range(5):
                known = parts != part
                held[~known] = solved(rows[known], classes[known], strength, kind)(rows[~known])
            halves = np.arange(len(rows)) % 2 == 0
            cross = np.empty_like(held)
            for half in (halves, ~halves):
                cross[half] = held[half] * best_factor(held[~half], classes[~half])
            right = float((held.argmax(axis=1) == classes).mean())
            seen.append((log_loss(held, classes), right, log_loss(cross, classes)))
        loss, right, cooled = np.mean(seen, axis=0)
        plain.append((loss, right))
        tempered.append((cooled, right))
    return [*min(plain), *min(tempered)]


def outside(found: dict[str, Split], kind: str) -> tuple[float, dict[str, float]]:
    """The strength by val, behind a temperature, and top-1 of that probe on test and ood."""
    best = (math.inf, 0.0, None)
    for strength in STRENGTHS:
        logits = solved(*found["train"], strength, kind)
        val = logits(found["val"][0])
        loss = log_loss(val * best_factor(val, found["val"][1]), found["val"][1])
        best = min(best, (loss, strength, logits), key=lambda one: one[0])
    others = {name: found[name] for name in ("test", "ood") if name in found}
    top1 = {k: float((best[2](x).argmax(axis=1) == y).mean()) for k, (x, y) in others.items()}
    return best[1], top1


def main() -> None:
    """Print one table a backbone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    args = parser.parse_args()
    for backbone in args.backbones:
        print(f"\n**{backbone}**\n")
        print("| set | channels divided by | log-loss, top-1 | behind T | λ | test | OOD |")
        print("| --- " * 7 + "|")
        for data in SETS:
            found = features(backbone, args.shared / "data" / data, args.shared / "weights")
            rows, classes = (
                np.concatenate([found[k][i] for k in ("train", "val")]) for i in (0, 1)
            )
            for kind in SCALES:
                loss, right, cooled, cooled_right = cross_validated(rows, classes, kind)
                strength, top1 = outside(found, kind)
                ood = f"{100 * top1['ood']:.1f}" if "ood" in top1 else ""
                print(
                    f"| {data} | {kind} | {loss:.3f}, {100 * right:.1f} | {cooled:.3f}, "
                    f"{100 * cooled_right:.1f} | {strength:.2g} | {100 * top1['test']:.1f} | {ood} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
