"""Images a second from files to labels, everything at once, and what its two halves allow.

Measured in turns: the whole as `vptkit run` does a folder (`prediction.predict`), the graph alone on
pixels that are ready, and files to pixels alone. On the processor all of them share the cores, so no more than
1 / (1/graph + 1/files) is to be had; beside a GPU it is the slower one.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vptkit.progress import SILENT
from vptkit.runtime.backends.selection import on_processor
from vptkit.runtime.session.image_inputs import FoundImages
from vptkit.runtime.session.image_loader import decoded
from vptkit.runtime.session.ordered_work import in_order
from vptkit.runtime.session.prediction import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from vptkit.images.image_file import ImageFile
    from vptkit.images.preprocess import Preprocess
    from vptkit.progress import Progress
    from vptkit.runtime.session.run_threads import RunThreads
    from vptkit.runtime.session.session_protocol import Session

__all__ = ["ImageWork", "image_rates"]

_TURNS = 3  # of each, at least


class ImageWork(NamedTuple):
    """Files that a session answers.

    Attributes:
        session: an open bundle.
        adapter: one of its adapters.
        images: files that can be decoded, at least one.
        preprocess: size, filter, crop, and how to decode.
        batch: images a run.
    """

    session: Session
    adapter: str
    images: Sequence[ImageFile]
    preprocess: Preprocess
    batch: int


def image_rates(
    work: ImageWork,
    several: RunThreads,
    *,
    seconds: float,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Images a second.

    Args:
        work: what is done; its session has the threads of one of `several` runs.
        several: batches that are run at once.
        seconds: for all turns together; at least three are made.
        seed: of the order within a turn.
        progress: is told each measurement.

    Returns:
        `run`, `graph`, `read_decode_resize`, and `bound`, what the last two allow.
    """
    count = max(len(work.images), (several.runs + 1) * work.batch)
    portions = -(-count // work.batch)
    calls = {
        "run": lambda: _whole(work, several, count),
        "graph": _graph(work, several, portions),
        "read_decode_resize": lambda: _drained(decoded(iter(_files(work, count)), work.preprocess)),
    }
    done = {"run": count, "graph": portions * work.batch, "read_decode_resize": count}
    taken = _in_turns(calls, seconds, seed, progress)
    rates = {name: done[name] / spent for name, spent in taken.items()}
    graph, files = rates["graph"], rates["read_decode_resize"]
    shared = on_processor(work.session.backend)
    return rates | {"bound": 1 / (1 / graph + 1 / files) if shared else min(graph, files)}


def _files(work: ImageWork, count: int) -> list[ImageFile]:
    return list(itertools.islice(itertools.cycle(work.images), count))


def _drained(results: Iterable[object]) -> None:
    for _ in results:
        pass


def _whole(work: ImageWork, several: RunThreads, count: int) -> None:
    found = FoundImages(_files(work, count))
    how: dict[str, Any] = {"adapter": work.adapter, "decode": work.preprocess.decode}
    _drained(predict(work.session, found, batch=work.batch, runs=several.runs, **how))


def _graph(work: ImageWork, several: RunThreads, portions: int) -> Callable[[], None]:
    """So many runs of one batch, `several.runs` at once."""
    first = [pixels for _, pixels in decoded(iter(_files(work, work.batch)), work.preprocess)]
    ready = np.stack(first)  # type: ignore[arg-type]

    def call() -> None:
        answers = in_order(
            lambda batch: work.session.answers(batch, work.adapter),
            itertools.repeat(ready, portions),
            threads=several.runs,
            ahead=several.runs,
            name="vptkit-run",
        )
        _drained(answers)

    return call


def _in_turns(
    calls: Mapping[str, Callable[[], None]], seconds: float, seed: int, progress: Progress
) -> dict[str, float]:
    """Name → median seconds of a call; the first turn is not counted."""
    random = np.random.default_rng(seed)
    spent: dict[str, list[float]] = {name: [] for name in calls}
    end, turn = time.perf_counter() + seconds, 0
    while turn <= _TURNS or time.perf_counter() < end:
        for name in random.permutation(list(calls)):
            begun = time.perf_counter()
            calls[name]()
            spent[name].append(time.perf_counter() - begun)
            progress.update()
        turn += 1
    return {name: float(np.median(values[1:])) for name, values in spent.items()}
