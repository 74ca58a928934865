"""`vptkit.tune.tune`: one method, or `auto`, which tries several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.progress import SILENT
from vptkit.tune.run.tune_run import requested
from vptkit.tune.run.tune_run import tune as tune_one

from .auto_run import tune_auto

if TYPE_CHECKING:
    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.run.run_result import TuneResult

__all__ = ["tune"]


def tune(
    data: str | Path,
    output: str | Path,
    config: TuneConfig,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    test: bool = True,
) -> TuneResult:
    """Tune on a folder of images; choose on val, report test once, write the adapter.

    Args:
        data: see `vptkit.tune.data.dataset_reader.read_splits`.
        output: where the adapter goes, ending in .safetensors.
        config: every setting; with method "auto" see `vptkit.tune.auto.auto_run`.
        resume: go on where a killed run stopped. Of an adapter that is there already, of the same
            settings, data and weights, the result is returned.
        force: replace an existing adapter, forget an interrupted run.
        progress: told about each step.
        test: also measure on test and ood; off, their results are None.

    Raises:
        VptkitError: bad input; every message says what to do.
    """
    data, output = Path(data), Path(output)
    if config.method != "auto":
        return tune_one(
            data, output, config, resume=resume, force=force, progress=progress, test=test
        )
    with requested(
        data, output, config, progress, resume=resume, force=force, test=test
    ) as request:
        return tune_auto(request)
