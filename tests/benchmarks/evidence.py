"""Both papers on our scale: two ViTs, four image sets, three amounts of data, every method, three seeds.

A cell is one training. Its record, a line of JSON, is written as soon as it ends, so the script can
be stopped and started again, and run on a part of the grid; the table and the plot are made of the
records that are there. Those that the results in docs/ stand on lie beside them, so a machine with
more time adds to them. Settings are vptkit's defaults, chosen on `val`; `test` and `ood` are read
once a cell.

    python tests/benchmarks/evidence.py docs/evidence.jsonl --shared ../shared --adapters RUNS --shots 10
    python tests/benchmarks/evidence.py docs/evidence.jsonl --plot docs/evidence.png
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import multiprocessing
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vptkit.images.preprocess import normalize
from vptkit.tune import config_from_mapping, tune
from vptkit.tune.backbone.timm_backbone import create_backbone, preprocess_of
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.data.splits import load_splits
from vptkit.tune.training.loop import rate_at

SETS = ("flowers5", "caltech20", "photo2sketch5", "breakhis100x")
EPOCHS, CYCLES, PROMPTS = 12, 3, 20
BATCH = {
    0: 32,
    10: 16,
    5: 8,
    2: 4,
}  # by shots: few images need small batches, or there are no steps
_PHASE = {"head_epochs": EPOCHS // CYCLES, "ln_epochs": EPOCHS // CYCLES}
METHODS: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear"},
    "VPT-shallow": {"method": "vpt", "insert": "shallow"},
    "VPT-deep": {"method": "vpt"},
    "BPT-shallow": {"method": "bpt", "insert": "shallow"},
    "BPT-deep bilinear": {"method": "bpt"},
    "BPT-deep fWhiten": {"method": "bpt", "form": "fwhiten"},
    "BPT-deep tWhiten": {"method": "bpt", "form": "twhiten"},
    "LN joint": {"method": "ln"},
    "LP-LN": {"method": "ln", "cycles": 1, "head_epochs": EPOCHS, "ln_epochs": EPOCHS},
    "LN cyclic": {"method": "ln", "cycles": CYCLES, **_PHASE},
    "LN cyclic + λ": {"method": "ln", "cycles": CYCLES, "rescale": "gamma", **_PHASE},
    "LN+BPT": {"method": "ln+bpt"},
    "full fine-tuning": {"method": "linear"},  # its data and schedule
}
FEW_SHOTS: dict[str, dict[str, Any]] = {  # rates that `rates.py` found better there
    "BPT-deep bilinear": {"lr": 2e-3},
    "LN+BPT": {"lr": 2e-3},
}
BACKBONES: dict[str, dict[str, Any]] = {
    "vit-ti": {  # supervised
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {"img_size": 112},
        "weights": "weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k/model.safetensors",
    },
    "vit-s": {  # self-supervised, then saliency: poor frozen features
        "backbone": "vit_small_patch14_dinov2",
        "backbone_args": {"img_size": 84},
        "weights": "weights/vit_small_patch14_dinov2.saliency/model.safetensors",
    },
}
PAIRS = (
    ("BPT-deep bilinear", "VPT-deep"),
    ("BPT-deep fWhiten", "VPT-deep"),
    ("BPT-shallow", "VPT-shallow"),
    ("LN joint", "linear"),
    ("LN joint", "VPT-deep"),
    ("LN joint", "BPT-deep fWhiten"),
    ("LN joint", "full fine-tuning"),
    ("LP-LN", "LN joint"),
    ("LN cyclic", "LN joint"),
    ("LN cyclic + λ", "LN cyclic"),
    ("LN+BPT", "LN joint"),
)
FULL_RATE, FULL_HEAD_RATE = 1e-4, 2e-2  # of full fine-tuning, by AdamW


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One training; shots 0 is all of the training images."""

    backbone: str
    data: str
    shots: int
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Of its adapter's file, without a suffix."""
        parts = (self.backbone, self.data, self.shots or "all", self.method, self.seed)
        return "-".join(map(str, parts)).replace(" ", "_").replace("λ", "lambda")


