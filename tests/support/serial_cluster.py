"""A stand-in for Ray Data: one actor in this process. It stands in the place of `driver_child`."""

from __future__ import annotations

from typing import Any

import numpy as np

from vptkit.runtime.bulk.parquet_file import pyarrow_and_parquet
from vptkit.runtime.ray_data.batch_worker import BatchWorker
from vptkit.runtime.ray_data.gathered_answers import GatheredAnswers

__all__ = ["SerialCluster"]


class SerialCluster:
    """Answers batches one by one.

    Attributes:
        asked: address, threads and actors of each call.
        answered: numbers of batches.
        lasts: after so many batches the driver is interrupted.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answered: list[int] = []
        self.lasts = 1_000_000

    def answer_batches(
        self, order: Any, parts: Any, *, address: Any, threads: Any, actors: Any, progress: Any
    ) -> None:
        """As `vptkit.runtime.ray_data.driver_child.answer_batches`."""
        arrow, parquet = pyarrow_and_parquet()
        self.asked.append((address, threads, actors))
        there = GatheredAnswers(parts.answers, parts.batches).ids
        worker = BatchWorker(order)
        answers = order.parts / "answers"
        answers.mkdir(exist_ok=True)
        for batch in sorted(set(range(parts.batches)) - set(there.tolist())):
            if not self.lasts:
                raise KeyboardInterrupt
            self.lasts -= 1
            self.answered.append(batch)
            columns = worker({"id": np.array([batch])})
            table = arrow.table({name: list(column) for name, column in columns.items()})
            parquet.write_table(table, answers / f"{batch}.parquet")
            progress.update(order.batch)
