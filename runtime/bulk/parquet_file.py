"""Predictions as Parquet: rows go to the disk as they come, and the file says what made them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vptkit.errors import MissingExtraError
from vptkit.shown_text import printable
from vptkit.strict_json import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from vptkit.runtime.session.session_protocol import Prediction

__all__ = ["parquet_writer", "pyarrow_and_parquet"]

_ROWS = 8192  # of a row group
METADATA = b"vptkit"  # the key of the file's metadata


def pyarrow_and_parquet(advice: str = "writing .parquet") -> tuple[Any, Any]:
    """Pyarrow, and its module for Parquet.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "data", advice) from error
    return pa, parquet


@contextlib.contextmanager
def parquet_writer(
    part: Path, *, rejects: bool = False, several: bool = False, about: Mapping[str, Any]
) -> Iterator[Callable[[Prediction], None]]:
    """Yield a writer of rows: path, adapter, error, label, score, and lists top_labels, top_scores.

    With `several` labels an image the lists `labels` and `scores` stand in the place of label and
    score. With `rejects` rejected and typicality come last.

    Args:
        part: an empty file.
        rejects, several: of `vptkit.runtime.bulk.prediction_writers.saving`.
        about: values of JSON, kept as the file's metadata under the key "vptkit".

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = pyarrow_and_parquet()
    schema = arrow.schema(
        _columns(arrow, rejects=rejects, several=several),
        metadata={METADATA: canonical_json(dict(about)).encode("ascii")},
    )
    kept: list[dict[str, Any]] = []
    with parquet.ParquetWriter(str(part), schema) as writer:

        def send() -> None:
            writer.write_table(arrow.Table.from_pylist(kept, schema=schema))
            kept.clear()

        def write(prediction: Prediction) -> None:
            kept.append(_row(prediction, several=several))
            if len(kept) == _ROWS:
                send()

        yield write
        if kept:
            send()


def _columns(arrow: Any, *, rejects: bool, several: bool) -> list[tuple[str, Any]]:
    text, number = arrow.string(), arrow.float64()
    texts, numbers = arrow.list_(text), arrow.list_(number)
    columns = [("path", text), ("adapter", text), ("error", text)]
    columns += [("labels", texts), ("scores", numbers)] if several else []
    columns += [] if several else [("label", text), ("score", number)]
    columns += [("top_labels", texts), ("top_scores", numbers)]
    return columns + ([("rejected", arrow.bool_()), ("typicality", number)] if rejects else [])


def _row(prediction: Prediction, *, several: bool) -> dict[str, Any]:
    """Keys that are no columns are passed over."""
    failed = prediction.error is not None
    row: dict[str, Any] = {
        "path": printable(prediction.source),
        "adapter": prediction.adapter,
        "error": printable(prediction.error) if prediction.error is not None else None,
        "rejected": prediction.rejected,
        "typicality": prediction.typicality,
        "top_labels": None if failed else [label for label, _ in prediction.top],
        "top_scores": None if failed else [score for _, score in prediction.top],
    }
    if not several:
        return row | {"label": prediction.label, "score": prediction.score}
    given = prediction.labels
    row["labels"] = None if given is None else [label for label, _ in given]
    row["scores"] = None if given is None else [score for _, score in given]
    return row