def run_cell(cell: Cell, shared: Path, adapters: Path) -> list[dict[str, Any]]:
    """Train; the records of the cell and of the one that it answers, too."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    train = full_fine_tuning if cell.method == "full fine-tuning" else by_vptkit
    found = train(cell, shared, adapters)
    records = [{**asdict(cell), "seconds": round(time.perf_counter() - begun, 1), **found}]
    if cell.method == "LN cyclic + λ":  # the same training
        plain = replace(cell, method="LN cyclic")
        if found["lambda"] == 1.0:
            records.append({**records[0], "method": plain.method, "lambda": None})
        else:
            records += run_cell(plain, shared, adapters)
    return records


def settings_of(cell: Cell, shared: Path) -> Any:
    """The configuration of a cell."""
    base = BACKBONES[cell.backbone]
    values = {
        **base,
        "weights": shared / base["weights"],
        "epochs": EPOCHS,
        "prompts": PROMPTS,
        "rank": PROMPTS,
        "batch_size": BATCH[cell.shots],
        "seed": cell.seed,
        **METHODS[cell.method],
    }
    few = {"shots": cell.shots, **FEW_SHOTS.get(cell.method, {})}
    return config_from_mapping(values | (few if cell.shots else {}))


def by_vptkit(cell: Cell, shared: Path, adapters: Path) -> dict[str, Any]:
    """One of our methods."""
    config = settings_of(cell, shared)
    output = adapters / f"{cell.name}.safetensors"
    result = tune(shared / "data" / cell.data, output, config, force=True)
    lines = result.metrics.read_text(encoding="utf-8").splitlines()
    norms = result.layer_norms or {}
    return {
        "trained": result.trainable_prompts,
        "val_top1": result.val_top1,
        "test_top1": result.test_top1,
        "ood_top1": result.ood_top1,
        "val_by_epoch": [json.loads(line)["val_top1"] for line in lines],
        "lambda": (norms.get("rescale") or {}).get("lambda"),
    }


def full_fine_tuning(cell: Cell, shared: Path, adapters: Path) -> dict[str, Any]:
    """Every number of the backbone and the head; same images, schedule and choice of the epoch."""
    config = settings_of(Cell(cell.backbone, cell.data, cell.shots, "linear", cell.seed), shared)
    labels, splits = load_splits(
        shared / "data" / cell.data,
        config.seed,
        config.val_share,
        config.test_share,
        shots=config.shots,
    )
    torch.manual_seed(cell.seed)
    model: Any = create_backbone(config.backbone, config.backbone_args, config.weights)
    preprocess = preprocess_of(model)
    sets = {name: DataSet(split, preprocess) for name, split in splits.items()}
    model.reset_classifier(len(labels))
    model.requires_grad_(True)
    head = list(model.get_classifier().parameters())
    known = {id(p) for p in head}
    rest = [p for p in model.parameters() if id(p) not in known]
    rates = (FULL_RATE, FULL_HEAD_RATE)
    groups = [{"params": rest, "weight_decay": 0.05}, {"params": head, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=FULL_RATE)
    size = config.batch_size
    steps, step, best, curve = EPOCHS * max(1, -(-len(sets["train"]) // size)), 0, None, []
    for epoch in range(EPOCHS):
        model.train()
        for images, targets in sets["train"].training_batches(
            size, seed=cell.seed, epoch=epoch, augment="flip", crop_scale=0.5
        ):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * rate_at(step, steps, config.warmup)
            pixels = torch.from_numpy(normalize(images, preprocess))
            loss = F.cross_entropy(model(pixels), torch.from_numpy(targets))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
        curve.append(accuracy(model, sets["val"], preprocess))
        if best is None or curve[-1] > best[0]:
            best = curve[-1], copy.deepcopy(model.state_dict())
    model.load_state_dict(best[1])
    return {
        "trained": sum(p.numel() for p in rest),
        "val_top1": best[0],
        "test_top1": accuracy(model, sets["test"], preprocess),
        "ood_top1": accuracy(model, sets["ood"], preprocess) if "ood" in sets else None,
        "val_by_epoch": curve,
        "lambda": None,
    }


@torch.no_grad()
def accuracy(model: Any, data: DataSet, preprocess: Any) -> float:
    """Top-1 share."""
    model.eval()
    right = 0
    for images, targets in data.evaluation_batches(32):
        logits = model(torch.from_numpy(normalize(images, preprocess)))
        right += int((logits.argmax(1) == torch.from_numpy(targets)).sum())
    return right / len(data)


Rows = dict[tuple[str, str, int, str], list[dict[str, Any]]]


def spread(values: list[float]) -> str:
    """Mean ± standard deviation, in percent."""
    text = f"{100 * np.mean(values):.1f}"
    return text if len(values) < 2 else f"{text} ± {100 * np.std(values, ddof=1):.1f}"


def report(rows: Rows) -> str:
    """Markdown: a table for each backbone and amount of data."""
    lines = []
    for backbone, shots in sorted({(key[0], key[2]) for key in rows}):
        sets = [s for s in SETS if any(k[:3] == (backbone, s, shots) for k in rows)]
        ood = [s for s in sets if any(
            r["ood_top1"] is not None for k, v in rows.items() if k[1] == s for r in v
        )]  # fmt: skip
        lines += [f"\n**{backbone}, {f'{shots} images a class' if shots else 'all images'}**\n"]
        heads = ["method", "trained", *sets, *(f"{s} OOD" for s in ood), "mean (test)", "epochs"]
        lines += ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        for method in METHODS:
            cells = {s: rows.get((backbone, s, shots, method), []) for s in sets}
            if not any(cells.values()):
                continue
            texts = [method, f"{next(v for v in cells.values() if v)[0]['trained']:,}"]
            texts += [spread([r["test_top1"] for r in v]) if v else "-" for v in cells.values()]
            texts += [spread([r["ood_top1"] for r in cells[s]]) if cells[s] else "-" for s in ood]
            whole = all(cells.values())
            means = [np.mean([r["test_top1"] for r in v]) for v in cells.values() if v]
            texts.append(f"{100 * np.mean(means):.1f}" if whole else "-")
            texts.append(reached(rows, backbone, shots, method, sets))
            lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def reached(rows: Rows, backbone: str, shots: int, method: str, sets: list[str]) -> str:
    """Epochs to VPT-deep's final validation accuracy, on the mean curve of the seeds, by set."""
    found = []
    for data in sets:
        ours = rows.get((backbone, data, shots, method), [])
        theirs = rows.get((backbone, data, shots, "VPT-deep"), [])
        if not ours or not theirs or len({len(r["val_by_epoch"]) for r in ours}) > 1:
            found.append("-")
            continue
        target = np.mean([r["val_by_epoch"][-1] for r in theirs])
        curve = np.mean([r["val_by_epoch"] for r in ours], axis=0)
        at = np.flatnonzero(curve >= target)
        found.append(f"{at[0] + 1}/{len(curve)}" if len(at) else "never")
    return " ".join(found)


