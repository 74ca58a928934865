"""The last step of a run: its adapter, with golden answers and the record of its training."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch

import vptkit
from vptkit.formats.adapter import THRESHOLDS, Adapter, write_adapter
from vptkit.images.image_sketch import sketch_of
from vptkit.images.preprocess import normalize
from vptkit.progress import keep_line
from vptkit.scores.label_report import with_map_names
from vptkit.tune.backbone.reference import adapter_logits
from vptkit.tune.data.reading_pass import skipped_places, skipped_record, twice_record
from vptkit.tune.data.splits import class_counts
from vptkit.tune.training.device import describe_device, device_of
from vptkit.tune.training.distributed import leads, share
from vptkit.tune.training_page.run_pictures import Pictures, write_pictures
from vptkit.tune.training_page.trained_run import TrainedRun

from .run_result import TuneResult

if TYPE_CHECKING:
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.tuned_model import Tuned
    from vptkit.tune.phases.phased_training import Trained

    from .choose_on_val import Chosen
    from .load_run import RunInputs, RunRequest

__all__ = ["golden_answers", "write_run"]


def write_run(
    request: RunRequest,
    inputs: RunInputs,
    trained: Trained,
    chosen: Chosen,
    auto: dict[str, Any] | None = None,
) -> TuneResult:
    """Write adapter and pictures, and remove the checkpoint; of torchrun's processes the first does.

    Killed anywhere on the way, the checkpoint is there, and from it the same is written again.

    Args:
        request, inputs: of the run.
        trained: its model holds what was chosen; it is moved to the CPU.
        chosen: what the adapter records.
        auto: what `vptkit.tune.auto` tried before, for the record.

    Raises:
        OutputError: the disk is full; the checkpoint stays.
    """
    files, tuned = request.files, trained.model
    device = describe_device(device_of(tuned))
    tuned.cpu()
    tuned.backbone.cpu()  # golden answers are float32 on a CPU, wherever the training ran
    tried = auto
    told, noted, auto = _with_map_names(chosen, trained, auto)
    adapter = _adapter(request, inputs, noted, told, device)
    if auto is not None:
        adapter.train["auto"] = auto
    pictures = Pictures()
    if leads():
        shown = inputs.sets.get("val", inputs.sets["train"])
        golden = golden_answers(inputs.backbone, adapter, shown, request.config.golden)
        adapter.tensors.update(golden)
        write_adapter(files.adapter, adapter)
        order: list[str] = [
            name for name in ("train", "val", "test", "ood") if name in inputs.splits
        ]
        images: dict[str, int] = {name: len(inputs.splits[name].images) for name in order}
        run = _trained_run(adapter, images, trained, chosen, tried)
        pictures = write_pictures(run, files, request.config.pictures)
        if pictures.missing is not None:
            keep_line(request.progress, f"note: {pictures.missing}")
        _log_outcome(request, chosen, told)
        files.remove_dead_parts()
        files.checkpoint.unlink(missing_ok=True)  # last: an adapter without one is complete
    total, without_head = tuned.trainable()
    return TuneResult(
        adapter=files.adapter,
        trainable=total,
        trainable_prompts=without_head,
        best_epoch=told.best_epoch,
        soup=told.soup,
        val_top1=told.val_top1,
        test_top1=told.test_top1,
        ood_top1=told.ood_top1,
        cross_validation=_cross_validation(inputs, trained),
        seconds=time.perf_counter() - request.begun,
        device=device,
        metrics=files.metrics,
        page=pictures.page,
        auto=auto,
        probe=noted.state.start.get("probe"),
        layer_norms=told.layer_norms,
        line=told.line,
        confidence=told.confidence,
        plots=pictures.plots,
        no_pictures=pictures.missing,
        warnings=told.warnings,
        by_class=told.by_class,
        task=request.config.task,
        multilabel=told.multilabel,
        images=class_counts(inputs.labels, inputs.splits),
        skipped=skipped_places(request.data, adapter.train["skipped"]),
        twice=adapter.train["twice"],
    )


def _trained_run(
    adapter: Adapter,
    images: dict[str, int],
    trained: Trained,
    chosen: Chosen,
    auto: dict[str, Any] | None,
) -> TrainedRun:
    """What the page shows; in `chosen`, `trained` and `auto` all scores are called top1."""
    state, several = trained.state, chosen.multilabel is not None
    taken = chosen.soup or [chosen.best_epoch]
    history = [{**record, "taken": record["epoch"] in taken} for record in state.records]
    if several:  # of train there is another share than of val
        history = [{key: r[key] for key in r if key != "train_top1"} for r in history]
    return TrainedRun(
        name=adapter.name,
        method=adapter.method,
        learned=trained.model.trainable()[0],
        record=adapter.train,
        images=images,
        history=history,
        norms=chosen.layer_norms,
        line=chosen.line,
        auto=auto,
        held=state.cross_validation,
        judges=chosen.judges,
        hardest=chosen.hardest,
        several=several,
    )


def _log_outcome(request: RunRequest, chosen: Chosen, told: Chosen) -> None:
    """The last of TensorBoard's log: curves over λ and α, settings and results.

    Args:
        request: of the run.
        chosen: its curves, in which scores are called top1.
        told: likewise, by their own names.
    """
    log = request.log(more=True)
    if log is None:
        return
    score = "accuracy" if chosen.multilabel is None else "map"
    rescale = (chosen.layer_norms or {}).get("rescale")
    if rescale:
        log.curve("lambda", "lambda", rescale["curve"], score)
    if chosen.line:
        log.curve("alpha", "alpha", chosen.line["curve"], score)
    confidence, several = chosen.confidence or {}, chosen.multilabel or {}
    scores = {"val": told.val_top1, "test": told.test_top1, "ood": told.ood_top1}
    scores |= {split: (several.get(split) or {}).get("map") for split in scores if several}
    metrics = {f"{split}_{score}": value for split, value in scores.items()}
    metrics |= {"val_loss": confidence.get("val_loss", [None])[-1]}
    metrics |= {"lambda": rescale["lambda"] if rescale else None, "best_epoch": told.best_epoch}
    metrics |= {"alpha": chosen.line["alpha"] if chosen.line else None}
    log.outcome(request.config.to_json(), metrics)
    log.close()


def _adapter(
    request: RunRequest, inputs: RunInputs, trained: Trained, chosen: Chosen, device: str
) -> Adapter:
    """The adapter file's content, without golden answers."""
    config, tuned = request.config, trained.model
    train = inputs.splits["train"]
    return Adapter(
        name=config.name or request.files.adapter.stem,
        backbone=inputs.reference,
        method=config.method,
        insert=tuned.insert,
        prompt_length=0 if tuned.prompts is None else config.prompts,
        pool=tuned.pool,
        norm=tuned.norm,
        labels=inputs.labels,
        preprocess=inputs.preprocess,
        train={
            **inputs.identity,
            "val_top1": chosen.val_top1,
            "test_top1": chosen.test_top1,
            "ood_top1": chosen.ood_top1,
            "best_epoch": chosen.best_epoch,
            "soup": chosen.soup,
            "cross_validation": _cross_validation(inputs, trained),
            "images": class_counts(inputs.labels, inputs.splits),
            "skipped": skipped_record(request.data, inputs.reading.broken),
            "twice": twice_record(request.data, inputs.twice),
            "trained_on": sketch_of(train.images, inside=train.inside),
            "weights": inputs.origin,
            "whitening": trained.state.whitening,
            "probe": trained.state.start.get("probe"),
            "layer_norms": chosen.layer_norms,
            "line": chosen.line,
            "warnings": list(chosen.warnings),
            "by_class": chosen.by_class,
            **({} if chosen.multilabel is None else {"multilabel": chosen.multilabel}),
            "confidence": chosen.confidence,
            "computed": {
                "device": device,
                "processes": share()[1],
                "accumulate": config.accumulate,
                "compile": config.compile,
            },
            "versions": {
                "vptkit": vptkit.__version__,
                "torch": torch.__version__,
                "timm": timm.__version__,
            },
        },
        tensors=_learned(tuned) | _thresholds(chosen),
        task=config.task,
        merging=tuned.merging,
    )


