"""The images by which `export --reject-from` learns what is like them: train, and val."""

from pathlib import Path
from typing import Any

from vptkit.errors import DataError
from vptkit.formats.manifest_schema import MULTILABEL

__all__ = ["rejection_images"]

_MOST = 10_000  # images of a split; covariances of more are the same


def rejection_images(
    data: Path,
    adapter: Any,
    *,
    allow_outside: bool = False,
    columns: str | None = None,
    skip_broken: bool = False,
    decode: str | None = None,
) -> tuple[Any, Any]:
    """Prepared images of the splits train and val of a data set.

    Args:
        data: a data set with these splits (`vptkit.datasets.dataset_files`, or folders).
        adapter: whose labels and preprocessing.
        allow_outside: of `vptkit.datasets.dataset_bounds.require_inside`.
        columns: of `vptkit.datasets.table_columns.parse_columns`.
        skip_broken: go on without images that cannot be read, and say which.
        decode: how files are decoded, "exact" or "fast".

    Raises:
        DataError: one of the splits is missing, or a class is none of the labels.
    """
    from vptkit.datasets.table_columns import parse_columns
    from vptkit.images.broken_images import skipped_text
    from vptkit.images.labelled_images import split_folders
    from vptkit.paths.path_advice import advised
    from vptkit.regular_files import is_folder
    from vptkit.runtime.evaluation.image_batches import open_image_batches
    from vptkit.runtime.evaluation.multilabel_images import listed_images
    from vptkit.shown_text import tell

    several = adapter.task == MULTILABEL
    with advised(data, "data", DataError):
        listed = listed_images(
            data, several=several, allow_outside=allow_outside, columns=parse_columns(columns)
        )
        splits = listed or (split_folders(data) if is_folder(data) else {})
    missing = [name for name in ("train", "val") if name not in splits]
    if missing:
        raise DataError(
            f"{data}: no split {' and '.join(missing)}. --reject-from needs both: it measures "
            "distances to train, and reads off val how far is far."
        )
    train, val = (
        open_image_batches(
            data,
            adapter.preprocess,
            labels=adapter.labels,
            split=name,
            limit=_MOST,
            allow_outside=allow_outside,
            columns=columns,
            skip_broken=skip_broken,
            decode=decode,
            several=several,
        )
        for name in ("train", "val")
    )
    for name, images in (("train", train), ("val", val)):
        if images.skipped:
            tell(f"note: {skipped_text(data, images.skipped)}")
        if images.truth is None and not several:
            raise DataError(
                f"{data}: classes of {name} are not labels of the adapter {adapter.name!r}; "
                "--reject-from takes the data that it was tuned on."
            )
    return train, val
