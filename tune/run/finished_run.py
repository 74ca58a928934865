"""A run that is over: its adapter is taken as it is, instead of tuning once more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from vptkit.errors import AdapterError, OutputError
from vptkit.formats.adapter import read_adapter
from vptkit.tune.methods.tuned_model import Tuned, wants_whitening
from vptkit.tune.training.checkpoint import completed

from .run_result import TuneResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.training.phased_training import Paths

__all__ = ["finished_record", "finished_result"]


def finished_record(
    path: Path, identity: Mapping[str, Any], config: TuneConfig | None = None
) -> dict[str, Any]:
    """What the adapter of a finished run says of its training.

    Args:
        path: of the adapter.
        identity: settings, data, weights and classes, as a checkpoint has them.
        config: if it asks for the FSR proxy, the run must have computed it.

    Raises:
        OutputError: the file is no adapter, or one of something else.
    """
    try:
        record = dict(read_adapter(path).train)
    except AdapterError:
        record = {}
    proxied = "fsr_proxy" in (record.get("layer_norms") or {})
    same = completed({key: record.get(key) for key in identity}) == identity
    if not same or (config is not None and config.full_data is not None and not proxied):
        raise OutputError(
            f"{path}: exists already, of other settings, data or weights. Resume with the same, "
            "pass --force, or choose another name."
        )
    return record


def finished_result(
    paths: Paths,
    identity: Mapping[str, Any],
    config: TuneConfig,
    backbone: Any,
    spec: BackboneSpec,
    begun: float,
) -> TuneResult:
    """The result of a finished run, as the run itself returned it.

    Args:
        paths: of the run.
        identity, config: of `finished_record`.
        backbone, spec: the frozen timm model and its description.
        begun: when this call began, of `time.perf_counter`.

    Raises:
        OutputError: as of `finished_record`.
    """
    record = finished_record(paths.adapter, identity, config)
    blank = [torch.zeros(spec.width, spec.width)] * spec.depth
    matrices = blank if wants_whitening(config) else None
    tuned = Tuned(backbone, spec, config, len(identity["labels"]), matrices)  # to count in
    total, without_head = tuned.trainable()
    pictures = (paths.beside(f"{name}.png") for name in ("shift", "lambda", "id-ood"))
    return TuneResult(
        adapter=paths.adapter,
        trainable=total,
        trainable_prompts=without_head,
        best_epoch=record["best_epoch"],
        val_top1=record["val_top1"],
        test_top1=record["test_top1"],
        ood_top1=record.get("ood_top1"),
        seconds=time.perf_counter() - begun,
        device=record.get("computed", {}).get("device", "cpu"),
        metrics=paths.metrics,
        curves=paths.curves if paths.curves.exists() else None,
        layer_norms=record.get("layer_norms"),
        plots=tuple(path for path in pictures if path.exists()),
    )
