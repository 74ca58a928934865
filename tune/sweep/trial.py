"""One trial of a sweep: `tune` without a look at the test images.

A trial hands its checkpoint on after each epoch, so that it can be continued by another process on
another machine. Its adapter is thrown away: the best trial's is made once more in the end, from its
last checkpoint, and only then is accuracy on test computed. Nothing can be chosen by it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file
from vptkit.errors import DataError, TrainingError, VptkitError
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.formats.tensor_file import read_metadata
from vptkit.strict_json import parse_json
from vptkit.tune.backbone.timm_backbone import create_backbone, preprocess_of
from vptkit.tune.config import config_from_mapping
from vptkit.tune.data.dataset_reader import read_splits
from vptkit.tune.data.multilabel_splits import read_label_sets
from vptkit.tune.run.load_run import load_splits_of, require_apart, require_judges, require_val
from vptkit.tune.run.tune_run import tune
from vptkit.tune.training.event_log import require_tensorboard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.splits import Split
    from vptkit.tune.run.run_result import TuneResult

__all__ = ["CHECKPOINT", "adapter_from_checkpoint", "record_of", "require_inputs", "run_trial"]

CHECKPOINT = "checkpoint.safetensors"  # the file's name, wherever a checkpoint is kept


def require_inputs(data: Path, configs: Iterable[TuneConfig]) -> None:
    """Refuse, before anything starts, what every worker would stumble over.

    Raises:
        VptkitError: a method is auto; seed or shares vary, and would draw another val split for each
            trial; or a setting asks for a val split that is not there.
        DataError: the images are not there, or too few to compare trials by; or, if one is `strict`,
            some are in two splits.
        BackboneError: timm does not know the backbone, or its weights do not fit.
    """
    configs = list(configs)
    if any(config.tensorboard is not None for config in configs):
        require_tensorboard()
    if any(config.method == "auto" for config in configs):
        raise VptkitError(
            "method auto is a search of its own, and no trial of a sweep: give [tune] one method, or "
            "[space] several"
        )
    drawing = ("seed", "val_share", "test_share")
    varied = [key for key in drawing if len({getattr(config, key) for config in configs}) > 1]
    if len({config.task for config in configs}) > 1:
        raise VptkitError("[space] varies task: losses of one label and of several compare nothing")
    outside = any(config.allow_outside for config in configs)
    if varied and "val" not in _named_splits(data, replace(configs[0], allow_outside=outside)):
        raise VptkitError(
            f"{data} has no val split of its own, it is drawn by seed, val_share and test_share, "
            f"and the sweep varies {', '.join(varied)}: its trials would be judged on different "
            "images. Give the data a val split, or fix these in [tune]."
        )
    splits: dict[int | None, dict[str, Split]] = {}
    for config in configs:
        if config.shots not in splits:
            splits[config.shots] = load_splits_of(data, replace(config, allow_outside=outside))[1]
        require_val(splits[config.shots], config)
    for found in splits.values():
        require_judges(data, found)
    backbones = {f"{c.backbone} {c.backbone_args} {c.weights}": c for c in configs}
    models = [create_backbone(c.backbone, c.backbone_args, c.weights) for c in backbones.values()]
    strict = [config for config in configs if config.strict]
    for found in splits.values() if strict else ():
        require_apart(data, found, preprocess_of(models[0]), skip_broken=strict[0].skip_broken)


def _named_splits(data: Path, config: TuneConfig) -> Collection[str]:
    """The splits that the data itself names."""
    outside, columns = config.allow_outside, config.columns
    if config.task == MULTILABEL:
        return read_label_sets(data, allow_outside=outside, columns=columns).splits
    return read_splits(data, allow_outside=outside, columns=columns)


def run_trial(
    data: Path,
    settings: dict[str, Any],
    start: Path | None,
    report: Callable[[dict[str, Any], Path | None], None],
) -> None:
    """Train, and report each epoch.

    Args:
        data, settings: of `vptkit.tune.tune`.
        start: a checkpoint to go on from.
        report: called after each epoch with `record_of` the checkpoint and the checkpoint's file,
            which is gone after the call; and once more at the end, with finished = true and what
            the adapter itself has on val: accuracy (of several labels an image mAP), and log-loss
            with its temperature. What it raises ends the trial.

    Raises:
        VptkitError: the settings or the data do not allow it.
    """
    with tempfile.TemporaryDirectory(prefix="vptkit-trial-") as folder:
        output = Path(folder) / "trial.safetensors"
        last: dict[str, Any] = {}
        if start is not None:
            last = record_of(start)
            shutil.copyfile(start, _checkpoint_of(output))

        def after_epoch(checkpoint: Path) -> None:
            last.update(record_of(checkpoint))
            report(dict(last), checkpoint)

        # the full set says nothing about val; a trial that learned nothing is a poor one
        # and what it would draw is thrown away with it
        without: dict[str, Any] = {"full_data": None, "allow_chance": True, "pictures": "none"}
        config = replace(config_from_mapping(settings), **without)
        how: dict[str, Any] = {
            "resume": start is not None,
            "force": start is None,
        }  # a dead worker may have logged
        try:
            result = tune(data, output, config, **how, test=False, on_epoch=after_epoch)
        except TrainingError as error:  # the trial's fault, as any of its settings is
            raise VptkitError(str(error)) from error
        if not last:  # it ran away in its first epoch: there is nothing to report but that
            reason = "; ".join(result.warnings) or "the training had no epoch"
            raise VptkitError(reason.removeprefix("the training diverged: "))
        judged = {"best_top1": result.val_top1}
        if result.multilabel is not None:  # it is left as it was where no image has a label
            part = result.multilabel["val"] or {}
            judged = {"best_top1": part.get("map") or last["best_top1"]}
        if result.confidence is not None:
            judged["best_loss"] = result.confidence["val_loss"][1]
        report({**last, **judged, "finished": True}, None)


def adapter_from_checkpoint(
    data: Path, output: Path, config: TuneConfig, checkpoint: Path
) -> TuneResult:
    """The adapter of a trial that is over, with its accuracy on test.

    Args:
        data, config: of the trial.
        output: where the adapter goes; replaced if it exists.
        checkpoint: the trial's last one.

    Raises:
        VptkitError: the data changed since, or is not to be found here.
    """
    with atomic_file(_checkpoint_of(output)) as part:  # whatever stands at that name, a link too
        shutil.copyfile(checkpoint, part)
    config = replace(config, allow_chance=True, tensorboard=None)  # the trial has its log
    return tune(data, output, config, resume=True, force=True)


def record_of(checkpoint: Path) -> dict[str, Any]:
    """How far a checkpoint has come: a flat document.

    {"epoch", "val_top1", "val_loss", ... of the last epoch; "best_epoch", "best_top1", "best_loss";
    "finished": false}. Of several labels an image all that is called top1 is mAP.

    Raises:
        DataError: not a checkpoint.
    """
    try:
        text = read_metadata(checkpoint, DataError)["vptkit"]
        document = parse_json(text, checkpoint, DataError)
        records = [
            document.get("start", {}),
            *document["history"],
        ]  # of an older vptkit's there is no start
        best = records[document["best_epoch"]]
        last = {key: value for key, value in records[-1].items() if key != "probe"}
        return {
            **last,
            "best_epoch": document["best_epoch"],
            "best_top1": best["val_top1"],
            "best_loss": best["val_loss"],
            "finished": False,
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{checkpoint}: not a checkpoint of vptkit tune: {error}") from error


def _checkpoint_of(output: Path) -> Path:
    """Where `tune` looks for the checkpoint of an adapter."""
    return output.with_name(f"{output.stem}.checkpoint.safetensors")
