"""Real images for judging a graph: a folder's images, prepared, gone through more than once."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from vptkit.datasets.dataset_bounds import inside_of, require_inside
from vptkit.datasets.table_columns import parse_columns
from vptkit.errors import DataError
from vptkit.images.broken_images import require_whole
from vptkit.images.image_file import class_folders, digest_of_image, image_files
from vptkit.images.labelled_images import split_folders
from vptkit.paths.path_advice import advised
from vptkit.regular_files import is_folder
from vptkit.runtime.session.image_loader import decoded

from .accuracy import choose_split, labelled_images, split_folder
from .multilabel_images import listed_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.images.labelled_images import Splits
    from vptkit.images.preprocess import Preprocess
    from vptkit.runtime.session.image_loader import Decoded

__all__ = ["ImageBatches", "NoneReadableError", "batches_of", "open_image_batches"]

_KEPT_BYTES = 512 << 20  # prepared images that are kept in memory for the next pass


class NoneReadableError(DataError):
    """All of some images are broken."""


@dataclass(slots=True, kw_only=True)
class ImageBatches:
    """Prepared images of some files.

    Attributes:
        paths: the files.
        preprocess: size, crop and filter.
        truth: index of each file's class among the labels, or None.
        batch: images of one batch.
        inside: of `vptkit.datasets.dataset_bounds.inside_of`.
        skipped: files that are none of `paths` because they cannot be read.
        kept: their batches, once they were gone through, if there is room.
        digest: SHA-256 over the files' digests, in order.
    """

    paths: list[ImageFile]
    preprocess: Preprocess
    truth: NDArray[np.intp] | None
    batch: int
    inside: str | None = None
    skipped: tuple[ImageFile, ...] = ()
    kept: list[NDArray[np.uint8]] = field(default_factory=list, repr=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        total = hashlib.sha256()
        for path in self.paths:
            total.update(digest_of_image(path, inside=self.inside))
        self.digest = total.hexdigest()

    @property
    def decode(self) -> str:
        """How they are decoded, "exact" or "fast"."""
        return self.preprocess.decode

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.paths)

    def batches(self) -> Iterator[NDArray[np.uint8]]:
        """uint8 [B, H, W, 3], in order; decoded once if all of them fit into 512 MB.

        Raises:
            DataError: files are broken; all of them are named.
        """
        if self.kept:
            yield from self.kept
            return
        height, width = self.preprocess.size
        keep = self.count * height * width * 3 <= _KEPT_BYTES
        kept: list[NDArray[np.uint8]] = []
        with contextlib.closing(decoded(self.paths, self.preprocess, inside=self.inside)) as images:
            while part := list(islice(images, self.batch)):
                self._require_whole(part, images)
                batch = np.stack([pixels for _, pixels in part])  # type: ignore[misc]
                if keep:
                    kept.append(batch)
                yield batch
        self.kept = kept

    def _require_whole(
        self, part: list[Decoded[ImageFile]], rest: Iterator[Decoded[ImageFile]]
    ) -> None:
        """Refuse broken images; where one is met, the rest is only looked at."""
        if any(isinstance(item, DataError) for _, item in part):
            every = [str(item) for _, item in (*part, *rest) if isinstance(item, DataError)]
            require_whole("calibration or gate", every, self.count)


def batches_of(
    paths: Sequence[ImageFile],
    preprocess: Preprocess,
    truth: NDArray[np.intp] | None,
    *,
    batch: int = 8,
    inside: str | None = None,
    skip_broken: bool = False,
) -> ImageBatches:
    """Some files as `ImageBatches`; broken ones are found when they are read, or left out here.

    Args:
        paths, preprocess, truth, batch, inside: of `ImageBatches`.
        skip_broken: read all of them once now, and leave out those that cannot be.

    Raises:
        NoneReadableError: of those that are to be left out, none is left; all are named.
    """
    broken: dict[int, str] = {}
    kept: list[NDArray[np.uint8]] = []
    if skip_broken:
        height, width = preprocess.size
        keep = len(paths) * height * width * 3 <= _KEPT_BYTES
        with contextlib.closing(decoded(paths, preprocess, inside=inside)) as images:
            for i, (_, item) in enumerate(images):
                if isinstance(item, DataError):
                    broken[i] = str(item)
                elif keep:
                    kept.append(item)
        if len(broken) == len(paths):
            try:
                require_whole(
                    "calibration or gate", [*broken.values()], len(paths), cure=" None is left"
                )
            except DataError as error:
                raise NoneReadableError(str(error)) from None
    rows = [i for i in range(len(paths)) if i not in broken]
    return ImageBatches(
        paths=[paths[i] for i in rows],
        preprocess=preprocess,
        truth=None if truth is None else truth[rows],
        batch=batch,
        inside=inside,
        skipped=tuple(paths[i] for i in broken),
        kept=[np.stack(kept[i : i + batch]) for i in range(0, len(kept), batch)],
    )


def open_image_batches(
    folder: Path,
    preprocess: Preprocess,
    *,
    labels: tuple[str, ...] = (),
    split: str | None = None,
    limit: int | None = None,
    without: ImageBatches | None = None,
    allow_outside: bool = False,
    columns: str | None = None,
    skip_broken: bool = False,
    decode: str | None = None,
    batch: int = 8,
    several: bool = False,
) -> ImageBatches:
    """Images of a folder, for calibration or for the gate.

    Args:
        folder: class folders, splits of class folders, a plain folder of images, a CSV or
            WebDataset shards (`vptkit.datasets.dataset_files`).
        preprocess: how they are prepared.
        labels: the adapter's; where all classes of the folder are among them, `truth` is known.
        split: which split; where there is none of that name "test", else "val".
        limit: at most so many, spread evenly over the folder.
        without: files that are left out.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: of `vptkit.datasets.table_columns.parse_columns`.
        skip_broken: leave out images that cannot be read (`batches_of`).
        decode: how files are decoded, "exact" or "fast" (`vptkit.images.image_pixels`).
        batch: images of one batch.
        several: images may have several labels, which do not matter: `truth` is unknown.

    Raises:
        DataError: no such folder, or no images.
    """
    with advised(folder, "data", DataError):
        listed = listed_images(
            folder, several=several, allow_outside=allow_outside, columns=parse_columns(columns)
        )
        place, paths, truth = _found(folder, listed, split, labels)
    if listed is None:
        require_inside(folder, paths, allow_outside=allow_outside)
    left_out = set() if without is None else set(without.paths)
    rows = [i for i, path in enumerate(paths) if path not in left_out]
    if limit is not None and len(rows) > limit:
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    if not rows:
        raise DataError(f"{place}: no images. Expected some dozens at least.")
    return batches_of(
        [paths[i] for i in rows],
        preprocess.reading(decode),
        None if truth is None else truth[rows],
        batch=batch,
        inside=inside_of(folder, allow_outside=allow_outside),
        skip_broken=skip_broken,
    )


def _found(
    data: Path, listed: Splits | None, split: str | None, labels: tuple[str, ...]
) -> tuple[Path, list[ImageFile], NDArray[np.intp] | None]:
    """Where the images are, which they are, and their classes among the labels.

    Images of other classes, or of none, serve all the same, without a truth.
    """
    splits = listed or (split_folders(data) if is_folder(data) else {})
    wanted = next((name for name in (split, "test", "val") if name in splits), None)
    if listed is not None:
        classes = listed[choose_split(data, listed, wanted)]
        try:
            return data, *labelled_images(data, classes, labels)
        except DataError:
            return data, [image for images in classes.values() for image in images], None
    place = split_folder(data, wanted)
    try:
        return place, *labelled_images(place, class_folders(place, empty_ones=True), labels)
    except DataError:
        return place, [*image_files(place)], None
