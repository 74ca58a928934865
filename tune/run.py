"""`tune`: from a folder of images and a timm backbone to an adapter file."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import timm
import torch

import vptkit
from vptkit.adapter import Adapter, BackboneRef, write_adapter
from vptkit.errors import DataError, OutputError
from vptkit.files import atomic_file, require_absent
from vptkit.preprocess import normalize
from vptkit.progress import SILENT
from vptkit.weights import digest_of_weights

from .backbone import create_backbone, preprocess_of
from .checkpoint import TrainState, load_checkpoint, restore, save_checkpoint
from .data import DataSet, data_digest, load_splits
from .describe import spec_from_model, weights_from_model
from .loop import evaluate, feature_batches, image_batches, train
from .reference import adapter_logits
from .tuned import Tuned, parameter_groups, wants_whitening
from .whitening import token_moments, whitening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from vptkit.backbone import BackboneSpec
    from vptkit.progress import Progress

    from .config import TuneConfig

__all__ = ["TuneResult", "tune"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What a tuning run gave.

    Attributes:
        adapter: path of the file.
        trainable: learned numbers, head included; trainable_prompts without the head.
        best_epoch: whose parameters the adapter holds.
        val_top1, test_top1: shares; test is None if there is no test split.
        seconds: of this call.
        metrics, curves: the JSON-lines log, and the plot (None without matplotlib).
    """

    adapter: Path
    trainable: int
    trainable_prompts: int
    best_epoch: int
    val_top1: float
    test_top1: float | None
    seconds: float
    metrics: Path
    curves: Path | None

    def to_json(self) -> dict[str, Any]:
        """The document of `vptkit tune --json`."""
        return {
            "adapter": str(self.adapter),
            "trainable": self.trainable,
            "trainable_prompts": self.trainable_prompts,
            "best_epoch": self.best_epoch,
            "val_top1": self.val_top1,
            "test_top1": self.test_top1,
            "seconds": round(self.seconds, 2),
            "metrics": str(self.metrics),
            "curves": str(self.curves) if self.curves else None,
        }


class _Paths(NamedTuple):
    adapter: Path
    checkpoint: Path
    metrics: Path
    curves: Path