def _thresholds(chosen: Chosen) -> dict[str, Any]:
    return {} if chosen.thresholds is None else {THRESHOLDS: chosen.thresholds}


def _with_map_names(
    chosen: Chosen, trained: Trained, auto: dict[str, Any] | None
) -> tuple[Chosen, Trained, dict[str, Any] | None]:
    """The same for files and documents: what is mean average precision is called so."""
    if chosen.multilabel is None:
        return chosen, trained, auto
    state = replace(trained.state, start=with_map_names(trained.state.start))
    named = replace(chosen, val_top1=None, line=with_map_names(chosen.line))
    return named, trained._replace(state=state), with_map_names(auto)


def _cross_validation(inputs: RunInputs, trained: Trained) -> dict[str, int] | None:
    """What chose, where it was not val."""
    chose = trained.state.cross_validation
    if chose is None:
        return None
    return {"folds": chose.folds, "joined": inputs.splits["train"].joined}


def _learned(tuned: Tuned) -> dict[str, Any]:
    """The learned tensors by their names in the file: prompts, LayerNorms, factors, head."""
    tensors = {} if tuned.prompts is None else dict(tuned.prompts.tensors())
    if tuned.layer_norms is not None:
        tensors |= tuned.layer_norms.tensors()
    if tuned.lora is not None:
        tensors |= tuned.lora.tensors()
    tensors["head.weight"] = tuned.head.weight.detach().numpy().copy()
    tensors["head.bias"] = tuned.head.bias.detach().numpy().copy()
    return tensors


@torch.no_grad()
def golden_answers(model: Any, adapter: Adapter, data: DataSet, count: int) -> dict[str, Any]:
    """Some images and the slow reference's answers to them.

    Args:
        model: the frozen timm model, on the CPU.
        adapter: whose answers.
        data: the split that they are from: val, or train where there is none.
        count: how many images, spread over the split.

    Returns:
        golden.images, uint8 [G, H, W, 3], and golden.logits, float32 [G, C].
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int))
    images = data.prepared(chosen)
    pixels = torch.from_numpy(normalize(images, adapter.preprocess))
    return {
        "golden.images": images,
        "golden.logits": adapter_logits(model, adapter, pixels).numpy(),
    }
