"""Does BPT converge faster than VPT on our scale? (the paper's claim; docs/results.md)

Deep prompts on a real ViT, two image sets. The learning rate of each method is chosen on `val` from
one grid (seed 0, all epochs); then three seeds at that rate. Every run's history is kept, so that
the script can be stopped and started again; the table and the curves are made from the histories.

    python tests/benchmarks/bpt_claim.py --shared ../shared --runs RUNS --docs docs --scale vit-s
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vptkit.tune import config_from_mapping, tune

SETS = ("flowers5", "caltech20")
SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, Any]] = {
    "VPT-deep": {"method": "vpt"},
    "BPT-deep bilinear": {"method": "bpt", "form": "bilinear"},
    "BPT-deep fWhiten": {"method": "bpt", "form": "fwhiten"},
}
SCALES: dict[str, dict[str, Any]] = {
    "vit-s": {  # self-supervised, poor frozen features: where prompts have much to do
        "backbone": "vit_small_patch14_dinov2",
        "backbone_args": {"img_size": 84},
        "weights": "weights/vit_small_patch14_dinov2.saliency/model.safetensors",
        "epochs": 10,
    },
    "vit-ti": {  # supervised: a linear probe is nearly as good
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {"img_size": 112},
        "weights": "weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k/model.safetensors",
        "epochs": 16,
    },
}
COMMON = {
    "insert": "deep",
    "prompts": 20,
    "rank": 20,
    "batch_size": 32,
    "lr_head": 5e-3,
    "augment": "flip",
}


def one_run(task: tuple[str, str, str, float, int, Path, Path]) -> dict[str, Any]:
    """Train once, or read what an earlier call trained."""
    scale, data, method, rate, seed, shared, runs = task
    torch.set_num_threads(1)
    name = f"{scale}-{data}-{method}-{rate:g}-{seed}".replace(" ", "_")
    record = runs / f"{name}.json"
    if record.is_file():
        return json.loads(record.read_text())
    settings = {**COMMON, **SCALES[scale], **METHODS[method], "lr": rate, "seed": seed}
    config = config_from_mapping({**settings, "weights": shared / settings["weights"]})
    begun = time.perf_counter()
    result = tune(shared / "data" / data, runs / f"{name}.safetensors", config, force=True)
    history = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    document = {
        "scale": scale,
        "data": data,
        "method": method,
        "rate": rate,
        "seed": seed,
        "trainable_prompts": result.trainable_prompts,
        "test_top1": result.test_top1,
        "history": history,
        "seconds": time.perf_counter() - begun,
    }
    record.write_text(json.dumps(document))
    final = history[-1]
    print(f"{name}: val {final['val_top1']:.3f}, {document['seconds']:.0f} s", file=sys.stderr)
    return document


def final_val(run: dict[str, Any]) -> tuple[float, float]:
    """Validation accuracy and loss of the last epoch, as a key for `max`."""
    return run["history"][-1]["val_top1"], -run["history"][-1]["val_loss"]


def curve(runs: list[dict[str, Any]]) -> np.ndarray:
    """Mean validation accuracy of several seeds, by epoch."""
    return np.mean([[r["val_top1"] for r in run["history"]] for run in runs], axis=0)


def table(chosen: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Markdown: one row a set and method."""
    lines = [
        "| set | method | lr | trained, without head | final val top-1 | epochs to VPT's final val | test top-1 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (data, method), runs in chosen.items():
        target = curve(chosen[data, "VPT-deep"])[-1]
        reached = np.flatnonzero(curve(runs) >= target)
        epochs = str(reached[0] + 1) if len(reached) else "never"
        final = [run["history"][-1]["val_top1"] for run in runs]
        test = [run["test_top1"] for run in runs]
        lines.append(
            f"| {data} | {method} | {runs[0]['rate']:g} | {runs[0]['trainable_prompts']:,} "
            f"| {np.mean(final):.3f} ± {np.std(final, ddof=1):.3f} | {epochs} of "
            f"{len(runs[0]['history'])} | {np.mean(test):.3f} ± {np.std(test, ddof=1):.3f} |"
        )
    return "\n".join(lines)


def plot(chosen: dict[tuple[str, str], list[dict[str, Any]]], path: Path) -> None:
    """Validation accuracy over epochs: mean and range of the seeds, a panel a set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    for axes, data in zip(figure.subplots(1, len(SETS)), SETS, strict=True):
        methods = [method for key, method in chosen if key == data]
        for number, method in enumerate(methods):
            runs = chosen[data, method]
            curves = np.array([[r["val_top1"] for r in run["history"]] for run in runs])
            epochs = np.arange(1, curves.shape[1] + 1)
            axes.plot(epochs, curves.mean(0), color=f"C{number}", linewidth=2, label=method)
            axes.fill_between(
                epochs, curves.min(0), curves.max(0), color=f"C{number}", alpha=0.15, linewidth=0
            )
        goal = curve(chosen[data, "VPT-deep"])[-1]
        axes.axhline(goal, color="C0", linewidth=1, linestyle=":")
        axes.axvline(len(epochs) / 2, color="0.6", linewidth=1, linestyle=":")
        axes.set_title(data)
        axes.set_xlabel("epoch (dotted: half of them; VPT's final value)")
        axes.set_ylabel("validation top-1")
        axes.set_ylim(bottom=max(0.0, goal - 0.4))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)


def main() -> None:
    """Run the grid, then the seeds; write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scale", choices=SCALES, default="vit-s")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-3, 1e-2])
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--only", choices=SETS, help="train on this set, write no table")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    sets = (args.only,) if args.only else SETS
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        grid = [
            (args.scale, data, method, rate, 0, args.shared, args.runs)
            for method in args.methods
            for data in sets
            for rate in args.rates
        ]
        searched = list(pool.map(one_run, grid))
        best = {
            (data, method): max(
                (r for r in searched if (r["data"], r["method"]) == (data, method)), key=final_val
            )["rate"]
            for data in sets
            for method in args.methods
        }
        seeds = [
            (args.scale, data, method, best[data, method], seed, args.shared, args.runs)
            for seed in SEEDS
            for data in sets
            for method in args.methods
        ]
        runs = list(pool.map(one_run, seeds))
    if args.only:
        return
    chosen = {
        key: [r for r in runs if (r["data"], r["method"]) == key]
        for key in ((data, method) for data in SETS for method in args.methods)
    }
    plot(chosen, args.docs / f"bpt_claim_{args.scale}.png")
    lines = ["", "Final validation accuracy at each rate of the grid (seed 0):", ""]
    lines += [
        f"- {run['data']}, {run['method']}, lr {run['rate']:g}: {final_val(run)[0]:.3f}"
        for run in searched
    ]
    print(table(chosen))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
