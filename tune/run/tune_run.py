"""`tune`: from a folder of images and a timm backbone to an adapter file."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch

import vptkit
from vptkit.atomic_files import require_absent
from vptkit.errors import DataError, OutputError
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.images.preprocess import normalize
from vptkit.progress import SILENT
from vptkit.tune.backbone.reference import adapter_logits
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model
from vptkit.tune.backbone.timm_backbone import create_backbone, preprocess_of
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.data.splits import class_counts, data_digest, load_splits
from vptkit.tune.training.device import choose_device, describe_device, device_of, repeatable
from vptkit.tune.training.distributed import joined, leads, share
from vptkit.tune.training.loop import evaluate
from vptkit.tune.training.phased_training import Paths, refit_head, train_phases

from .finished_run import finished_record, finished_result
from .layer_norm_rescale import settle
from .run_result import TuneResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.splits import Split
    from vptkit.tune.methods.tuned_model import Tuned
    from vptkit.tune.training.train_state import TrainState

__all__ = ["require_full_classes", "tune", "tune_full"]


def tune(
    data: Path,
    output: Path,
    config: TuneConfig,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    test: bool = True,
    on_epoch: Callable[[Path], None] | None = None,
    full: TuneResult | None = None,
) -> TuneResult:
    """Tune, choose the best epoch on val, report test once, write the adapter.

    Beside the adapter NAME.safetensors lie NAME.metrics.jsonl and NAME.curves.png, and of tuned
    LayerNorms NAME.shift.png, NAME.lambda.png and NAME.id-ood.png; while the training runs,
    NAME.checkpoint.safetensors; with `full_data`, the same of NAME.full.safetensors. The
    processes of torchrun train as one (`vptkit.tune.training.distributed`); the first alone writes, and
    reports progress.

    Args:
        data: see `vptkit.tune.data.dataset_reader.read_splits`.
        output: where the adapter goes, ending in .safetensors.
        config: every setting.
        resume: go on from the checkpoint, if there is one. Of an adapter that is there already,
            of the same settings, data and weights, the result is returned.
        force: replace an existing adapter, forget an existing checkpoint.
        progress: told about each step.
        test: also measure on test and ood; off, their results are None.
        on_epoch: called with the checkpoint after each epoch; what it raises ends the run there,
            and the checkpoint stays.
        full: of `tune_full`; without it, a run with `full_data` calls that behind its own training.

    Raises:
        VptkitError: bad input; every message says what to do.
    """
    device = choose_device(config.device)
    with joined(device), repeatable(device):
        bar = progress if leads() else SILENT
        bar.update(0, f"on {describe_device(device)}")
        return _tune(data, output, config, resume, force, bar, test, on_epoch, full)


def tune_full(
    config: TuneConfig,
    output: Path,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> TuneResult:
    """Tune on the full set of a run, for its FSR proxy.

    Args:
        config: of the run, with `full_data`.
        output: of the run, NAME.safetensors; the adapter becomes NAME.full.safetensors.
        resume, force, progress: of `tune`.

    Raises:
        VptkitError: as of `tune`.
    """
    assert config.full_data is not None  # noqa: S101 - the caller asked
    path = _full_output(output)
    settings = _full_config(config)
    return tune(config.full_data, path, settings, resume=resume, force=force, progress=progress)


def _tune(
    data: Path,
    output: Path,
    config: TuneConfig,
    resume: bool,
    force: bool,
    progress: Progress,
    test: bool,
    on_epoch: Callable[[Path], None] | None,
    full: TuneResult | None,
) -> TuneResult:
    begun = time.perf_counter()
    paths = _paths(output)
    finished = resume and not force and output.is_file()
    if not finished:
        _require_room(paths, resume=resume, force=force)
    shares = config.val_share, config.test_share
    labels, splits = load_splits(data, config.seed, *shares, shots=config.shots)
    model = create_backbone(config.backbone, config.backbone_args, config.weights)
    spec = spec_from_model(model, config.backbone)
    preprocess = preprocess_of(model)
    backbone = BackboneRef(
        name=config.backbone,
        args=dict(config.backbone_args),
        spec=spec,
        sha256=digest_of_weights(weights_from_model(model)),
    )
    identity = {
        "config": config.to_json(),
        "data": data_digest(splits),
        "backbone": backbone.sha256,
        "labels": list(labels),
    }
    if finished:
        return finished_result(paths, identity, config, model, spec, begun)
    if config.full_data is not None and full is None:
        _require_full(config, identity, output, resume=resume, force=force)
    sets = {name: DataSet(split, preprocess) for name, split in splits.items()}
    if test:
        _require_readable(sets, config)
    tuned, state = train_phases(
        model,
        spec,
        sets,
        config,
        identity,
        paths,
        resume,
        progress,
        on_epoch,
    )
    tuned.load_state_dict(state.best)
    val_top1 = state.history[state.best_epoch - 1]["val_top1"]
    if not test:
        sets = {name: sets[name] for name in ("train", "val")}
    norms = None
    if tuned.layer_norms is not None:
        settled = settle(tuned, tuned.layer_norms, sets, config, progress)
        val_top1 = val_top1 if settled.val_top1 is None else settled.val_top1
        if config.refit_epochs:
            val_top1 = refit_head(tuned, sets, config, progress)
        norms = settled.to_json(config.rescale)
        if config.full_data is not None:
            whole = full or tune_full(config, output, resume=resume, force=force, progress=progress)
            norms["fsr_proxy"] = _fsr_proxy(norms, whole)
    test_top1, ood_top1 = (_accuracy(tuned, sets, n, config) for n in ("test", "ood"))
    device = describe_device(device_of(tuned))
    tuned.cpu()
    tuned.backbone.cpu()  # golden answers are float32 on a CPU, wherever the training ran
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
            "val_top1": val_top1,
            "test_top1": test_top1,
            "ood_top1": ood_top1,
            "best_epoch": state.best_epoch,
            "images": class_counts(labels, splits),
            "whitening": state.whitening,
            "layer_norms": norms,
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
        tensors=_learned(tuned),
    )
    curves: Path | None = None
    plots: tuple[Path, ...] = ()
    if leads():
        adapter.tensors.update(_golden(model, adapter, sets["val"], config.golden))
        write_adapter(paths.adapter, adapter)
        curves, plots = _plot(state, norms, paths, adapter.name)
        paths.checkpoint.unlink(missing_ok=True)
    total, without_head = tuned.trainable()
    return TuneResult(
        adapter=paths.adapter,
        trainable=total,
        trainable_prompts=without_head,
        best_epoch=state.best_epoch,
        val_top1=val_top1,
        test_top1=test_top1,
        ood_top1=ood_top1,
        seconds=time.perf_counter() - begun,
        device=device,
        metrics=paths.metrics,
        curves=curves,
        layer_norms=norms,
        plots=plots,
    )


def _paths(output: Path) -> Paths:
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: an adapter's file name ends in .safetensors")
    stem = output.with_suffix("")
    return Paths(
        output,
        stem.with_name(f"{stem.name}.checkpoint.safetensors"),
        stem.with_name(f"{stem.name}.metrics.jsonl"),
        stem.with_name(f"{stem.name}.curves.png"),
    )


def _require_room(paths: Paths, *, resume: bool, force: bool) -> None:
    """Refuse to lose what is there already."""
    require_absent(paths.adapter, force=force)
    if paths.adapter.is_dir():
        raise OutputError(f"{paths.adapter}: a folder. Remove it, or choose another name.")
    if paths.checkpoint.exists() and not resume and not force:
        raise OutputError(
            f"{paths.checkpoint}: a training of this name was interrupted. Pass --resume to finish "
            "it, or --force to start anew."
        )


def _full_output(output: Path) -> Path:
    return output.with_name(f"{output.stem}.full.safetensors")


def _full_config(config: TuneConfig) -> TuneConfig:
    return replace(config, full_data=None, shots=None, rescale="none", refit_epochs=0, name=None)


def _require_readable(sets: Mapping[str, DataSet], config: TuneConfig) -> None:
    """A broken image shall not end the run after the training."""
    for name in sorted({"test", "ood"} & set(sets)):
        for _ in sets[name].evaluation_batches(config.batch_size, share=share()):
            pass


def _require_full(
    config: TuneConfig, identity: dict[str, Any], output: Path, *, resume: bool, force: bool
) -> None:
    """Refuse before the training what would fail behind it."""
    splits = require_full_classes(config, identity["labels"])
    paths = _paths(_full_output(output))
    if resume and not force and paths.adapter.is_file():
        settings = _full_config(config).to_json()
        finished_record(
            paths.adapter, {**identity, "config": settings, "data": data_digest(splits)}
        )
    else:
        _require_room(paths, resume=resume, force=force)


def require_full_classes(config: TuneConfig, labels: Sequence[str]) -> dict[str, Split]:
    """The splits of the full set, which must have the classes of DATA.

    Raises:
        DataError: it has others.
    """
    assert config.full_data is not None  # noqa: S101 - the caller asked
    shares = config.val_share, config.test_share
    found, splits = load_splits(config.full_data, config.seed, *shares)
    if odd := sorted(set(found) ^ set(labels)):
        raise DataError(
            f"{config.full_data}: the full set must have the classes of DATA; they differ in "
            f"{odd[:5]}"
        )
    return splits


def _fsr_proxy(norms: dict[str, Any], full: TuneResult) -> dict[str, Any]:
    """Shift(S, T) / Shift(S, T_full), a stand-in for FSR.

    FSR itself asks for an optimal target that nobody can see (`methods` 3.1).
    """
    assert full.layer_norms is not None  # noqa: S101 - of the same method
    there = full.layer_norms["shift"]["total"]
    return {
        "value": norms["shift"]["total"] / there if there else None,
        "shift_full": there,
        "adapter": str(full.adapter),
    }


def _accuracy(
    tuned: Tuned, sets: Mapping[str, DataSet], name: str, config: TuneConfig
) -> float | None:
    """Top-1 on a split, None if there is none; asked once, after everything is decided."""
    return evaluate(tuned, sets[name], config.batch_size)[0] if name in sets else None


def _learned(tuned: Tuned) -> dict[str, Any]:
    tensors = {} if tuned.prompts is None else dict(tuned.prompts.tensors())
    if tuned.layer_norms is not None:
        tensors |= tuned.layer_norms.tensors()
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


def _plot(
    state: TrainState, norms: dict[str, Any] | None, paths: Paths, name: str
) -> tuple[Path | None, tuple[Path, ...]]:
    """The learning curves, and the pictures of tuned LayerNorms."""
    for ending in ("curves.png", "shift.png", "lambda.png", "id-ood.png"):
        paths.beside(ending).unlink(missing_ok=True)  # of an adapter that this one replaces
    try:
        from .layer_norm_plots import plot_id_ood, plot_lambda, plot_shift
        from .learning_curves import plot_curves  # needs matplotlib, an extra
    except ImportError:
        return None, ()
    plot_curves({name: state.history}, paths.curves)
    if norms is None:
        return paths.curves, ()
    plots = [paths.beside("shift.png")]
    plot_shift(norms["shift"], plots[0], name)
    if norms["rescale"]:
        plots.append(paths.beside("lambda.png"))
        plot_lambda(norms["rescale"], plots[-1], name)
        if any("ood_top1" in row for row in norms["rescale"]["curve"]):
            plots.append(paths.beside("id-ood.png"))
            plot_id_ood(norms["rescale"], plots[-1], name)
    return paths.curves, tuple(plots)
