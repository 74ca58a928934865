"""One cell of the grid of `evidence.py`: its images, its training, its record."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch

import vptkit
from vptkit.errors import VptkitError
from vptkit.progress import SILENT
from vptkit.tune import tune
from vptkit.tune.methods.straight_line import on_line
from vptkit.tune.run import tune_run
from vptkit.tune.run.load_run import load_run
from vptkit.tune.run.write_run import write_run
from vptkit.tune.training.loop import split_logits, top1_and_loss

from .evidence_cells import settings_of
from .evidence_full import full_fine_tuning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vptkit.tune import TuneConfig, TuneResult

    from .evidence_cells import Cell

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ASKED = 32  # images in a batch of what is only asked
_NO_LINE = ("linear", "auto")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the cells run.

    Attributes:
        shared: folder with `data` and `weights`.
        adapters: folder for what is trained, and for the few images.
        device: "cpu", "cuda", "auto".
        weights: of "vit-b".
        lines: walk the straight line from start to end, too.
        commit: of vptkit, where there is git.
    """

    shared: Path
    adapters: Path
    device: str = "auto"
    weights: Path | None = None
    lines: bool = False
    commit: str | None = None


def run_cell(cell: Cell, place: Place) -> dict[str, Any]:
    """Train; the record. What vptkit refuses or cannot train is one, too: {"failed": why}."""
    if place.device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(1)
    begun = time.perf_counter()
    versions = {"torch": torch.__version__, "timm": timm.__version__}
    versions |= {"vptkit": vptkit.__version__, "commit": place.commit}
    record: dict[str, Any] = {**asdict(cell), "versions": versions}
    try:
        found = _trained(cell, place)
    except VptkitError as problem:
        found = {"failed": str(problem)}
    return record | found | {"seconds": round(time.perf_counter() - begun, 1)}


def _trained(cell: Cell, place: Place) -> dict[str, Any]:
    config = settings_of(cell, place.shared, place.weights, place.device)
    data = place.shared / "data" / cell.data
    if cell.shots:
        data = few_images(data, cell.shots, cell.seed, place.adapters / "few-images")
    if cell.method == "full fine-tuning":
        return full_fine_tuning(data, config)
    return by_vptkit(data, place.adapters / f"{cell.name}.safetensors", config, lines=place.lines)


def few_images(data: Path, shots: int, seed: int, folder: Path) -> Path:
    """A data set as a user has it with so many images a class in all: train, test, ood, and no val.

    Args:
        data: folder with train/CLASS/IMAGE, test, and perhaps ood.
        shots: images of each class, drawn from train; more are a superset of fewer.
        seed: of the draw.
        folder: where it is built, once, of copies: links would lead out of the data set.

    Returns:
        its folder.
    """
    target = folder / f"{data.name}-{shots}-{seed}"
    if target.is_dir():
        return target
    part = folder / f".{target.name}.{os.getpid()}"
    for name in ("test", "ood"):
        if (data / name).is_dir():
            shutil.copytree(data / name, part / name)
    classes = sorted(path for path in (data / "train").iterdir() if path.is_dir())
    for number, source in enumerate(classes):
        images = sorted(path for path in source.iterdir() if path.is_file())
        if len(images) < shots:
            raise ValueError(f"{source}: {len(images)} images, {shots} were asked for")
        order = np.random.default_rng([seed, number]).permutation(len(images))
        (part / "train" / source.name).mkdir(parents=True)
        for i in sorted(order[:shots]):
            shutil.copy2(images[i], part / "train" / source.name)
    try:
        part.rename(target)
    except OSError:  # another process was first
        if not target.is_dir():
            raise
        shutil.rmtree(part)
    return target


