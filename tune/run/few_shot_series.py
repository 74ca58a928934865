"""`tune --shots 1,2,5,10`: one training for each number of images a class, and their table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import require_absent
from vptkit.errors import VptkitError
from vptkit.progress import progress as show
from vptkit.text_table import columns
from vptkit.tune.data.splits import load_splits

from .full_data_run import require_full_classes
from .tune_run import tune as tune_one
from .tune_run import tune_full

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vptkit.tune.config import TuneConfig

    from .run_result import TuneResult

__all__ = ["ShotsResult", "shots_of", "tune_shots"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotsResult:
    """What the trainings gave.

    Attributes:
        runs: one record a training, by number of shots: shots, method (of auto the one that was
            kept), adapter, best_epoch, val_top1, test_top1, ood_top1 (None without such a split),
            warnings.
    """

    runs: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `vptkit tune --shots 1,2 --json`."""
        return {"runs": list(self.runs)}

    def to_text(self) -> str:
        """A table with one line a training."""
        scores = ("val_top1", "test_top1", "ood_top1")
        rows = [
            [
                str(run["shots"]),
                run["method"],
                str(run["best_epoch"]),
                *("-" if run[key] is None else f"{run[key]:.4f}" for key in scores),
                run["adapter"],
            ]
            for run in self.runs
        ]
        return columns(["shots", "method", "best epoch", *scores, "adapter"], rows)


def shots_of(value: Any) -> tuple[int, ...]:
    """Numbers of shots from "1,2,5" or from TOML's 5 or [1, 2, 5]; sorted. None is ().

    Raises:
        VptkitError: not whole numbers above 0, or one of them twice.
    """
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else value
    parts = parts if isinstance(parts, list) else [parts]
    try:
        numbers = sorted(int(str(part)) for part in parts)  # as text: true and 2.5 are refused
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1 or len(set(numbers)) < len(numbers):
        raise VptkitError(
            f"settings: shots is {value!r}, expected images a class as 5 or 1,2,5, each once"
        )
    return tuple(numbers)


def tune_shots(
    data: Path,
    output: Path,
    config: TuneConfig,
    shots: Sequence[int],
    *,
    tune: Callable[..., TuneResult] = tune_one,
    resume: bool = False,
    force: bool = False,
) -> ShotsResult:
    """Tune once for each number of shots; the adapters are called after it.

    NAME.safetensors becomes NAME-1shot.safetensors, NAME-2shot.safetensors and so on, each with
    its metrics and page. More shots are a superset of fewer; val, test and ood are the same.
    With `full_data`, NAME.full.safetensors is tuned first, and all are compared with it.

    Args:
        data, config, force: of `vptkit.tune.run.tune_run.tune`.
        output: names the adapters, ending in .safetensors.
        shots: training images of each class.
        tune: what makes one adapter.
        resume: go on where a killed run stopped; an adapter that is there is not tuned again,
            unless forced; it must be of these settings, data and weights.

    Raises:
        VptkitError: as of `tune`; a class that is too small for the largest number is found before
            the first training.
    """
    paths = {count: output.with_stem(f"{output.stem}-{count}shot") for count in shots}
    for path in () if resume else paths.values():
        require_absent(path, force=force)
    shares = config.val_share, config.test_share
    labels, _ = load_splits(
        data,
        config.seed,
        *shares,
        shots=max(shots),
        allow_outside=config.allow_outside,
        columns=config.columns,
    )
    full = None
    if config.full_data is not None:  # one for all numbers of shots
        require_full_classes(config, labels)
        with show("full set") as bar:
            full = tune_full(config, output, resume=resume, force=force, progress=bar)
    runs = []
    for count, path in paths.items():
        name = None if config.name is None else f"{config.name}-{count}shot"
        log = None if config.tensorboard is None else config.tensorboard / f"{count}shot"
        settings: dict[str, Any] = {"shots": count, "name": name, "tensorboard": log}
        one = replace(config, **settings, allow_chance=True)  # few shots may be too few
        with show(f"{count}-shot") as bar:
            given = {} if full is None else {"full": full}
            result = tune(data, path, one, resume=resume, force=force, progress=bar, **given)
        record = result.to_json()
        keys = ("best_epoch", "val_top1", "test_top1", "ood_top1", "warnings")
        method = config.method if result.auto is None else result.auto["kept"]
        about = {"shots": count, "method": method, "adapter": str(path)}
        runs.append({**about, **{key: record[key] for key in keys}})
    return ShotsResult(runs=tuple(runs))
