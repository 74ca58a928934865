"""The first step of a run: what is asked, and what its data and backbone turn out to be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.atomic_files import require_writable
from vptkit.backbones.weights_places import remember_weights
from vptkit.checkpoints.weights_files import weights_file
from vptkit.errors import DataError, VptkitError
from vptkit.formats.adapter import BackboneRef
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.images.broken_images import require_whole, skipped_text
from vptkit.progress import SILENT, begin_phase, keep_line
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model
from vptkit.tune.backbone.timm_backbone import load_backbone, preprocess_of
from vptkit.tune.data.dataset import DataSet
from vptkit.tune.data.multilabel_splits import load_label_splits
from vptkit.tune.data.reading_pass import (
    Reading,
    Twice,
    read_all,
    twice,
    twice_text,
    whole_ones,
    without_broken,
)
from vptkit.tune.data.splits import FEWEST, data_digest, load_splits, splits_line
from vptkit.tune.methods.tuned_model import merging_of, pooling
from vptkit.tune.training.distributed import leads, share
from vptkit.tune.training.event_log import EventLog, require_no_log
from vptkit.tune.training.run_files import require_free

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.images.preprocess import Preprocess
    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.splits import Split
    from vptkit.tune.training.run_files import RunFiles

__all__ = [
    "RunInputs",
    "RunRequest",
    "load_run",
    "load_splits_of",
    "read_images",
    "require_apart",
    "require_judges",
    "require_val",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `vptkit.tune.run.tune_run.tune` was asked for.

    Attributes:
        data: see `vptkit.tune.data.dataset_reader.read_splits`.
        files: the adapter's, and those beside it.
        config: every setting.
        resume, force, test: of `tune`.
        progress: told about each step; silent in all processes of torchrun but the first.
        begun: when the call began, of `time.perf_counter`.
    """

    data: Path
    files: RunFiles
    config: TuneConfig
    resume: bool
    force: bool
    test: bool
    progress: Progress
    begun: float

    def log(self, *, more: bool = False) -> EventLog | None:
        """TensorBoard's, if one is asked for, in the process that writes.

        Args:
            more: what is there is of this run, and stays.
        """
        folder = self.config.tensorboard
        return EventLog(folder, more=more) if folder is not None and leads() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """What a run starts from.

    Attributes:
        there: the adapter is there already, and may only be one of this run.
        finished: it is, and no checkpoint: all is done, and it shall be taken as it is.
        labels: names of the classes.
        splits: train; val, test and ood where the data has them: paths and classes.
        sets: the same as images; without test and ood if those shall not be looked at.
        backbone: the frozen timm model.
        spec: its description.
        reference: how the adapter names it: name, arguments, description, SHA-256 of the weights.
        preprocess: how it wants its images.
        origin: where its weights came from, for the adapter's notes.
        identity: settings, digests of data and weights, classes: what a checkpoint or an adapter
            must agree with to be of this run.
        reading: of every image, which were broken and left out; behind `read_images`, or if those
            shall be skipped.
        twice: images in two splits; behind `read_images`.
    """

    there: bool
    finished: bool
    labels: tuple[str, ...]
    splits: dict[str, Split]
    sets: Mapping[str, DataSet]
    backbone: Any
    spec: BackboneSpec
    reference: BackboneRef
    preprocess: Preprocess
    origin: dict[str, Any]
    identity: dict[str, Any]
    reading: Reading = field(default_factory=Reading)
    twice: tuple[Twice, ...] = ()

    def warnings(self, data: Path) -> tuple[str, ...]:
        """What the images give reason to: sentences.

        Args:
            data: what was asked for.
        """
        lost = [one.image for one in self.reading.broken]
        skipped = [skipped_text(data, lost)] if lost else []
        return (
            *self.splits["train"].notes,
            *skipped,
            *([twice_text(data, self.twice)] if self.twice else []),
        )


def load_run(request: RunRequest) -> RunInputs:
    """Find the images, build the backbone, and say which run this is. Nothing is written.

    Raises:
        OutputError: files are there that the run would overwrite, or none can be written.
        DataError: the images are not there, or too few.
        BackboneError: timm does not know the backbone, its weights do not fit, or it cannot merge
            tokens, and is asked to.
    """
    config, files = request.config, request.files
    there = request.resume and not request.force and files.adapter.is_file()
    if not there:
        require_free(files, resume=request.resume, force=request.force)
        if config.tensorboard is not None:
            require_no_log([config.tensorboard], resume=request.resume, force=request.force)
    # Killed behind the adapter, or told to replace it: what lies beside it may be of another run.
    finished = there and not files.checkpoint.exists()
    if not finished and leads():
        require_writable(files.adapter)
    begin_phase(request.progress, "reading")
    labels, splits = load_splits_of(request.data, config)
    if leads():
        line = splits_line(request.data, labels, splits, shots=config.shots is not None)
        keep_line(request.progress, line)
    loaded = load_backbone(config.backbone, config.backbone_args, config.weights)
    model = loaded.model
    spec = spec_from_model(model, config.backbone)
    for refuses in (pooling, merging_of):  # what cannot be, before images are read
        refuses(spec, config)
    preprocess = preprocess_of(model)
    reference = BackboneRef(
        name=config.backbone,
        args=loaded.args,
        spec=spec,
        sha256=digest_of_weights(weights_from_model(model)),
    )
    if config.weights is not None:
        remember_weights(str(reference.sha256), weights_file(config.weights))
    sets, reading = _sets(request, labels, splits, preprocess)
    splits = {name: data.split for name, data in sets.items()}
    seen = [name for name in splits if request.test or name in ("train", "val")]
    return RunInputs(
        there=there,
        finished=finished,
        labels=labels,
        splits=splits,
        sets={name: sets[name] for name in seen},
        backbone=model,
        spec=spec,
        reference=reference,
        preprocess=preprocess,
        origin=loaded.origin,
        identity={
            "config": config.to_json(),
            "data": _digest(request, sets),
            "backbone": reference.sha256,
            "labels": list(labels),
        },
        reading=reading,
    )