def paired(rows: Rows) -> str:
    """Markdown: one method against another, over the cells in which both ran."""
    lines = ["\n| | cells | test: mean difference ± standard error | won / lost | OOD |"]
    lines.append("| --- " * 5 + "|")
    for ours, theirs in PAIRS:
        mine, other = by_cell(rows, ours), by_cell(rows, theirs)
        both = sorted(mine.keys() & other.keys())
        if not both:
            continue
        test = np.array([mine[k]["test_top1"] - other[k]["test_top1"] for k in both])
        ood = [(mine[k]["ood_top1"], other[k]["ood_top1"]) for k in both]
        out = np.array([a - b for a, b in ood if a is not None and b is not None])
        lines.append(
            f"| {ours} − {theirs} | {len(both)} | {difference(test)} | "
            f"{(test > 0).sum()} / {(test < 0).sum()} | {difference(out)} |"
        )
    return "\n".join(lines)


def by_cell(rows: Rows, method: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The records of a method by backbone, set, shots and seed."""
    return {
        (*key[:3], row["seed"]): row for key, v in rows.items() if key[3] == method for row in v
    }


def difference(values: Any) -> str:
    """Mean ± standard error, in points."""
    if len(values) < 2:
        return "-"
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{100 * np.mean(values):+.1f} ± {100 * error:.1f}"


def plot(rows: Rows, path: Path) -> None:
    """Test accuracy of each method: a row of panels a backbone, a panel an amount of data."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    backbones = sorted({key[0] for key in rows}, reverse=True)
    amounts = sorted({key[2] for key in rows}, key=lambda shots: shots or np.inf)
    size = 4.4 * len(amounts) + 1, 3.9 * len(backbones)
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(backbones), len(amounts), sharey=True, squeeze=False)
    for backbone, line in zip(backbones, panels, strict=True):
        for shots, panel in zip(amounts, line, strict=True):
            cells = {k[1::2]: v for k, v in rows.items() if k[::2] == (backbone, shots)}
            if not cells:
                panel.set_xticks([])
                panel.spines[:].set_visible(False)
                continue  # the names of the methods stay
            _panel(panel, cells)
            panel.set_title(f"{backbone}, {f'{shots} images a class' if shots else 'all images'}")
    panels[0][0].set_yticks(range(len(METHODS)), list(METHODS))
    panels[0][0].invert_yaxis()
    figure.supxlabel("test top-1 (%); bars: deviation of the seeds, where there are several")
    marks = [Line2D([], [], marker="o", ls="", color=f"C{i}") for i in range(len(SETS))]
    figure.legend(marks, SETS, loc="outside upper center", ncols=len(SETS), frameon=False)
    figure.savefig(path)