def tune(
    data: Path,
    output: Path,
    config: TuneConfig,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> TuneResult:
    """Tune, choose the best epoch on val, report test once, write the adapter.

    Beside the adapter NAME.safetensors lie NAME.metrics.jsonl and NAME.curves.png; while the
    training runs, NAME.checkpoint.safetensors.

    Args:
        data: image folder (see `vptkit.tune.data.load_splits`).
        output: where the adapter goes, ending in .safetensors.
        config: every setting.
        resume: go on from the checkpoint, if there is one.
        force: replace an existing adapter, forget an existing checkpoint.
        progress: told about each step.

    Raises:
        VptkitError: bad input; every message says what to do.
    """
    begun = time.perf_counter()
    paths = _paths(output, resume=resume, force=force)
    labels, splits = load_splits(data, config.seed, config.val_share, config.test_share)
    model = create_backbone(config.backbone, config.backbone_args, config.weights)
    spec = spec_from_model(model, config.backbone)
    preprocess = preprocess_of(model)
    backbone = BackboneRef(
        name=config.backbone,
        args=dict(config.backbone_args),
        spec=spec,
        sha256=digest_of_weights(weights_from_model(model)),
    )
    sets = {name: DataSet(split, preprocess) for name, split in splits.items()}
    identity = {
        "config": config.to_json(),
        "data": data_digest(splits),
        "backbone": backbone.sha256,
        "labels": list(labels),
    }
    tuned, state = _train(
        model, spec, sets, config, json.loads(json.dumps(identity)), paths, resume, progress
    )
    tuned.load_state_dict(state.best)
    record = state.history[state.best_epoch - 1]
    test = evaluate(tuned, sets["test"], config.batch_size) if "test" in sets else None
    adapter = Adapter(
        name=config.name or output.stem,
        backbone=backbone,
        method=config.method,
        insert=tuned.insert,
        prompt_length=0 if tuned.prompts is None else config.prompts,
        pool=tuned.pool,
        norm=tuned.norm,
        labels=labels,
        preprocess=preprocess,
        train={
            **identity,
            "best_epoch": state.best_epoch,
            "val_top1": record["val_top1"],
            "test_top1": None if test is None else test[0],
            "whitening": state.whitening,
            "versions": {
                "vptkit": vptkit.__version__,
                "torch": torch.__version__,
                "timm": timm.__version__,
            },
        },
        tensors=_learned(tuned),
    )
    adapter.tensors.update(_golden(model, adapter, sets["val"], config.golden))
    write_adapter(paths.adapter, adapter)
    curves = _plot(state, paths.curves, adapter.name)
    paths.checkpoint.unlink(missing_ok=True)
    total, prompts = tuned.trainable()
    return TuneResult(
        adapter=paths.adapter,
        trainable=total,
        trainable_prompts=prompts,
        best_epoch=state.best_epoch,
        val_top1=record["val_top1"],
        test_top1=None if test is None else test[0],
        seconds=time.perf_counter() - begun,
        metrics=paths.metrics,
        curves=curves,
    )


def _paths(output: Path, *, resume: bool, force: bool) -> _Paths:
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: an adapter's file name ends in .safetensors")
    require_absent(output, force=force)
    if output.is_dir():
        raise OutputError(f"{output}: a folder. Remove it, or choose another name.")
    stem = output.with_suffix("")
    checkpoint = stem.with_name(f"{stem.name}.checkpoint.safetensors")
    if checkpoint.exists() and not resume and not force:
        raise OutputError(
            f"{checkpoint}: a training of this name was interrupted. Pass --resume to finish it, "
            "or --force to start anew."
        )
    return _Paths(
        output,
        checkpoint,
        stem.with_name(f"{stem.name}.metrics.jsonl"),
        stem.with_name(f"{stem.name}.curves.png"),
    )


def _train(
    backbone: Any,
    spec: BackboneSpec,
    sets: dict[str, DataSet],
    config: TuneConfig,
    identity: dict[str, Any],
    paths: _Paths,
    resume: bool,
    progress: Progress,
) -> tuple[Tuned, TrainState]:
    kept: dict[str, Tensor] | None = None
    if resume and paths.checkpoint.exists():
        state, kept = load_checkpoint(paths.checkpoint, identity)
    else:
        state = TrainState(identity)
        paths.checkpoint.unlink(missing_ok=True)  # forced; only now that the input is good
    matrices = None
    if wants_whitening(config):
        if kept is None:
            matrices, state.whitening = _whiten(backbone, sets["train"], config)
        else:  # the checkpoint holds what became of them
            matrices = [torch.zeros(spec.width, spec.width)] * spec.depth
    tuned = Tuned(backbone, spec, config, len(identity["labels"]), matrices)
    optimizer = torch.optim.AdamW(parameter_groups(tuned, config))
    if kept is not None:
        restore(tuned, optimizer, kept)

    def after_epoch() -> None:
        # Metrics first: a record too many is written again by a resumed run, a missing one is not.
        with atomic_file(paths.metrics) as part:
            lines = [json.dumps(record, sort_keys=True) + "\n" for record in state.history]
            part.write_text("".join(lines))
        save_checkpoint(paths.checkpoint, tuned, optimizer, state)

    from_features = config.method == "linear" and config.augment != "crop"
    count = len(sets["train"])
    full, rest = divmod(count, config.batch_size)
    if from_features:
        batches, steps = feature_batches(tuned, sets["train"], config), full + bool(rest)
    else:
        batches = image_batches(sets["train"], config)
        steps = max(full + (2 * rest >= config.batch_size), 1)
    progress.total = count * (config.epochs - state.epoch)
    train(
        tuned,
        optimizer,
        batches,
        steps,
        sets["val"],
        config,
        state,
        from_features=from_features,
        progress=progress,
        after_epoch=after_epoch,
    )
    return tuned, state


def _whiten(
    backbone: Any, data: DataSet, config: TuneConfig
) -> tuple[list[Tensor], list[dict[str, float]]]:
    """W for each block from random training images (evaluation transform, no prompts)."""
    count = min(config.whiten_images, len(data))
    chosen = np.sort(np.random.default_rng([config.seed, 1]).permutation(len(data))[:count])

    def batches() -> Iterator[Tensor]:
        for part in np.array_split(chosen, max(1, count // 16)):
            images = data.prepared(part)
            yield torch.from_numpy(normalize(images, data.preprocess))

    released = config.compat == "released"
    shallow = config.insert == "shallow"
    moments = token_moments(backbone, batches(), config.tap)
    results = [
        whitening(
            block.attn,
            moment,
            form="released" if released else "attention",
            floor=config.whiten_floor,
            same_query_key=released and shallow,
        )
        for block, moment in zip(backbone.blocks, moments, strict=True)
    ]
    results = results[:1] if shallow else results
    if not all(torch.isfinite(result.matrix).all() for result in results):
        raise DataError("whitening failed: the tokens of the training images are degenerate")
    notes = [{"rank": r.rank, "condition": r.condition, "row_norm": r.row_norm} for r in results]
    return [result.matrix for result in results], notes


def _learned(tuned: Tuned) -> dict[str, Any]:
    tensors = {} if tuned.prompts is None else dict(tuned.prompts.tensors())
    tensors["head.weight"] = tuned.head.weight.detach().numpy().copy()
    tensors["head.bias"] = tuned.head.bias.detach().numpy().copy()
    return tensors


@torch.no_grad()
def _golden(model: Any, adapter: Adapter, data: DataSet, count: int) -> dict[str, Any]:
    """Some validation images and the slow reference's answers to them."""
    chosen = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int))
    images = data.prepared(chosen)
    pixels = torch.from_numpy(normalize(images, adapter.preprocess))
    return {
        "golden.images": images,
        "golden.logits": adapter_logits(model, adapter, pixels).numpy(),
    }


def _plot(state: TrainState, path: Path, name: str) -> Path | None:
    try:
        from .curves import plot_curves  # needs matplotlib, an extra
    except ImportError:
        return None
    plot_curves({name: state.history}, path)
    return path