def load_splits_of(data: Path, config: TuneConfig) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Names of the classes, or labels, and the splits, as the settings ask for them.

    Raises:
        DataError: of `load_splits` or `load_label_splits`.
    """
    drawn = config.seed, config.val_share, config.test_share
    outside, columns = config.allow_outside, config.columns
    if config.task == MULTILABEL:
        return load_label_splits(data, *drawn, allow_outside=outside, columns=columns)
    return load_splits(data, *drawn, shots=config.shots, allow_outside=outside, columns=columns)


def require_val(splits: Mapping[str, Split], config: TuneConfig) -> None:
    """Refuse what only a val split can choose.

    Raises:
        VptkitError: λ, or a head behind it, without val.
    """
    if "val" in splits:
        return
    for key, off in (("rescale", "none"), ("refit_epochs", 0)):
        if (value := getattr(config, key)) != off:
            raise VptkitError(
                f"{key} is {value}, but there is no val split of {FEWEST} images a class in the mean "
                f"to choose by, only cross-validation on {len(splits['train'].images)} images: leave "
                f"--{key.replace('_', '-')} away, or add images to val"
            )


def require_judges(data: Path, splits: Mapping[str, Split]) -> None:
    """Refuse to compare trainings where no image is left to say which is better.

    Raises:
        DataError: there is no val, and no class has a second image to be held out.
    """
    targets = splits["train"].targets
    fewest = len(targets) if targets.ndim == 2 else np.bincount(targets).max()
    if "val" not in splits and fewest < 2:
        raise DataError(
            f"{data}: one image a class, so nothing says which training is better: add images, or "
            "tune with one --method"
        )


def read_images(request: RunRequest, inputs: RunInputs) -> RunInputs:
    """Decode every image once: a broken one shall not end the run after an hour.

    Of torchrun's processes each reads its share, and nobody looks for what is in two splits, unless
    `strict` asks for that. Without a look at test, as in a trial of a sweep, nobody does either: who
    runs the trials looks once.

    Returns:
        The same, with what is in two splits.

    Raises:
        DataError: images that cannot be decoded, all by name; or, if `strict`, some in two splits.
    """
    config, reading = request.config, inputs.reading
    whole = share()[1] == 1 or config.strict or config.skip_broken
    if not reading.looks:
        reading = read_all(inputs.sets, request.progress, (0, 1) if whole else share())
        require_whole(request.data, reading.reasons, reading.count)
    looked = whole and request.test
    inputs = replace(inputs, reading=reading, twice=twice(inputs.sets, reading) if looked else ())
    if config.strict:
        _refuse_copies(request.data, inputs.twice)
    for warning in inputs.warnings(request.data):
        keep_line(request.progress, f"warning: {warning}")
    return inputs


def require_apart(
    data: Path, splits: Mapping[str, Split], preprocess: Preprocess, *, skip_broken: bool
) -> None:
    """Refuse images in two splits: once for all trials of a sweep, which do not look themselves.

    Args:
        data: for messages.
        splits: every one.
        preprocess: of a backbone.
        skip_broken: images that cannot be decoded are nobody's copies.

    Raises:
        DataError: there are such; or broken ones.
    """
    sets = {name: DataSet(split, preprocess) for name, split in splits.items()}
    reading = read_all(sets, SILENT)
    if not skip_broken:
        require_whole(data, reading.reasons, reading.count)
    _refuse_copies(data, twice(*whole_ones(sets, reading)))


def _refuse_copies(data: Path, found: Sequence[Twice]) -> None:
    if found:
        text = twice_text(data, found)
        raise DataError(f"{data}: {text}. Take them out of one, or leave --strict away.")


def _digest(request: RunRequest, sets: Mapping[str, DataSet]) -> str:
    """Of all images; where one is not even a file, all that are broken are named.

    Raises:
        DataError: there are such.
    """
    try:
        return data_digest({name: data.split for name, data in sets.items()})
    except DataError:
        found = read_all(sets, request.progress)
        require_whole(request.data, found.reasons, found.count)
        raise


def _sets(
    request: RunRequest,
    labels: tuple[str, ...],
    splits: Mapping[str, Split],
    preprocess: Preprocess,
) -> tuple[dict[str, DataSet], Reading]:
    """All splits as images; without broken ones, if those shall be skipped."""
    sets = {name: DataSet(split, preprocess) for name, split in splits.items()}
    if not request.config.skip_broken:
        return sets, Reading()
    return without_broken(request.data, labels, sets, read_all(sets, request.progress))