def _panel(panel: Any, cells: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """One point for each (set, method)."""
    for (data, method), found in cells.items():
        number = SETS.index(data)
        values = [100 * row["test_top1"] for row in found]
        place = list(METHODS).index(method) + 0.16 * (number - 1.5)
        error = np.std(values, ddof=1) if len(values) > 1 else None
        panel.errorbar(np.mean(values), place, xerr=error, fmt="o", ms=4, lw=1, color=f"C{number}")
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def read_records(path: Path) -> Rows:
    """The records of a file, by cell but for the seed."""
    rows: Rows = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        row = json.loads(line)
        rows[row["backbone"], row["data"], row["shots"], row["method"]].append(row)
    return rows


def run_grid(cells: list[Cell], records: Path, shared: Path, adapters: Path, jobs: int) -> None:
    """Train the cells of which there is no record."""
    done = {(*key, row["seed"]) for key, found in read_records(records).items() for row in found}
    wanted = [c for c in cells if (c.backbone, c.data, c.shots, c.method, c.seed) not in done]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(jobs, mp_context=context) as pool,
        records.open("a", encoding="utf-8") as file,
    ):
        futures = {pool.submit(run_cell, cell, shared, adapters): cell for cell in wanted}
        for number, future in enumerate(as_completed(futures), start=1):
            for record in future.result():
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
                name, seconds = futures[future].name, record["seconds"]
                print(f"{number}/{len(wanted)} {name}: test {record['test_top1']:.3f}, {seconds} s")


def main() -> None:
    """Run the cells that are asked for and missing, then report on all that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, help="JSON lines; those that are there are kept")
    parser.add_argument("--shared", type=Path, help="train; without, only report")
    parser.add_argument("--adapters", type=Path, help="a folder for what is trained")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument(
        "--shots", nargs="+", type=int, default=[0, 10, 2], choices=BATCH, help="0: all images"
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    if args.shared is not None:
        if args.adapters is None:
            parser.error("--shared wants --adapters, too")
        args.adapters.mkdir(parents=True, exist_ok=True)
        # seed by seed, so that what is there when time is up is whole
        grid = itertools.product(args.seeds, args.backbones, args.shots, args.sets, args.methods)
        cells = [
            Cell(b, data, shots, method, seed)
            for seed, b, shots, data, method in grid
            if method != "LN cyclic" or "LN cyclic + λ" not in args.methods  # comes with it
        ]
        run_grid(cells, args.records, args.shared, args.adapters, args.jobs)
    rows = read_records(args.records)
    print(f"{sum(map(len, rows.values()))} cells; {EPOCHS} epochs, {PROMPTS} prompts")
    print(report(rows))
    print(paired(rows))
    if args.plot is not None:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
