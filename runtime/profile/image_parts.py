"""`vptkit profile --parts`: from a file to its labels, part by part, and what all of it does at once.

The parts are taken one after the other, a batch each round: `read` (bytes of the file), `decode` (upright
RGB pixels), `resize` (and the centre cut out), `graph` (the batch put together, pixels to logits;
normalising is inside) and `answer` (logits to the line that is printed). `vptkit run` does them side by
side, so beside them stands what that brings (`image_rates`).
"""

from __future__ import annotations

import io
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.devices.probes.machine import detect_machine, usable_cores
from vptkit.errors import DataError, VptkitError
from vptkit.images.image_file import encoded
from vptkit.images.image_pixels import decoded_image
from vptkit.images.preprocess import Preprocess, prepare
from vptkit.progress import SILENT
from vptkit.runtime.backends.selection import on_processor
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.image_loader import decoded
from vptkit.runtime.session.prediction import answered
from vptkit.runtime.session.run_threads import RunThreads, run_threads
from vptkit.runtime.session.session_protocol import Prediction

from .image_rates import ImageWork, image_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.images.image_file import ImageFile
    from vptkit.progress import Progress

__all__ = ["FORMAT", "MOST", "PARTS", "PartsSettings", "profile_parts"]

FORMAT = "vptkit.parts/1"
PARTS = ("read", "decode", "resize", "graph", "answer")
MOST = 64  # images: so many are drawn of more
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 4096
_TOP_K = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsSettings:
    """How to measure.

    Attributes:
        backend, threads, trust_engines: of `open_session`; threads of all runs together.
        adapter: which one of a bank.
        batches: images a run, several sizes one after the other.
        rounds: batches of each size; None lets `seconds` decide.
        seconds: for the parts of each size, and again for the whole.
        seed: of the choice and order of the images.
        decode: "exact" or "fast"; None is as the commands do.
    """

    backend: str | None = None
    threads: int | None = None
    adapter: str | None = None
    batches: Sequence[int] = (1, 8)
    rounds: int | None = None
    seconds: float = 10.0
    seed: int = 0
    decode: str | None = None
    trust_engines: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            VptkitError: a number is not positive.
        """
        numbers = (*self.batches, 1 if self.rounds is None else self.rounds, self.seconds)
        if not self.batches or not all(number > 0 for number in numbers):
            raise VptkitError(
                f"batches are {list(self.batches)}, rounds is {self.rounds} and seconds "
                f"{self.seconds}, expected positive numbers"
            )


@dataclass(frozen=True, slots=True)
class _Bytes:
    """An encoded image that was read."""

    name: str
    content: bytes = field(repr=False)

    def read_bytes(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return self.name


def profile_parts(
    bundles: Mapping[str, Path],
    images: Sequence[ImageFile],
    settings: PartsSettings,
    *,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Take the way from a file to its labels apart, for one bundle after the other.

    Args:
        bundles: name → bundle.
        images: files; of more than MOST so many are drawn, and broken ones are left out.
        settings: how.
        progress: is told each batch and each turn.

    Returns:
        A JSON-ready document: `format`, `rows` (one for each bundle and batch size), `images`,
        `machine`.

    Raises:
        DataError: there is no image, or all that were drawn are broken.
        BundleError: no such bundle or adapter, or it gives no labels.
    """
    chosen = _chosen(images, settings.seed)
    rows = []
    for name, path in bundles.items():
        rows += [{"name": name} | row for row in _rows(path, chosen, settings, progress)]
    drawn = min(len(images), MOST)
    about = {"count": len(chosen), "of": len(images), "broken": drawn - len(chosen)}
    about["mean_bytes"] = round(float(np.mean([len(encoded(image)) for image in chosen])))
    return {"format": FORMAT, "rows": rows, "images": about, "machine": detect_machine()}


