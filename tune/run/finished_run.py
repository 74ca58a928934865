"""A run that is over: its adapter is taken as it is, instead of tuning once more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from vptkit.errors import AdapterError, OutputError
from vptkit.formats.adapter import read_adapter
from vptkit.tune.data.reading_pass import skipped_places
from vptkit.tune.methods.tuned_model import Tuned, wants_whitening
from vptkit.tune.training.checkpoint import completed
from vptkit.tune.training.distributed import leads

from .run_result import TuneResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vptkit.tune.config import TuneConfig

    from .load_run import RunInputs, RunRequest

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
            "pass --force (with --resume, to go on with a run that replaces it), or choose another "
            "name."
        )
    return record


def finished_result(request: RunRequest, inputs: RunInputs) -> TuneResult:
    """The result of a finished run, as the run itself returned it.

    Raises:
        OutputError: as of `finished_record`.
    """
    files, config, spec = request.files, request.config, inputs.spec
    record = finished_record(files.adapter, inputs.identity, config)
    if leads():
        files.remove_dead_parts()
    blank = [torch.zeros(spec.width, spec.width)] * spec.depth
    matrices = blank if wants_whitening(config) else None
    tuned = Tuned(inputs.backbone, spec, config, len(inputs.labels), matrices)  # to count in
    total, without_head = tuned.trainable()
    return TuneResult(
        adapter=files.adapter,
        trainable=total,
        trainable_prompts=without_head,
        best_epoch=record["best_epoch"],
        soup=record.get("soup"),
        val_top1=record["val_top1"],
        test_top1=record["test_top1"],
        ood_top1=record.get("ood_top1"),
        cross_validation=record.get("cross_validation"),
        seconds=time.perf_counter() - request.begun,
        device=record.get("computed", {}).get("device", "cpu"),
        metrics=files.metrics,
        page=files.page if files.page.exists() else None,
        auto=record.get("auto"),
        probe=record.get("probe"),
        layer_norms=record.get("layer_norms"),
        line=record.get("line"),
        confidence=record.get("confidence"),
        plots=tuple(path for path in files.pictures() if path.exists()),
        warnings=tuple(record.get("warnings") or ()),
        by_class=record.get("by_class") or {},
        task=config.task,
        multilabel=record.get("multilabel"),
        images=record.get("images") or {},
        skipped=skipped_places(request.data, record.get("skipped") or []),
        twice=record.get("twice") or [],
    )
