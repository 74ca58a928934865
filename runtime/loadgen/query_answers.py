"""The system under test: LoadGen's queries, answered by a session.

SingleStream and MultiStream are answered where they come, one query after the other. Server and
Offline go through a queue: a thread takes what waits, a batch at most, and does not wait for more.
An error inside a callback would end the process, so the first one is kept; what is asked after it
is answered with nothing, and `close` raises it.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vptkit.runtime.session.session_protocol import Session

    from .sample_library import SampleLibrary

__all__ = ["QueryAnswers"]


class QueryAnswers:
    """Answers queries with a session's logits."""

    def __init__(
        self,
        loadgen: Any,
        session: Session,
        samples: SampleLibrary,
        *,
        adapters: Sequence[str] = (),
        batch: int | None = None,
        keep: bool = False,
    ) -> None:
        """Begin to wait for queries.

        Args:
            loadgen: the package.
            session: what answers.
            samples: the images.
            adapters: of a bank: sample i asks adapter i mod their number; () of a baked bundle.
            batch: answer from a queue, so many images at once; None: where they come.
            keep: give LoadGen the logits, float32 [C], for its log; else nothing but the time.
        """
        self._loadgen, self._session, self._samples = loadgen, session, samples
        self._adapters, self._batch, self._keep = tuple(adapters), batch, keep
        self._error: BaseException | None = None
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if batch is not None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="vptkit-loadgen")
            self._thread.start()

    def issue(self, queries: Sequence[Any]) -> None:
        """Take LoadGen's samples: answer them, or put them into the queue."""
        if self._batch is None:
            self._answer(queries)
            return
        for query in queries:
            self._waiting.put(query)

    def load(self, numbers: Sequence[int]) -> None:
        """Have images ready."""
        try:
            self._samples.load(numbers)
        except BaseException as error:
            self._error = self._error or error

    def unload(self, numbers: Sequence[int]) -> None:
        """Forget images."""
        self._samples.unload(numbers)

    def logits(self, numbers: Sequence[int]) -> Any:
        """Logits of samples, float32 [B, C].

        Raises:
            GateError: they are not finite.
        """
        images = self._samples.batch(numbers)
        if not self._adapters:
            found = self._session.run(images)
        else:
            asked = [self._adapters[i % len(self._adapters)] for i in numbers]
            found = self._session.run(images, asked)
        if self._keep and not np.isfinite(found).all():
            raise GateError("the logits hold NaN or Inf; no accuracy can be given")
        return found

    def close(self) -> None:
        """End the thread.

        Raises:
            Exception: what went wrong first while queries were answered.
        """
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        more = True
        while more and (first := self._waiting.get()) is not None:
            taken = [first]
            while len(taken) < (self._batch or 1):
                try:
                    query = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if query is None:
                    more = False
                    break
                taken.append(query)
            self._answer(taken)

    def _answer(self, queries: Sequence[Any]) -> None:
        response = self._loadgen.QuerySampleResponse
        rows = None
        if self._error is None:
            try:
                found = self.logits([query.index for query in queries])
                rows = np.ascontiguousarray(found) if self._keep else None
            except BaseException as error:
                self._error = error
        if rows is None:
            answers = [response(query.id, 0, 0) for query in queries]
        else:
            start, size = rows.ctypes.data, rows.strides[0]
            answers = [response(q.id, start + i * size, size) for i, q in enumerate(queries)]
        self._loadgen.QuerySamplesComplete(answers)  # copies what it is given
