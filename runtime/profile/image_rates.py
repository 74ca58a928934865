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
    calls: dict[str, Callable[[int], int]] = {
        "run": lambda count: _whole(work, several, count),
        "graph": _graph(work, several),
        "read_decode_resize": lambda count: _drained(
            decoded(iter(_files(work, count)), work.preprocess)
        ),
    }
    least = (several.runs + 1) * work.batch
    first = {name: _rate(call, least) for name, call in calls.items()}  # warms up, too
    fits = int(first["run"] * seconds / (len(calls) * _TURNS))
    count = max(least, min(fits, len(work.images)))
    rates = _in_turns(calls, count, seconds, seed, progress)
    graph, files = rates["graph"], rates["read_decode_resize"]
    shared = on_processor(work.session.backend)
    return rates | {"bound": 1 / (1 / graph + 1 / files) if shared else min(graph, files)}


def _rate(call: Callable[[int], int], count: int) -> float:
    """Images a second of a call that says how many it did."""
    begun = time.perf_counter()
    return call(count) / (time.perf_counter() - begun)


def _files(work: ImageWork, count: int) -> list[ImageFile]:
    return list(itertools.islice(itertools.cycle(work.images), count))


def _drained(results: Iterable[object]) -> int:
    """How many there are."""
    return sum(1 for _ in results)


def _whole(work: ImageWork, several: RunThreads, count: int) -> int:
    found = FoundImages(_files(work, count))
    how: dict[str, Any] = {"adapter": work.adapter, "decode": work.preprocess.decode}
    return _drained(predict(work.session, found, batch=work.batch, runs=several.runs, **how))


def _graph(work: ImageWork, several: RunThreads) -> Callable[[int], int]:
    """Runs of one batch, `several.runs` at once."""
    first = [pixels for _, pixels in decoded(iter(_files(work, work.batch)), work.preprocess)]
    ready = np.stack(first)  # type: ignore[arg-type]

    def call(count: int) -> int:
        answers = in_order(
            lambda batch: work.session.answers(batch, work.adapter),
            itertools.repeat(ready, -(-count // work.batch)),
            threads=several.runs,
            ahead=several.runs,
            name="vptkit-run",
        )
        return work.batch * _drained(answers)

    return call


def _in_turns(
    calls: Mapping[str, Callable[[int], int]],
    count: int,
    seconds: float,
    seed: int,
    progress: Progress,
) -> dict[str, float]:
    """Name → median images a second of a call for so many images."""
    random = np.random.default_rng(seed)
    rates: dict[str, list[float]] = {name: [] for name in calls}
    end, turn = time.perf_counter() + seconds, 0
    while turn < _TURNS or time.perf_counter() < end:
        for name in random.permutation(list(calls)):
            rates[name].append(_rate(calls[name], count))
            progress.update()
        turn += 1
    return {name: float(np.median(values)) for name, values in rates.items()}
