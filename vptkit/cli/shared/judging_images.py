"""Which images shape a graph of lower precision, and which judge it; never the same, never too kind.

On images that an adapter was trained on every precision looks good. So the gate takes val, or test,
of the data set that calibrates; where only training images are left, it says so.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.datasets.dataset_bounds import inside_of, require_inside
from vptkit.datasets.table_columns import parse_columns
from vptkit.errors import DataError
from vptkit.formats.manifest_schema import MULTILABEL, SINGLE
from vptkit.images.broken_images import skipped_text
from vptkit.images.image_file import class_folders, digest_of_image, folders_in, image_files
from vptkit.images.image_sketch import count_known
from vptkit.images.labelled_images import SPLIT_NAMES, split_folders, split_of_name
from vptkit.regular_files import is_folder
from vptkit.shown_text import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from vptkit.formats.manifest_schema import Task
    from vptkit.images.image_file import ImageFile
    from vptkit.images.labelled_images import Classes
    from vptkit.images.preprocess import Preprocess
    from vptkit.progress import Phases

__all__ = ["Asked", "Judging", "Tuned", "evidence_of", "judging_images"]

_GATE_ORDER = ("test", "val", "ood", "", "train")
_CALIBRATION_ORDER = ("train", "", "val", "test", "ood")


class Asked(NamedTuple):
    """What the command line names.

    Attributes:
        calibration, gate: data sets, splits of them, or folders of images.
        most: images of the calibration, at most.
        most_gate: of the gate; None for all.
        order: which split of a data set judges, where `gate` names none.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: of `vptkit.datasets.table_columns.parse_columns`.
        skip_broken: go on without images that cannot be read, and say which.
        decode: how files are decoded, "exact" or "fast" (`vptkit.images.image_pixels`).
    """

    calibration: Path | None
    gate: Path | None
    most: int = 128
    most_gate: int | None = None
    order: tuple[str, ...] = _GATE_ORDER
    allow_outside: bool = False
    columns: str | None = None
    skip_broken: bool = False
    decode: str | None = None


class Tuned(NamedTuple):
    """What an adapter says of itself.

    Attributes:
        labels: of its classes.
        preprocess: how images are prepared.
        record: of its training, free form (`Adapter.train`).
        task: whether an image may have several labels; then those of a data set do not matter.
    """

    labels: tuple[str, ...]
    preprocess: Preprocess
    record: Mapping[str, Any]
    task: Task = SINGLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Images (`ImageBatches`), their splits, and why those of the gate flatter (None: not)."""

    calibration: Any = None
    calibration_split: str | None = None
    gate: Any = None
    gate_split: str | None = None
    too_kind: str | None = None

    def evidence(self, run: Any, phase: Phases) -> Any:
        """As the exporter takes it (`Evidence`)."""
        from vptkit.export.numerics.evidence import Evidence

        return Evidence(
            run=run,
            calibration=self.calibration,
            gate=self.gate,
            calibration_split=self.calibration_split,
            gate_split=self.gate_split,
            too_kind=self.too_kind,
            decode=next((x.decode for x in (self.gate, self.calibration) if x), None),
            phase=phase,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """A data set, and what of it is meant.

    Attributes:
        path: what was named; its files must lie there.
        root: the data set that it is a split of, or the same.
        splits: split ("" where nothing names one) → its folder, or its classes.
        meant: the split that was named, as by DATA/train.
        listed: a file names the split of each image; the folders that they lie in say nothing.
    """

    path: Path
    root: Path
    splits: Mapping[str, Path | Classes]
    meant: str | None = None
    listed: bool = False

    def first(self, order: Sequence[str]) -> str:
        """The split that is meant, else the first that there is."""
        return self.meant or next(name for name in order if name in self.splits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Images:
    """Some images of a data set: files, classes (None: unknown), and how many each class has."""

    files: list[ImageFile]
    truth: Any
    counts: Mapping[str, int] = field(default_factory=dict)


def evidence_of(asked: Asked, run: Callable[[Any], Any], phase: Phases) -> Callable[[Any], Any]:
    """A function that gives an adapter's images and a runner to the exporter.

    Args:
        asked: the images.
        run: preprocessing → `vptkit.export.numerics.evidence.Runner`.
        phase: is told what is done.
    """

    def evidence(adapter: Any) -> Any:
        tuned = Tuned(adapter.labels, adapter.preprocess, adapter.train, adapter.task)
        return judging_images(asked, tuned).evidence(run(adapter.preprocess), phase)

    return evidence


def judging_images(asked: Asked, tuned: Tuned) -> Judging:
    """Find the images.

    With a calibration alone, the gate's are val of the same data set, else test, else what the
    calibration leaves over; none, where it leaves nothing.

    Raises:
        DataError: no such data, or no images.
    """
    reader = _Reader(asked, tuned)
    several = tuned.task == MULTILABEL
    shaped = None if asked.calibration is None else _read(asked.calibration, asked, several=several)
    calibration, split = None, ""
    if shaped is not None:
        split = shaped.first(_CALIBRATION_ORDER)
        calibration = reader.batches(shaped, split, limit=asked.most)
    if asked.gate is not None:
        judges = _read(asked.gate, asked, several=several)
        candidates = [judges.first(asked.order)]
    elif shaped is not None:
        judges = shaped
        candidates = list(dict.fromkeys([*({"val", "test"} & set(shaped.splits)), split]))
        candidates.sort(key=("val", "test", split).index)
    else:
        return Judging()
    gate, gate_split, too_kind = reader.gate(judges, candidates, calibration, shaped)
    return Judging(
        calibration=calibration,
        calibration_split=split or None,
        gate=gate,
        gate_split=gate_split or None,
        too_kind=too_kind,
    )


class _NoneLeftError(DataError):
    """No image is left to judge by."""


class _Reader:
    """Opens images, for one adapter."""

    def __init__(self, asked: Asked, tuned: Tuned) -> None:
        self.asked, self.tuned = asked, tuned

    def batches(
        self, data: _Data, split: str, *, limit: int | None = None, without: Any = None
    ) -> Any:
        """Images of a split, prepared (`ImageBatches`).

        Raises:
            DataError: there are none, or all of them are broken.
        """
        from vptkit.runtime.evaluation.image_batches import NoneReadableError, batches_of

        found = self._images(data, split)
        bound = data.path if split == data.meant else data.root
        if not data.listed:
            allow = self.asked.allow_outside
            require_inside(bound, found.files, allow_outside=allow)
        inside = inside_of(bound, allow_outside=self.asked.allow_outside)
        rows = list(range(len(found.files)))
        if without is not None:
            rows = _others(found.files, rows, without, inside)
        if limit is not None and len(rows) > limit:
            rows = [rows[i * len(rows) // limit] for i in range(limit)]
        if not rows:
            raise _NoneLeftError(
                f"{bound}: no images that were not calibrated on. Name others to judge by, or calibrate "
                "on fewer (--calibration-images)."
                if found.files
                else f"{bound}: no images. Expected some dozens at least."
            )
        try:
            images = batches_of(
                [found.files[i] for i in rows],
                self.tuned.preprocess.reading(self.asked.decode),
                None if found.truth is None else found.truth[rows],
                inside=inside,
                skip_broken=self.asked.skip_broken,
            )
        except NoneReadableError as error:
            raise _NoneLeftError(str(error)) from error
        if images.skipped:
            tell(f"note: {skipped_text(bound, images.skipped)}")
        return images

    def gate(
        self, data: _Data, candidates: Sequence[str], calibration: Any, shaped: _Data | None
    ) -> tuple[Any, str, str | None]:
        """The first split whose images do not flatter, else the first that has any left."""
        found = []
        for split in candidates:
            try:
                images = self.batches(data, split, limit=self.asked.most_gate, without=calibration)
            except _NoneLeftError:
                if self.asked.gate is not None:
                    raise
                continue  # the calibration took them all
            kindness = self._too_kind(data, split, images, shaped)
            if kindness is None:
                return images, split, None
            found.append((images, split, kindness))
        return found[0] if found else (None, "", None)

    def _too_kind(self, data: _Data, split: str, images: Any, shaped: _Data | None) -> str | None:
        """Why these images flatter every graph, or None."""
        if split == "train":
            return "judged on training images"
        cross_validation = self.tuned.record.get("cross_validation")
        if split == "val" and isinstance(cross_validation, dict) and cross_validation.get("joined"):
            return "judged on training images (val was so small that it was trained on, too)"
        linked = 0 if data.listed else sum(map(_lies_in_training, images.paths))
        if linked:
            part = f" ({linked} of {images.count} lie in a train folder)"
            return f"judged on training images{part if linked < images.count else ''}"
        sketch = self.tuned.record.get("trained_on")
        if known := count_known(images.paths, sketch, inside=images.inside):
            return f"judged on training images ({known} of {images.count} are copies of these)"
        if split:
            return None
        if self._is_tuned_data(self._images(data, split).counts):
            return (
                "judged on images that may be training images (as many of each class as the data "
                "that was tuned on)"
            )
        if shaped is not None and _within(data.path, shaped.path):
            return (
                "judged on images that may be training images (what the calibration left over, of "
                "a folder that names no split)"
            )
        return None

    def _is_tuned_data(self, counts: Mapping[str, int]) -> bool:
        """Whether a folder without splits is what was tuned on: as many images of each class."""
        recorded = self.tuned.record.get("images")
        if not counts or not isinstance(recorded, dict):
            return False
        total: Counter[str] = Counter()
        for split in ("train", "val", "test"):
            part = recorded.get(split)
            if isinstance(part, dict):  # a stranger may have written it
                total.update({k: n for k, n in part.items() if isinstance(n, int)})
        return total == Counter(counts)

    def _images(self, data: _Data, split: str) -> _Images:
        """Images of other classes than the labels, or of none, serve without their truth."""
        from vptkit.runtime.evaluation.accuracy import labelled_images

        place = data.splits[split]
        if not isinstance(place, Path):
            classes: Classes = place
        else:
            try:
                classes = class_folders(place, fewest=1, empty_ones=True)
            except DataError:
                return _Images(files=[*image_files(place)], truth=None)
        counts = {label: len(files) for label, files in classes.items()}
        try:
            files, truth = labelled_images(data.root, classes, self.tuned.labels)
        except DataError:
            loose = image_files(place) if isinstance(place, Path) else _all(classes)
            return _Images(files=[*loose], truth=None, counts=counts)
        return _Images(files=files, truth=truth, counts=counts)


def _all(classes: Classes) -> list[ImageFile]:
    return [image for images in classes.values() for image in images]


def _read(path: Path, asked: Asked, *, several: bool) -> _Data:
    """What lies at a path: a data set, a split of one, or images.

    Raises:
        DataError: nothing of that kind.
    """
    from vptkit.runtime.evaluation.multilabel_images import listed_images

    listed = listed_images(
        path,
        several=several,
        allow_outside=asked.allow_outside,
        columns=parse_columns(asked.columns),
    )
    if listed is not None:
        if set(listed) != {""}:
            return _Data(path=path, root=path, splits=listed, listed=True)
        name = _split_in_name(path)
        return _Data(path=path, root=path, splits={name: listed[""]}, meant=name or None)
    if not is_folder(path):
        raise DataError(f"{path}: no such folder")
    if splits := _split_folders(path):
        return _Data(path=path, root=path, splits=splits)
    for real in (Path(os.path.abspath(path)), path.resolve()):  # noqa: PTH100 -- links stay
        for place in (real, real.parent):  # a split, or a class in there
            beside = _split_folders_beside(place)
            for split, folder in beside.items():
                if folder.samefile(place):
                    known = {**beside, split: path}
                    return _Data(path=path, root=place.parent, splits=known, meant=split)
    name = split_of_name(path.resolve().name) or ""
    return _Data(path=path, root=path, splits={name: path}, meant=name or None)


def _split_folders_beside(place: Path) -> dict[str, Path]:
    if split_of_name(place.name) is None:
        return {}
    with contextlib.suppress(DataError):
        return _split_folders(place.parent)
    return {}


def _split_folders(data: Path) -> dict[str, Path]:
    """The splits of a data set; also the only one, where it holds folders of its own."""
    if found := split_folders(data):
        return found
    alone = [path for path in folders_in(data) if path.name.lower() in SPLIT_NAMES["train"]]
    return {"train": alone[0]} if alone and folders_in(alone[0]) else {}


def _split_in_name(file: Path) -> str:
    """Of a list of images or a shard without splits: what its name, or its folder's, tells."""
    names = (file.stem, file.resolve().stem, file.resolve().parent.name)
    return next((split for name in names if (split := split_of_name(name))), "")


def _lies_in_training(image: ImageFile) -> bool:
    """Whether a file is, links resolved, in train/ or in a class folder there."""
    if not isinstance(image, Path):
        return False
    real = Path(os.path.realpath(image))
    splits = [split_of_name(parent.name) for parent in list(real.parents)[:2]]
    return next(filter(None, splits), None) == "train"


def _within(path: Path, folder: Path) -> bool:
    inner, outer = path.resolve(), folder.resolve()
    return inner == outer or outer in inner.parents or inner in outer.parents


def _others(
    files: Sequence[ImageFile], rows: Collection[int], taken: Any, inside: str | None
) -> list[int]:
    """Rows of the images that were not calibrated on: neither that file nor its bytes."""
    sizes = {_size(image) for image in taken.paths}
    digests = {digest_of_image(image, inside=taken.inside) for image in taken.paths}
    same = set(taken.paths)
    return [
        i
        for i in rows
        if files[i] not in same
        and not (_size(files[i]) in sizes and digest_of_image(files[i], inside=inside) in digests)
    ]


def _size(image: ImageFile) -> int:
    """In bytes; -1 of what is not there, which says so when it is opened."""
    if not isinstance(image, Path):
        return int(getattr(image, "size", -1))
    try:
        return image.stat().st_size
    except OSError:
        return -1
