"""`vptkit eval --reject T`: how many images of the classes a bundle loses, how many others it lets in.

A bundle that was exported with `--reject-from` calls an image none of the labels where at most T of `val`
is as far (`vptkit.scores.typicality`). Of the labelled images that is a mistake, a false reject; of images
of other things (`--ood`) acceptance is the mistake.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.datasets.dataset_bounds import inside_of, require_inside
from vptkit.datasets.dataset_files import read_data_files
from vptkit.datasets.multilabel_dataset import read_multilabel
from vptkit.datasets.table_columns import parse_columns
from vptkit.errors import DataError, GateError
from vptkit.formats.manifest_schema import FEATURES, LOGITS, MULTILABEL
from vptkit.images.image_file import class_folders, image_files, spelled
from vptkit.images.labelled_images import split_folders
from vptkit.paths.path_advice import advised
from vptkit.regular_files import is_folder
from vptkit.runtime.session.prediction import open_typicality

from .accuracy import evaluate
from .image_batches import batches_of
from .rejection_rates import RejectionRates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.runtime.session.session_protocol import Choice, Session
    from vptkit.scores.typicality import Typicality

    from .evaluation_result import Evaluation
    from .multilabel_result import MultilabelEvaluation

__all__ = ["evaluate_with_rejection"]


def evaluate_with_rejection(
    session: Session,
    data: str | Path,
    rate: float,
    *,
    ood: str | Path | None = None,
    **options: Any,
) -> Evaluation | MultilabelEvaluation:
    """`accuracy.evaluate`, and what `--reject` would do to the same images.

    Args:
        session: of a bundle that was exported with `--output both --reject-from`.
        data: labelled images.
        rate: T, the share of images like those of `val` that may be rejected.
        ood: images of other things: a plain folder, or a data set, of which (its test, else val) those
            classes are taken that are no labels; where an image may have several labels, those
            images that have none of the bundle's.
        options: of `evaluate`.

    Raises:
        BundleError: the bundle cannot reject; or see `evaluate`.
        DataError: all classes of `ood` are labels; or see `evaluate`.
        GateError: features hold NaN or Inf; or see `evaluate`.
        VptkitError: `rate` is no share, or smaller than `val` can tell.
    """
    known = open_typicality(session.bundle, rate)
    watched = _Watched(session, known)
    place = None if ood is None else Path(ood)
    reading = {key: options.get(key) for key in ("allow_outside", "columns")}
    several = session.bundle.task == MULTILABEL
    others = (
        [] if place is None else _others(place, session.bundle.labels, several=several, **reading)
    )
    result = evaluate(watched, data, **options)
    shares = np.concatenate(watched.shares)
    rates = RejectionRates(rate=rate, count=len(shares), rejected=int((shares <= rate).sum()))
    if place is not None:
        shares, skipped = _shares(watched, place, others, options)
        rates = replace(
            rates,
            ood=place,
            ood_count=len(shares),
            ood_rejected=int((shares <= rate).sum()),
            ood_skipped=skipped,
        )
    return replace(result, rejection=rates)


@dataclass(slots=True)
class _Watched:
    """A session that notes the typicality of whatever it runs."""

    session: Session
    known: Typicality
    shares: list[NDArray[np.float64]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, images: NDArray[np.uint8], adapter: Choice | None = None) -> NDArray[np.float32]:
        return self.answers(images, adapter)[LOGITS]

    def answers(
        self, images: NDArray[np.uint8], adapter: Choice | None = None
    ) -> dict[str, NDArray[np.float32]]:
        found = self.session.answers(images, adapter)
        if not np.isfinite(found[FEATURES]).all():
            raise GateError("the features hold NaN or Inf; no image can be rejected or accepted")
        self.shares.append(self.known.shares(found[FEATURES]))
        return found


def _shares(
    watched: _Watched, place: Path, paths: Sequence[ImageFile], options: dict[str, Any]
) -> tuple[NDArray[np.float64], tuple[ImageFile, ...]]:
    """Typicality of the images of other things, and which of them are broken."""
    allow = bool(options.get("allow_outside"))
    images = batches_of(
        paths,
        watched.bundle.preprocess.reading(options.get("decode")),
        None,
        batch=watched.bundle.batch or options.get("batch") or 8,
        inside=inside_of(place, allow_outside=allow),
        skip_broken=bool(options.get("skip_broken")),
    )
    watched.shares.clear()
    for batch in images.batches():
        watched.answers(batch, options.get("adapter"))
    return np.concatenate(watched.shares), images.skipped


def _others(
    data: Path,
    labels: tuple[str, ...],
    *,
    several: bool,
    allow_outside: bool | None,
    columns: str | None,
) -> list[ImageFile]:
    """Images of a data set whose classes are no labels, or of a plain folder.

    Raises:
        DataError: no such data, no images, or none of another class.
    """
    allow = bool(allow_outside)
    with advised(data, "data", DataError):
        if several and (free := _of_no_label(data, labels, allow_outside=allow, columns=columns)):
            return free
        listed = read_data_files(data, allow_outside=allow, columns=parse_columns(columns))
        if listed is None and not is_folder(data):
            raise DataError(f"{data}: no such folder")
    splits: dict[str, Any] = dict(listed or split_folders(data))
    found = next((splits[name] for name in ("test", "val", *splits) if name in splits), data)
    if isinstance(found, Path):
        try:
            classes = class_folders(found, fewest=1, empty_ones=True)
        except DataError:
            classes = {"": image_files(found)}
    else:
        classes = found
    paths: list[ImageFile] = [
        path for name, files in classes.items() if name not in labels for path in files
    ]
    if not paths:
        why = (
            "all of its classes are labels of the bundle" if any(classes.values()) else "no images"
        )
        raise DataError(f"{data}: {why}; --ood takes images of other things")
    if listed is None:
        require_inside(data, paths, allow_outside=allow)
    return paths


def _of_no_label(
    data: Path, labels: tuple[str, ...], *, allow_outside: bool, columns: str | None
) -> list[ImageFile]:
    """Images of a list that have none of some labels; none where there is no list.

    Raises:
        DataError: all images of the list have one.
    """
    found = read_multilabel(data, dict, allow_outside=allow_outside, columns=parse_columns(columns))
    if not found.splits:
        return []
    name = next(name for name in ("test", "val", *found.splits) if name in found.splits)
    known = [i for i, label in enumerate(found.labels) if label in {*map(spelled, labels)}]
    part = found.splits[name]
    others = np.flatnonzero(part.truth[:, known].sum(axis=1) == 0)
    if not len(others):
        raise DataError(
            f"{data}: all of its images have labels of the bundle; --ood takes images of other things"
        )
    return [part.images[i] for i in others]
