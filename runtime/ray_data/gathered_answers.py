"""Parts of answers → predictions, each image once, in the order of the sources.

A worker that dies with its driver may leave a part that Ray's checkpoint does not know, or half a
one; so a batch is what its number says, the first whole copy counts, and nothing is taken on trust:
`missing` says what is in no part.
"""

from __future__ import annotations

import functools
import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.errors import OutputError
from vptkit.runtime.bulk.parquet_file import pyarrow_and_parquet
from vptkit.runtime.bulk.prediction_record import prediction_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.runtime.session.session_protocol import Prediction

__all__ = ["GatheredAnswers", "remember"]

_OPEN = 16  # parts whose answers are in memory: neighbours lie in a few of them


class GatheredAnswers:
    """The answers that lie in a folder of parts.

    Attributes:
        backends: what ran the graph, by name, sorted.
    """

    def __init__(self, folder: Path, batches: int) -> None:
        """Look which batches there are.

        Args:
            folder: of Parquet files with the columns of `batch_worker.BatchWorker`.
            batches: there shall be 0 to batches - 1.
        """
        self._parts = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        found = [_seen(part) for part in self._parts]
        ids = np.concatenate([np.empty(0, np.int64), *(seen.ids for seen in found)])
        rows = [np.arange(len(seen.ids)) for seen in found]
        parts = [np.full(len(seen.ids), i) for i, seen in enumerate(found)]
        kept = (ids >= 0) & (ids < batches)
        # The first of each: a stable sort leaves the order of the parts.
        self._ids, first = np.unique(ids[kept], return_index=True)
        self._part = np.concatenate([np.empty(0, int), *parts])[kept][first]
        self._row = np.concatenate([np.empty(0, int), *rows])[kept][first]
        self._batches = batches
        self.backends = sorted(set().union(*(seen.backends for seen in found)))
        self._read = functools.lru_cache(_OPEN)(self._answers_of)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The batches that are there, each once, ascending."""
        return self._ids

    @property
    def missing(self) -> int:
        """How many batches are in no part."""
        return self._batches - len(self._ids)

    def __iter__(self) -> Iterator[Prediction]:
        """The predictions, batch by batch.

        Raises:
            OutputError: a part went away meanwhile.
        """
        for part, row in zip(self._part.tolist(), self._row.tolist(), strict=True):
            for line in self._read(part)[row].split("\n"):
                yield prediction_of(json.loads(line))

    def _answers_of(self, part: int) -> list[str]:
        _, parquet = pyarrow_and_parquet()
        try:
            table = parquet.read_table(self._parts[part], columns=["answers"], partitioning=None)
        except (OSError, ValueError) as error:
            raise OutputError(f"{self._parts[part]}: changed while it was read: {error}") from error
        found: list[str] = table.column("answers").to_pylist()
        return found


class _Seen(NamedTuple):
    ids: NDArray[np.int64]
    backends: set[str]


def _seen(part: Path) -> _Seen:
    """The batches of a part; none of one that is not whole."""
    _, parquet = pyarrow_and_parquet()
    try:
        table = parquet.read_table(part, columns=["id", "backend"], partitioning=None)
        ids = table.column("id").to_numpy().astype(np.int64)
    except (OSError, ValueError, KeyError):  # pyarrow's own errors are ValueErrors
        return _Seen(np.empty(0, np.int64), set())
    return _Seen(ids, set(table.column("backend").to_pylist()))


def remember(answers: GatheredAnswers, checkpoint: Path, column: str) -> None:
    """Write Ray's notes anew, so that they say what the parts hold.

    Args:
        answers: what is there.
        checkpoint: the folder of the notes.
        column: what holds the numbers of batches.
    """
    arrow, parquet = pyarrow_and_parquet()
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir()
    table: Any = arrow.table({column: answers.ids})
    if len(answers.ids):
        parquet.write_table(table, checkpoint / "gathered.parquet")
