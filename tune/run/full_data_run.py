"""The second training, on the full set of a few-shot run: its settings, its file, the FSR proxy.

FSR itself asks for an optimal target that nobody can see (`methods` 3.1); the shift of the same
LayerNorms on the full set stands in for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vptkit.errors import DataError
from vptkit.tune.data.splits import data_digest, load_splits
from vptkit.tune.training.run_files import require_free, run_files

from .finished_run import finished_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.splits import Split

    from .load_run import RunInputs, RunRequest
    from .run_result import TuneResult

__all__ = [
    "fsr_proxy",
    "full_config",
    "full_output",
    "require_full_classes",
    "require_full_data",
]


def full_output(output: Path) -> Path:
    """NAME.safetensors → NAME.full.safetensors, the adapter of the full set."""
    return output.with_name(f"{output.stem}.full.safetensors")


def full_config(config: TuneConfig) -> TuneConfig:
    """The settings of the training on the full set: all images, no λ, no proxy of its own."""
    log = None if config.tensorboard is None else config.tensorboard / "full"
    fixed: dict[str, Any] = {
        "full_data": None,
        "shots": None,
        "rescale": "none",
        "refit_epochs": 0,
        "name": None,
    }
    return replace(config, **fixed, tensorboard=log)


def require_full_data(request: RunRequest, inputs: RunInputs) -> None:
    """Refuse before the training what would fail behind it.

    Raises:
        DataError: the full set has other classes.
        OutputError: the full set's adapter or checkpoint is there, of another run.
    """
    config = request.config
    splits = require_full_classes(config, inputs.labels)
    files = run_files(full_output(request.files.adapter))
    if request.resume and not request.force and files.adapter.is_file():
        settings = full_config(config).to_json()
        finished_record(
            files.adapter, {**inputs.identity, "config": settings, "data": data_digest(splits)}
        )
    else:
        require_free(files, resume=request.resume, force=request.force)


def require_full_classes(config: TuneConfig, labels: Sequence[str]) -> dict[str, Split]:
    """The splits of the full set, which must have the classes of DATA.

    Raises:
        DataError: it has others.
    """
    assert config.full_data is not None  # noqa: S101 - the caller asked
    shares = config.val_share, config.test_share
    found, splits = load_splits(
        config.full_data,
        config.seed,
        *shares,
        allow_outside=config.allow_outside,
        columns=config.columns,
    )
    if odd := sorted(set(found) ^ set(labels)):
        raise DataError(
            f"{config.full_data}: the full set must have the classes of DATA; they differ in "
            f"{odd[:5]}"
        )
    return splits


def fsr_proxy(norms: Mapping[str, Any], full: TuneResult) -> dict[str, Any]:
    """Shift(S, T) / Shift(S, T_full), a stand-in for FSR.

    Args:
        norms: of the run, `Rescaled.to_json`.
        full: of the training on the full set, by the same method.

    Returns:
        {"value": the ratio, None where nothing moved on the full set; "shift_full"; "adapter"}.
    """
    assert full.layer_norms is not None  # noqa: S101 - of the same method
    there = full.layer_norms["shift"]["total"]
    return {
        "value": norms["shift"]["total"] / there if there else None,
        "shift_full": there,
        "adapter": str(full.adapter),
    }
