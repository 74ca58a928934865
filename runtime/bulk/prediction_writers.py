"""Predictions as JSONL, CSV or Parquet: to a file that appears whole or not at all, or to a stream."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from vptkit.atomic_files import atomic_file, require_absent, require_writable
from vptkit.errors import OutputError
from vptkit.runtime.stores.store_address import require_local
from vptkit.shown_text import spreadsheet_rows, tell
from vptkit.strict_json import json_text

from .parquet_file import parquet_writer, pyarrow_and_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any, TextIO

    from vptkit.runtime.session.session_protocol import Prediction

__all__ = [
    "Delivered",
    "csv_writer",
    "deliver",
    "given_cells",
    "jsonl_writer",
    "require_predictions_file",
    "saving",
    "text_writer",
]

_SUFFIXES = (".jsonl", ".csv", ".parquet")


def jsonl_writer(stream: TextIO) -> Callable[[Prediction], None]:
    """One JSON object a line, sent on at once."""

    def write(prediction: Prediction) -> None:
        stream.write(json_text(prediction.to_json()) + "\n")
        stream.flush()

    return write


def csv_writer(
    stream: TextIO, *, top_k: int, rejects: bool = False, several: bool = False
) -> Callable[[Prediction], None]:
    """A header, then one row an image: path, adapter, error, label_1, score_1, …, score_k.

    With `several` labels an image it is path, adapter, error, labels, scores: the labels that are
    given, and their scores, each as a JSON array. With `rejects` rejected (0 or 1) and typicality
    come last.

    Texts are written so that no spreadsheet computes them (`vptkit.shown_text.spreadsheet_rows`).
    """
    rows = spreadsheet_rows(stream)
    ranks = [f"{column}_{i}" for i in range(1, top_k + 1) for column in ("label", "score")]
    ranks = ["labels", "scores"] if several else ranks
    rows(["path", "adapter", "error", *ranks, *(("rejected", "typicality") if rejects else ())])

    def write(prediction: Prediction) -> None:
        cells: list[object] = [cell for pair in prediction.top for cell in pair]
        if several:
            cells = [*given_cells(prediction)]
        head = [prediction.source, prediction.adapter, prediction.error or ""]
        judged = prediction.rejected, prediction.typicality
        last = ["" if value is None else value for value in judged] if rejects else []
        rows([*head, *cells, *[""] * (len(ranks) - len(cells)), *map(_plain, last)])

    return write


def given_cells(prediction: Prediction) -> tuple[str, str]:
    """The labels that an image is given, and their scores, as JSON arrays; empty on an error."""
    if prediction.labels is None:
        return "", ""
    labels, scores = ([pair[i] for pair in prediction.labels] for i in (0, 1))
    return json_text(labels), json_text(scores)


def _plain(value: object) -> object:
    """0 or 1 of a truth value."""
    return int(value) if isinstance(value, bool) else value


def text_writer(stream: TextIO) -> Callable[[Prediction], None]:
    """One line an image for people: path, then each label with its score, or what is the matter.

    With several labels an image: those that it is given.
    """

    def write(prediction: Prediction) -> None:
        told = prediction.top if prediction.labels is None else prediction.labels
        labels = "  ".join(f"{label} {score:.3f}" for label, score in told)
        if prediction.labels == ():
            best, score = prediction.top[0]
            labels = f"no label (nearest: {best} {score:.3f})"
        if prediction.rejected:
            labels = f"none of these ({prediction.typicality:.3f})  {labels}".rstrip()
        tell(f"{prediction.source}  {labels or f'error: {_matter(prediction)}'}", stream)

    return write


def _matter(prediction: Prediction) -> str:
    """The error without the path, which stands before it."""
    return str(prediction.error).removeprefix(f"{prediction.source}: ")


class Delivered(NamedTuple):
    """How many predictions there were.

    Attributes:
        images: all of them.
        broken: those that are errors.
        first: of these the first; of a million no more are kept.
    """

    images: int
    broken: int
    first: Prediction | None


def deliver(
    predictions: Iterable[Prediction], writers: Sequence[Callable[[Prediction], None]]
) -> Delivered:
    """Hand each prediction to every writer as it comes."""
    count, broken = 0, 0
    first: Prediction | None = None
    for prediction in predictions:
        count += 1
        if prediction.error is not None:
            broken += 1
            first = prediction if first is None else first
        for write in writers:
            write(prediction)
    return Delivered(count, broken, first)


def require_predictions_file(path: Path) -> None:
    """Refuse early what `saving` would refuse in the end.

    Raises:
        OutputError: another suffix, or the file cannot be written.
        MissingExtraError: pyarrow is not installed, and the file is .parquet.
    """
    require_local(path)
    if path.suffix not in _SUFFIXES:
        raise OutputError(
            f"{path}: predictions are saved as {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}, not "
            f"{path.suffix!r}"
        )
    if path.suffix == ".parquet":
        pyarrow_and_parquet()
    require_absent(path, force=True)  # its folder is there
    require_writable(path)


@contextlib.contextmanager
def saving(
    path: Path,
    *,
    top_k: int,
    rejects: bool = False,
    several: bool = False,
    force: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Iterator[Callable[[Prediction], None]]:
    """Yield a writer for a .jsonl, .csv or .parquet file that appears when the block ends well.

    Args:
        path: the file; its suffix decides the format.
        top_k: number of label columns of a CSV file.
        rejects: whether a CSV or Parquet file says which images were rejected.
        several: whether images may have several labels (`csv_writer`).
        force: replace a file that exists.
        about: what a Parquet file says of the run, values of JSON.

    Raises:
        OutputError, MissingExtraError: see `require_predictions_file`; or the file exists.
    """
    require_absent(path, force=force)
    require_predictions_file(path)
    with atomic_file(path) as part, contextlib.ExitStack() as stack:
        if path.suffix == ".parquet":
            yield stack.enter_context(
                parquet_writer(part, rejects=rejects, several=several, about=about or {})
            )
            return
        stream = stack.enter_context(part.open("w", encoding="utf-8", newline=""))
        if path.suffix == ".jsonl":
            yield jsonl_writer(stream)
        else:
            yield csv_writer(stream, top_k=top_k, rejects=rejects, several=several)