def by_vptkit(data: Path, output: Path, config: TuneConfig, *, lines: bool) -> dict[str, Any]:
    """One of vptkit's methods; the fields of its record."""
    with _noted() as (answers, truth):
        if lines and config.method not in _NO_LINE:
            result, line = _with_line(data, output, config)
        else:
            result, line = tune(data, output, config, force=True), None
    text = result.metrics.read_text(encoding="utf-8")
    curve = [
        [row["epoch"], row["val_top1"], row["val_loss"]]
        for row in map(json.loads, text.splitlines())
    ]
    of_best = next((row for row in curve if row[0] == result.best_epoch), [0, None, None])
    norms, probe = result.layer_norms or {}, result.probe or {}
    shift = norms.get("shift")
    return {
        "kept": result.auto["kept"] if result.auto else config.method,
        "trained": result.trainable_prompts,
        "best_epoch": result.best_epoch,
        "val_top1": result.val_top1,
        "val_loss": _short(of_best[2]),
        "test_top1": result.test_top1,
        "ood_top1": result.ood_top1,
        "curve": [[_short(value) for value in row] for row in curve],
        "folds": (result.cross_validation or {}).get("folds"),
        "probe": {key: probe.get(key) for key in ("strength", "val_top1", "val_loss")},
        "temperature": (result.confidence or {}).get("temperature"),
        "lambda": (norms.get("rescale") or {}).get("lambda"),
        "shift": shift and {key: _short(shift[key]) for key in ("total", "gamma", "beta")},
        "answers": answers,
        "truth": truth,
        "line": line,
        "device": result.device,
    }


@contextlib.contextmanager
def _noted() -> Iterator[tuple[dict[str, list[int]], dict[str, list[int]]]]:
    """While a run asks test and ood: the class index that it answers of each image, by split.

    The second is the truth: how many images each class has. They stand in the order of the classes.

    Raises:
        RuntimeError: the share of right answers is not what the run says.
    """
    answers: dict[str, list[int]] = {}
    truth: dict[str, list[int]] = {}
    theirs = tune_run.top1_on

    def asked(split: str, tuned: Any, sets: Mapping[str, Any], config: TuneConfig) -> float | None:
        top1 = theirs(split, tuned, sets, config)
        if top1 is None:
            return None
        logits = split_logits(tuned, sets[split], _ASKED)
        targets = sets[split].split.targets
        counts = np.bincount(targets, minlength=logits.shape[1])
        found = logits.argmax(axis=1)
        right = int((found == targets).sum())
        ordered = np.array_equal(targets, np.repeat(np.arange(len(counts)), counts))
        if not ordered or abs(right - top1 * len(targets)) > 1.5:  # one may be as good as a tie
            raise RuntimeError(f"{split}: {right} of {len(targets)} right, the run says {top1}")
        answers[split], truth[split] = found.tolist(), counts.tolist()
        return top1

    tune_run.top1_on = asked
    try:
        yield answers, truth
    finally:
        tune_run.top1_on = theirs


def _with_line(data: Path, output: Path, config: TuneConfig) -> tuple[TuneResult, dict[str, Any]]:
    """`tune` step by step, with a look at the straight line between; nothing is chosen by that.

    Returns:
        the result, and α → (val top-1, val loss, test top-1, ood top-1).
    """
    how = {"resume": False, "force": True, "test": True}
    with tune_run.requested(data, output, config, SILENT, **how) as request:
        inputs = load_run(request)
        # "all" makes the training keep its start
        keeping = replace(request, config=replace(config, rescale="all"))
        trained = tune_run.train(keeping, inputs)
        model, state = trained
        line: dict[str, Any] = {}
        for alpha in ALPHAS:
            model.load_state_dict(on_line(state.start_parameters, state.best, alpha))
            row = [
                top1_and_loss(model, inputs.sets[name], _ASKED)
                if name in inputs.sets
                else (None,) * 2
                for name in ("val", "test", "ood")
            ]
            line[f"{alpha:g}"] = [_short(v) for v in (*row[0], row[1][0], row[2][0])]
        chosen = tune_run.choose(request, inputs, trained)
        return write_run(request, inputs, trained, chosen), line


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