def _chosen(images: Sequence[ImageFile], seed: int) -> list[ImageFile]:
    """Some of the images that can be decoded, in an order drawn once; all were read by then."""
    order = np.random.default_rng(seed).permutation(len(images))[:MOST]
    small = Preprocess(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    found = list(decoded((images[i] for i in order), small))
    whole = [image for image, pixels in found if not isinstance(pixels, DataError)]
    if not whole:
        first = f": {found[0][1]}" if found else ""
        raise DataError(f"there is no image to measure with{first}")
    return whole


def _rows(
    path: Path, images: Sequence[ImageFile], settings: PartsSettings, progress: Progress
) -> Iterator[dict[str, Any]]:
    """One for each batch size: the parts on all threads, the whole as `vptkit run` does folders."""
    cores, trust = settings.threads or usable_cores(), settings.trust_engines
    with open_session(path, settings.backend, settings.threads, trust_engines=trust) as session:
        session.bundle.require_output("logits")
        adapter = str(session.bundle.entry(settings.adapter)["name"])
        preprocess = session.bundle.preprocess.reading(settings.decode)
        several = run_threads(cores) if on_processor(session.backend) else RunThreads(cores, 1)
        threads, backend = several.threads, settings.backend
        with (
            session
            if threads == cores
            else open_session(path, backend, threads, trust_engines=trust)
        ) as parted:
            fixed = session.bundle.batch
            for batch in dict.fromkeys([fixed] if fixed else settings.batches):
                work = ImageWork(session, adapter, images, preprocess, batch)
                yield _row(work, work._replace(session=parted), several, settings, progress) | {
                    "threads": cores
                }


def _row(
    work: ImageWork,
    parted: ImageWork,
    several: RunThreads,
    settings: PartsSettings,
    progress: Progress,
) -> dict[str, Any]:
    """What is measured of one batch size; `parted` has the session of one of several runs."""
    taken = _parts(work, settings, progress)
    wall, processor = taken[..., 0], taken[..., 1]
    rates = image_rates(
        parted, several, seconds=settings.seconds, seed=settings.seed, progress=progress
    )
    return {
        "backend": work.session.backend,
        "precision": work.session.bundle.precision,
        "adapter": work.adapter,
        "batch": work.batch,
        "decode": work.preprocess.decode,
        "rounds": len(taken),
        "ms_per_image": _of_parts(np.median(wall, axis=0)),
        "processor_ms_per_image": _of_parts(np.median(processor, axis=0)),
        "ms_per_image_all": float(np.median(wall.sum(axis=1))),
        "share": _of_parts(wall.sum(axis=0) / wall.sum()),
        "images_per_s": rates,
        "at_once": several._asdict(),
    }


def _of_parts(values: NDArray[np.float64]) -> dict[str, float]:
    return {part: float(x) for part, x in zip(PARTS, values, strict=True)}


def _parts(work: ImageWork, settings: PartsSettings, progress: Progress) -> NDArray[np.float64]:
    """Milliseconds an image, [rounds, parts, 2], without the first round: by the wall, of the processor."""
    endless, write = itertools.cycle(work.images), _text_writer()
    found: list[NDArray[np.float64]] = []
    wanted = _LEAST_ROUNDS if settings.rounds is None else settings.rounds
    end = time.perf_counter() + (settings.seconds if settings.rounds is None else 0)
    while len(found) <= wanted or (time.perf_counter() < end and len(found) <= _MOST_ROUNDS):
        batch = list(itertools.islice(endless, work.batch))
        found.append(1000 / work.batch * _one_round(work, batch, write))
        progress.update()
    return np.array(found[1:])


def _one_round(
    work: ImageWork, images: Sequence[ImageFile], write: Callable[[Prediction], None]
) -> NDArray[np.float64]:
    """Seconds of each part of a batch, one part after the other: [parts, 2], as in `_parts`."""
    session, ticks = work.session, [_now()]
    files = [_Bytes(str(image), encoded(image)) for image in images]
    ticks.append(_now())
    upright = [decoded_image(file, work.preprocess) for file in files]
    ticks.append(_now())
    pixels = [
        prepare(one.image, work.preprocess, file, whole=one.whole, box=one.box)
        for one, file in zip(upright, files, strict=True)
    ]
    ticks.append(_now())
    answers = session.answers(np.stack(pixels), work.adapter)
    ticks.append(_now())
    labels = session.bundle.labels_of(work.adapter)
    thresholds = session.bundle.thresholds_of(work.adapter)
    for row, file in enumerate(files):
        own = {output: value[row].copy() for output, value in answers.items()}
        head = Prediction(path=file, index=row, adapter=work.adapter)
        write(answered(head, own, labels, thresholds, _TOP_K, file.name))
    ticks.append(_now())
    return np.diff(np.array(ticks), axis=0)


def _now() -> tuple[float, float]:
    """Seconds of the wall, and of the processor (all threads)."""
    return time.perf_counter(), time.process_time()


def _text_writer() -> Callable[[Prediction], None]:
    # Boards that only measure have no such room.
    from vptkit.runtime.bulk.prediction_writers import text_writer

    return text_writer(io.StringIO())
