"""How often a bundle is right, on a folder of classes."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.datasets.dataset_bounds import inside_of, require_inside
from vptkit.datasets.dataset_files import read_data_files
from vptkit.datasets.table_columns import parse_columns
from vptkit.errors import DataError, GateError
from vptkit.formats.manifest_schema import LOGITS, SCORES
from vptkit.images.broken_images import require_whole
from vptkit.images.image_file import class_folders, spelled
from vptkit.images.labelled_images import images_of, split_folders, split_of_name
from vptkit.paths.path_advice import advised
from vptkit.progress import SILENT
from vptkit.regular_files import is_folder
from vptkit.runtime.session.image_loader import decoded

from .evaluation_result import answers_to, judge
from .multilabel_images import in_order, read_several
from .multilabel_result import MultilabelEvaluation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.images.labelled_images import Classes, Splits
    from vptkit.progress import Progress
    from vptkit.runtime.session.session_protocol import Session

    from .evaluation_result import Evaluation

__all__ = ["choose_split", "evaluate", "labelled_data", "labelled_images", "split_folder"]

_RENAME = "rename the folders, or name the folder that holds the classes"


class _Images(NamedTuple):
    """What of DATA is judged: where it lies, which split it is (None: DATA has none), its images."""

    place: Path
    split: str | None
    classes: Classes


class _Labelled(NamedTuple):
    """The same with the truth: index of the class [N], or whether an image has each label [N, C]."""

    place: Path
    split: str | None
    paths: list[ImageFile]
    truth: NDArray[Any]


def evaluate(
    session: Session,
    data: str | Path,
    *,
    adapter: str | None = None,
    split: str | None = None,
    allow_outside: bool = False,
    skip_broken: bool = False,
    columns: str | None = None,
    decode: str | None = None,
    batch: int = 8,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Evaluation | MultilabelEvaluation:
    """Compare a bundle's answers with the names of the classes.

    Args:
        session: an open bundle; classes are matched with its labels by name. Where an image may have
            several labels, so it may in the data.
        data: one folder per class, a folder with splits (`labelled_images.SPLIT_NAMES`) of such
            folders, a CSV or WebDataset shards (`vptkit.datasets.dataset_files`).
        adapter: which of a bank's adapters to ask.
        split: which of those; "test" unless given.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        skip_broken: judge without the images that cannot be read; else all of them are named.
        columns: of `vptkit.datasets.table_columns.parse_columns`.
        decode: how files are decoded, "exact" or "fast" (`vptkit.images.image_pixels`).
        batch: images for each run; a fixed-batch bundle takes its own.
        workers: decoding threads, one for each usable core unless given.
        progress: told about each portion.

    Raises:
        DataError: no such data, a class that is none of the labels, or broken images.
        BundleError: no such adapter, or a bank and none named.
        GateError: the logits hold NaN or Inf.
    """
    data = Path(data)
    session.bundle.require_output(LOGITS)
    labels = session.bundle.labels_of(adapter)
    thresholds = session.bundle.thresholds_of(adapter)
    read = _with_one_label if thresholds is None else _with_several
    place, name, paths, truth = read(
        data, split, parse_columns(columns), labels, allow_outside=allow_outside
    )
    progress.total = len(paths)
    size = session.bundle.batch or batch
    parts: list[NDArray[Any]] = []
    broken: dict[int, str] = {}
    done = 0
    with contextlib.closing(
        decoded(
            paths,
            session.bundle.preprocess.reading(decode),
            workers=workers,
            read_ahead=max(32, 2 * size),
            inside=inside_of(data, allow_outside=allow_outside),
        )
    ) as images:
        while portion := [item for _, item in islice(images, size)]:
            whole = {i: item for i, item in enumerate(portion) if not isinstance(item, DataError)}
            broken |= {done + i: str(item) for i, item in enumerate(portion) if i not in whole}
            if whole and (skip_broken or not broken):  # else the rest is only looked at
                answers = session.answers(np.stack([*whole.values()]), adapter)
                if not np.isfinite(answers[LOGITS]).all():
                    raise GateError(
                        f"{place}: the logits hold NaN or Inf; no accuracy can be given"
                    )
                rows = truth[[done + i for i in whole]]
                one = thresholds is None
                parts.append(answers_to(answers[LOGITS], rows) if one else answers[SCORES])
            done += len(portion)
            progress.update(len(portion))
    if broken and not (skip_broken and parts):
        require_whole(place, [broken[i] for i in sorted(broken)], len(paths))
    kept = np.setdiff1d(np.arange(len(paths)), list(broken))
    skipped = tuple(paths[i] for i in sorted(broken))
    judged, given = [paths[i] for i in kept], np.concatenate(parts)
    if thresholds is None:
        return replace(judge(place, name, labels, judged, truth[kept], given), skipped=skipped)
    return MultilabelEvaluation(
        data=place,
        split=name,
        labels=labels,
        thresholds=thresholds,
        images=tuple(judged),
        scores=given,
        truth=truth[kept],
        skipped=skipped,
    )


def labelled_data(
    session: Session,
    data: Path,
    *,
    adapter: str | None = None,
    split: str | None = None,
) -> tuple[Path, str | None, list[ImageFile], NDArray[Any]]:
    """The images that `evaluate` judges a bundle of one label an image by.

    Args:
        session, data, adapter, split: as for `evaluate`.

    Returns:
        Where they lie, their split or None, the files, and the index of each one's class, [N].

    Raises:
        DataError, BundleError: see `evaluate`.
    """
    labels = session.bundle.labels_of(adapter)
    return _with_one_label(data, split, parse_columns(None), labels, allow_outside=False)


def _with_one_label(
    data: Path,
    split: str | None,
    columns: Mapping[str, str],
    labels: tuple[str, ...],
    *,
    allow_outside: bool,
) -> _Labelled:
    place, name, classes = _read(data, split, columns, allow_outside=allow_outside)
    return _Labelled(place, name, *labelled_images(place, classes, labels))


def _with_several(
    data: Path,
    split: str | None,
    columns: Mapping[str, str],
    labels: tuple[str, ...],
    *,
    allow_outside: bool,
) -> _Labelled:
    """Images of a list with all their labels; those of class folders have one each."""

    def single() -> Splits:
        _, name, classes = _listed(data, split, columns, allow_outside=allow_outside)
        return {name or "": classes}

    found = read_several(
        data,
        single,
        lambda there: choose_split(data, there, split),
        allow_outside=allow_outside,
        columns=columns,
    )
    truth = in_order(found, labels)
    if isinstance(truth, tuple):
        raise _unknown(data, truth, labels)
    return _Labelled(data, found.split or None, list(found.images), truth)


def _read(
    data: Path, split: str | None, columns: Mapping[str, str], *, allow_outside: bool
) -> _Images:
    with advised(data, "data", DataError):
        return _listed(data, split, columns, allow_outside=allow_outside)


def _listed(
    data: Path, split: str | None, columns: Mapping[str, str], *, allow_outside: bool
) -> _Images:
    listed = read_data_files(data, allow_outside=allow_outside, columns=columns)
    if listed is not None:
        name = choose_split(data, listed, split)
        return _Images(data, name or None, listed[name])
    place = split_folder(data, split)
    classes = class_folders(place, fewest=1, empty_ones=True)
    require_inside(data, images_of({"": classes}), allow_outside=allow_outside)
    return _Images(place, None if place == data else place.name, classes)


def choose_split(data: Path, found: Collection[str], split: str | None) -> str:
    """Which of the splits that were found: "test" unless given, or the only one there is.

    Raises:
        DataError: there is no such split.
    """
    if split is None:
        split = next(iter(found)) if len(found) == 1 else "test"
    chosen = split_of_name(split) or split
    if chosen not in found:
        there = ", ".join(sorted(filter(None, found))) or "images without a split"
        raise DataError(f"{data}: no split {split!r}, only {there}; --split names another")
    return chosen


def split_folder(data: Path, split: str | None) -> Path:
    """The folder of classes in `data`: itself, or one of its splits.

    Raises:
        DataError: the folder or its split does not exist.
    """
    if not is_folder(data):
        raise DataError(f"{data}: no such folder")
    if split is not None and is_folder(data / split):
        return data / split
    found = split_folders(data)
    return found[choose_split(data, found, split)] if found or split is not None else data


def labelled_images(
    place: Path, classes: Classes, labels: tuple[str, ...]
) -> tuple[list[ImageFile], NDArray[np.intp]]:
    """All images of some classes, and the index of each one's class among the labels.

    Args:
        place: what was read, for messages.
        classes: the images; labels without any are no fault.
        labels: of the bundle.

    Raises:
        DataError: a class is none of the labels.
    """
    places = {spelled(label): place for place, label in reversed([*enumerate(labels)])}
    unknown = sorted(set(classes) - set(places))
    if unknown:
        raise _unknown(place, unknown, labels)
    paths = [path for files in classes.values() for path in files]
    truth = [places[name] for name, files in classes.items() for _ in files]
    return paths, np.asarray(truth, dtype=np.intp)


def _unknown(place: Path, unknown: Sequence[str], labels: tuple[str, ...]) -> DataError:
    splits = [name for name in unknown if split_of_name(name)]
    cure = f"--split {splits[0]} takes that folder as a split" if splits else _RENAME
    return DataError(
        f"{place}: classes that are not labels of the bundle: {_few(unknown)}. "
        f"Its labels are {_few(labels)}{_nearest(unknown, labels)}; {cure}."
    )


def _nearest(unknown: Sequence[str], labels: Sequence[str]) -> str:
    """As " (rose is near roses)", for the first few that are spelt like a label."""
    plain = {label.lower(): label for label in reversed(labels)}
    near = [
        f"{name} is near {plain[match[0]]}"
        for name in unknown[:50]
        if (match := difflib.get_close_matches(name.lower(), plain, n=1, cutoff=0.6))
    ]
    return f" ({_few(near, 3)})" if near else ""


def _few(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
