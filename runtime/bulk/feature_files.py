"""Features of images as .npy or .parquet: a file that appears whole or not at all.

`x.npy` is one float32 array [N, f], and `x.npy.csv` says of each row which image it is; `x.parquet`
has the same in columns. Rows stand in the order of the images; images with an error have none. Rows
go to the disk as they come, so a large folder takes no memory.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.atomic_files import atomic_file, require_absent, require_writable
from vptkit.errors import OutputError
from vptkit.runtime.stores.store_address import require_local
from vptkit.shown_text import spreadsheet_rows

from .parquet_file import pyarrow_and_parquet
from .prediction_writers import given_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO, TextIO

    from vptkit.runtime.session.session_protocol import Prediction

    Write = Callable[[Prediction], None]

__all__ = ["require_features_file", "saving_features"]

_SUFFIXES = (".npy", ".parquet")
_HEAD = ("path", "adapter", "label", "score")
_GIVEN = ("path", "adapter", "labels", "scores")  # of several labels an image
_ROWS = 1024  # of a row group of Parquet
_HEADER = 128  # bytes before the numbers of an .npy file (numpy.lib.format)


def require_features_file(path: Path, *, force: bool = False) -> None:
    """Refuse early what `saving_features` would refuse in the end.

    Raises:
        OutputError: another suffix, the file exists, or it cannot be written.
        MissingExtraError: pyarrow is not installed, and the file is .parquet.
    """
    require_local(path)
    if path.suffix not in _SUFFIXES:
        raise OutputError(
            f"{path}: features are saved as {' or '.join(_SUFFIXES)}, not {path.suffix!r}"
        )
    if path.suffix == ".parquet":
        _arrow()
    for file in (path, _names_of(path)) if path.suffix == ".npy" else (path,):
        require_absent(file, force=force)
        require_writable(file)


@contextlib.contextmanager
def saving_features(
    path: Path, *, width: int, several: bool = False, force: bool = False
) -> Iterator[Write]:
    """Yield a writer of predictions for a file that appears when the block ends well.

    Args:
        path: NAME.npy or NAME.parquet.
        width: f, how many numbers the features of an image are.
        several: images may have several labels: lists of those that they are given, and of their
            scores, stand in the place of one.
        force: replace a file that exists.

    Raises:
        OutputError, MissingExtraError: see `require_features_file`.
    """
    require_features_file(path, force=force)
    with contextlib.ExitStack() as stack:
        part = stack.enter_context(atomic_file(path))
        if path.suffix == ".parquet":
            yield stack.enter_context(_parquet(part, width, several=several))
            return
        names = stack.enter_context(atomic_file(_names_of(path)))
        rows = stack.enter_context(names.open("w", encoding="utf-8", newline=""))
        numbers = stack.enter_context(part.open("wb"))
        yield stack.enter_context(_npy(numbers, rows, width, several=several))


def _names_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.csv")


@contextlib.contextmanager
def _npy(stream: BinaryIO, names: TextIO, width: int, *, several: bool) -> Iterator[Write]:
    """The header is written last, when the number of rows is known, into the room left for it."""
    count = 0
    stream.write(bytes(_HEADER))
    row = spreadsheet_rows(names)
    row(_GIVEN if several else _HEAD)

    def write(prediction: Prediction) -> None:
        nonlocal count
        if prediction.features is None:
            return
        stream.write(np.ascontiguousarray(prediction.features, dtype="<f4").tobytes())
        path, adapter, label, score = _head_of(prediction)
        said = given_cells(prediction) if several else (label or "", "" if score is None else score)
        row([path, adapter, *said])
        count += 1

    yield write
    stream.seek(0)
    stream.write(_npy_header(count, width))


def _npy_header(count: int, width: int) -> bytes:
    """Magic, version 1.0, and what float32 [count, width] is, filled up to 128 bytes."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {width}), }}"
    text = text.ljust(_HEADER - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii")


@contextlib.contextmanager
def _parquet(part: Path, width: int, *, several: bool) -> Iterator[Write]:
    """Columns path, adapter, label, score, and features: a list of `width` float32."""
    arrow, parquet = _arrow()
    text, vector = arrow.string(), arrow.list_(arrow.float32(), width)
    said = (text, arrow.float64())
    said = tuple(map(arrow.list_, said)) if several else said
    kinds = dict(zip(_GIVEN if several else _HEAD, (text, text, *said), strict=True))
    head = _given_of if several else _head_of
    schema = arrow.schema([*kinds.items(), ("features", vector)])
    kept: list[Prediction] = []
    with parquet.ParquetWriter(str(part), schema) as writer:

        def send() -> None:
            heads = zip(*map(head, kept), strict=True)
            columns = [
                arrow.array(column, kind)
                for column, kind in zip(heads, kinds.values(), strict=True)
            ]
            numbers = np.concatenate([np.asarray(p.features, dtype=np.float32) for p in kept])
            rows = arrow.FixedSizeListArray.from_arrays(arrow.array(numbers), width)
            writer.write_table(arrow.Table.from_arrays([*columns, rows], schema=schema))
            kept.clear()

        def write(prediction: Prediction) -> None:
            if prediction.features is None:
                return
            kept.append(prediction)
            if len(kept) == _ROWS:
                send()

        yield write
        if kept:
            send()


def _head_of(prediction: Prediction) -> tuple[str, str, str | None, float | None]:
    """Path (halves of surrogates, as which names that are not UTF-8 are read, as escapes) and so on."""
    source = prediction.source.encode("utf-8", "backslashreplace").decode()
    return source, prediction.adapter, prediction.label, prediction.score


def _given_of(prediction: Prediction) -> tuple[str, str, list[str] | None, list[float] | None]:
    """As `_head_of`, of an image that may have several labels; None of a graph without labels."""
    source, adapter, _, _ = _head_of(prediction)
    if prediction.labels is None:
        return source, adapter, None, None
    labels = [label for label, _ in prediction.labels]
    return source, adapter, labels, [score for _, score in prediction.labels]


def _arrow() -> tuple[Any, Any]:
    """Pyarrow, and its module for Parquet.

    Raises:
        MissingExtraError: it is not installed.
    """
    return pyarrow_and_parquet("writing .parquet (.npy needs none)")
