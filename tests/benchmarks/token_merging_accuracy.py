"""What training with merged tokens costs in accuracy, against the same training without (docs/results.md).

ViT-Ti AugReg at 224 px, the four image sets of ../shared/data, vptkit's own recipes. Trains first, and
chooses epochs on `val`; with --judge, every adapter that is there is asked once, by the slow
reference, on `val`, or with --split test on `test`: with the merging that it was trained with, and
what was trained without also with merging. Killed, the same command goes on.

    python -m tests.benchmarks.token_merging_accuracy RUNS --shared ../shared [--methods ln,vpt]
    python -m tests.benchmarks.token_merging_accuracy RUNS --shared ../shared --judge [--split test]
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vptkit.backbones.merge_schedule import TokenMerging, merge_schedule
from vptkit.formats.adapter import read_adapter
from vptkit.images.preprocess import normalize
from vptkit.tune.backbone.reference import adapter_logits
from vptkit.tune.backbone.spec_from_timm import spec_from_model
from vptkit.tune.backbone.timm_backbone import checked_weights
from vptkit.tune.config import TuneConfig
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.data.splits import load_splits
from vptkit.tune.run.tune_run import tune

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SETS = ("flowers5", "caltech20", "photo2sketch5", "breakhis100x")
BACKBONE = "vit_tiny_patch16_224"
WEIGHTS = "weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k/model.safetensors"
_DRAWS, _BATCH = 10_000, 32


@dataclass(frozen=True, order=True)
class Run:
    """One training."""

    seed: int
    data: str
    method: str
    merge: int

    @property
    def file(self) -> str:
        """Of its adapter."""
        return f"{self.data}-{self.method}-r{self.merge}-s{self.seed}.safetensors"


def runs_of(args: argparse.Namespace) -> Iterator[Run]:
    """Seed by seed, set by set: what is compared is trained one behind the other."""
    for seed, data, method, merge in itertools.product(
        map(int, args.seeds.split(",")),
        SETS,
        args.methods.split(","),
        map(int, args.merges.split(",")),
    ):
        yield Run(seed, data, method, merge)


def train(run: Run, args: argparse.Namespace) -> None:
    """Train one, or go on with it; `test` is not looked at."""
    output = args.runs / run.file
    if output.is_file() and not output.with_suffix(".checkpoint.safetensors").is_file():
        return
    config = TuneConfig(
        backbone=BACKBONE,
        weights=args.shared / WEIGHTS,
        method=run.method,
        epochs=args.epochs,
        precision=args.precision,
        shots=args.shots,
        merge=run.merge,
        seed=run.seed,
        allow_chance=True,
    )
    result = tune(args.shared / "data" / run.data, output, config, resume=True, test=False)
    print(run.file, f"val {result.val_top1}, {result.seconds:.0f} s", flush=True)


def judge(run: Run, merge: int, split: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """Which images of a split an adapter knows, by the reference, merging `merge` tokens a block."""
    path = args.runs / run.file
    if not path.is_file():
        return None
    kept = args.runs / "judged" / f"{run.file}.{split}.r{merge}.json"
    if not kept.is_file():
        adapter = read_adapter(path)
        model, _ = checked_weights(adapter, args.shared / WEIGHTS)
        spec = spec_from_model(model, BACKBONE)
        merging = TokenMerging(schedule=merge_schedule(merge, spec)) if merge else None
        adapter = replace(adapter, merging=merging)
        found = right_of(model, adapter, args.shared / "data" / run.data, split)
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(found), encoding="utf-8")
    return {"run": run, "merge": merge, "right": json.loads(kept.read_text(encoding="utf-8"))}


@torch.no_grad()
def right_of(model: Any, adapter: Any, data: Path, split: str) -> list[int]:
    """1 for each image whose class is answered, else 0."""
    labels, splits = load_splits(data, seed=0, val_share=0.15, test_share=0.15)
    assert labels == adapter.labels
    images = DataSet(splits[split], adapter.preprocess)
    answers = []
    for part in np.array_split(np.arange(len(images)), max(1, len(images) // _BATCH)):
        pixels = torch.from_numpy(normalize(images.prepared(part), adapter.preprocess))
        answers.append(adapter_logits(model, adapter, pixels).argmax(dim=1).numpy())
    return [int(right) for right in np.concatenate(answers) == splits[split].targets]


def told(records: Sequence[Mapping[str, Any]], split: str) -> None:
    """A table of accuracies, and of differences to the training without merging, with intervals."""
    cells: dict[tuple[str, int, int], dict[tuple[str, int], Any]] = {}
    for record in records:
        run = record["run"]
        key = run.method, run.merge, record["merge"]
        cells.setdefault(key, {})[run.data, run.seed] = np.array(record["right"])
    print(
        f"\n| method | trained with r | asked with r | seeds | {' | '.join(SETS)} | mean ({split}) |"
    )
    print("| --- " * (5 + len(SETS)) + "|")
    for (method, trained, asked), found in sorted(cells.items()):
        of_sets = [[right for (d, _), right in found.items() if d == data] for data in SETS]
        if not all(of_sets):
            continue
        means = [100 * float(np.mean([one.mean() for one in runs])) for runs in of_sets]
        seeds = "/".join(sorted({str(len(runs)) for runs in of_sets}))
        row = " | ".join(f"{mean:.1f}" for mean in means)
        print(f"| {method} | {trained} | {asked} | {seeds} | {row} | {np.mean(means):.2f} |")
    print("\n| method | trained, asked with r | to trained and asked without | 95 % interval |")
    print("| --- | --- | --- | --- |")
    for (method, trained, asked), found in sorted(cells.items()):
        plain = cells.get((method, 0, 0), {})
        if asked and (difference := _difference(found, plain)):
            middle, low, high = difference
            print(f"| {method} | {trained}, {asked} | {middle:+.2f} | {low:+.2f} .. {high:+.2f} |")


def _difference(found: Any, plain: Any) -> tuple[float, float, float] | None:
    """Points between two settings, mean over sets; an interval over images and seeds, both paired.

    A bootstrap: seeds are drawn, and of each set its images, the same ones for both.
    """
    pairs = {
        data: np.array([found[k] - plain[k] for k in sorted(found) if k[0] == data and k in plain])
        for data in SETS
    }
    if not all(len(rows) for rows in pairs.values()):
        return None
    rng, draws = np.random.default_rng(0), np.zeros(_DRAWS)
    for i in range(_DRAWS):
        for rows in pairs.values():  # [seeds, images] of -1, 0, 1
            seeds = rng.integers(len(rows), size=len(rows))
            images = rng.integers(rows.shape[1], size=rows.shape[1])
            draws[i] += 100 * rows[seeds].mean(axis=0)[images].mean() / len(pairs)
    middle = 100 * float(np.mean([rows.mean() for rows in pairs.values()]))
    low, high = np.percentile(draws, [2.5, 97.5])
    return middle, float(low), float(high)


def main() -> None:
    """Train what is not there yet, or judge what is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--methods", default="ln,vpt")
    parser.add_argument("--merges", default="0,12")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--shots", type=int, help="training images of each class [all]")
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--split", default="val", choices=["val", "test"])
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    merges = [int(merge) for merge in args.merges.split(",")]
    if not args.judge:
        for run in runs_of(args):
            train(run, args)
        return
    records = [
        judge(run, merge, args.split, args)
        for run in runs_of(args)
        for merge in (merges if run.merge == 0 else [run.merge])
    ]
    told([record for record in records if record], args.split)


if __name__ == "__main__":
    main()
