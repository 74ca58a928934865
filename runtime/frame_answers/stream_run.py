"""Videos and cameras → answers: all sources in one stream of batches, each with its own adapter."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vptkit.errors import DataError, VptkitError
from vptkit.formats.bundle import LOGITS, SCORES
from vptkit.runtime.session.prediction import answered, ranked
from vptkit.runtime.session.session_protocol import Prediction
from vptkit.scores.probabilities import softmax

from .frame_answer import FrameAnswer
from .frame_batches import FrameBatches
from .smoothing import LabelChanges, Smoothing, SourceClock
from .source_report import SourceReport

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.session.session_protocol import Session
    from vptkit.runtime.streams.frame import Frame

    from .frame_batches import Feed, Prepared

__all__ = ["StreamRun", "StreamSettings"]

_BATCH = 8  # frames
_LOOK = 0.1  # seconds between two looks at the clock while nothing comes


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How frames are answered.

    Attributes:
        batch: frames of a run, at most; 8 unless given, or what a fixed-batch bundle takes.
        max_wait: seconds that a batch waits for sources that have no frame ready.
        top_k: labels for each frame.
        smooth: time constant of the mean over time, s; None leaves each answer alone.
        on_change: only answers whose label is another than the one before.
        duration: seconds after which it ends; None goes on.
        frames: answered frames of all sources together after which it ends; None goes on.
    """

    batch: int | None = None
    max_wait: float = 0.005
    top_k: int = 5
    smooth: float | None = None
    on_change: bool = False
    duration: float | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("batch", "top_k", "frames"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise VptkitError(f"{name} is {value}, expected at least 1")
        for name in ("smooth", "duration"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise VptkitError(f"{name} is {value} s, expected more than 0")
        if not 0 <= self.max_wait < np.inf:
            raise VptkitError(f"max_wait is {self.max_wait} s, expected 0 or more")


@dataclass(slots=True)
class _State:
    """Of one source: its time, its mean and its last label."""

    clock: SourceClock
    smoothing: Smoothing | None
    changes: LabelChanges | None


class StreamRun:
    """Answers to the frames of several sources, as they become ready; iterated once.

    with StreamRun(session, feeds, changed, adapters) as run:
        for answer in run:
            print(answer.frame.source, answer.prediction.label, answer.age)
    print(run.reports())
    """

    def __init__(
        self,
        session: Session,
        feeds: Sequence[Feed],
        changed: threading.Condition,
        adapters: Mapping[str, str],
        settings: StreamSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is started before it is iterated.

        Args:
            session: an open bundle.
            feeds: captures that were not started; they are closed at the end.
            changed: what they notify.
            adapters: source → adapter (`adapter_choice.adapters_of`).
            settings: how; the defaults unless given.
            clock: as `time.monotonic`, by which frames are captured.
        """
        self._session, self._feeds, self._changed = session, tuple(feeds), changed
        self._adapters, self._clock = adapters, clock
        self.settings = settings or StreamSettings()
        self._policies = {feed.name: feed.policy for feed in self._feeds}
        self._reports = {
            feed.name: SourceReport(
                name=feed.name, adapter=adapters[feed.name], live=feed.source.live
            )
            for feed in self._feeds
        }
        smooth, on_change = self.settings.smooth, self.settings.on_change
        self._states = {
            feed.name: _State(
                SourceClock(),
                None if smooth is None else Smoothing(smooth),
                LabelChanges() if on_change else None,
            )
            for feed in self._feeds
        }
        self._late = {feed.name: 0 for feed in self._feeds}
        self.batches = 0  # runs of the graph

    def __enter__(self) -> StreamRun:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End capturing; the reports stay."""
        for feed in self._feeds:
            feed.close()

    def reports(self) -> list[SourceReport]:
        """Counts of each source up to now."""
        for feed in self._feeds:
            report, counts = self._reports[feed.name], feed.counts
            report.captured, report.reconnects = counts.captured, counts.reconnects
            report.dropped.clear()
            report.dropped.update({cause: n for cause, n in counts.dropped.items() if n})
            if late := self._late[feed.name]:
                report.dropped["stale"] += late
            report.error = None if feed.error is None else str(feed.error)
        return list(self._reports.values())

    def failures(self) -> list[Exception]:
        """Why sources gave up."""
        return [feed.error for feed in self._feeds if feed.error is not None]

    def __iter__(self) -> Generator[FrameAnswer, None, None]:
        """Answers of each source in order; with `on_change` the events alone.

        Raises:
            BundleError, DataError: see `Session.answers`.
        """
        bundle, settings = self._session.bundle, self.settings
        size = bundle.batch or settings.batch or _BATCH
        begun = self._clock()
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            for feed in self._feeds:
                feed.open()
            batches = FrameBatches(
                self._feeds,
                self._changed,
                bundle.preprocess,
                batch=size,
                max_wait=settings.max_wait,
            )
            stack.callback(batches.close)
            served = 0
            while settings.duration is None or self._clock() - begun < settings.duration:
                batch = batches.next(_LOOK)
                if batch is None:
                    continue
                if not batch:
                    return
                if settings.frames is not None:
                    batch = batch[: settings.frames - served]
                fresh = [one for one in batch if self._is_fresh(one[0])]
                served += len(fresh)
                yield from self._answers(fresh)
                if settings.frames is not None and served >= settings.frames:
                    return

    def _is_fresh(self, frame: Frame) -> bool:
        """Whether it is young enough where the newest are wanted; if not, it is counted."""
        policy = self._policies[frame.source]
        if policy.keep == "all":
            return True
        stale = self._clock() - frame.captured > policy.max_staleness
        self._late[frame.source] += stale
        return not stale

    def _answers(self, batch: list[Prepared]) -> Iterator[FrameAnswer]:
        good = [(frame, item) for frame, item in batch if not isinstance(item, DataError)]
        names = [self._adapters[frame.source] for frame, _ in good]
        found: dict[str, NDArray[np.float32]] = {}
        if good:
            asked = names[0] if len(set(names)) == 1 else names
            found = self._session.answers(np.stack([item for _, item in good]), asked)
            self.batches += 1
        now = self._clock()
        bundle = self._session.bundle  # behind the run: it may have been replaced
        rows = iter(range(len(good)))
        answers = []
        for frame, item in batch:
            adapter = self._adapters[frame.source]
            if isinstance(item, DataError):
                error = Prediction(path=None, index=frame.number, adapter=adapter, error=str(item))
                answers.append((frame, error))
                continue
            row = next(rows)
            own = {name: value[row] for name, value in found.items()}
            answers.append((frame, self._prediction(frame, adapter, own, bundle)))
        for frame, prediction in answers:
            age = now - frame.captured
            self._reports[frame.source].add(age, now, broken=prediction.error is not None)
        for frame, prediction in answers:
            answer = FrameAnswer(frame=frame, prediction=prediction, age=now - frame.captured)
            if (event := self._over_time(answer, bundle)) is not None:
                yield event

    def _prediction(
        self, frame: Frame, adapter: str, row: dict[str, NDArray[np.float32]], bundle: Bundle
    ) -> Prediction:
        """Of one row of a batch, [C of the bank] each: as `predict` would answer."""
        labels, thresholds = bundle.labels_of(adapter), bundle.thresholds_of(adapter)
        own = {
            name: (value[: len(labels)] if name in (LOGITS, SCORES) else value).copy()
            for name, value in row.items()
        }
        head = Prediction(path=None, index=frame.number, adapter=adapter)
        where = f"{frame.source} frame {frame.number}"
        return answered(head, own, labels, thresholds, self.settings.top_k, where)

    def _over_time(self, answer: FrameAnswer, bundle: Bundle) -> FrameAnswer | None:
        """Smoothed, and None of what is no news where only news is asked for."""
        state = self._states[answer.frame.source]
        if answer.prediction.error is not None:
            return answer
        step = state.clock.step(answer.frame)
        if state.smoothing is not None:
            answer = replace(
                answer, prediction=self._smoothed(answer.prediction, state.smoothing, step, bundle)
            )
        if state.changes is None:
            return answer
        prediction = answer.prediction
        label = prediction.label
        labels = label if prediction.labels is None else frozenset(x for x, _ in prediction.labels)
        news, held = state.changes.is_news(labels, step)
        return replace(answer, held=held) if news else None

    def _smoothed(
        self, prediction: Prediction, smoothing: Smoothing, step: float, bundle: Bundle
    ) -> Prediction:
        labels = bundle.labels_of(prediction.adapter)
        thresholds = bundle.thresholds_of(prediction.adapter)
        logits = prediction.logits
        if logits is None:
            return prediction
        scores = softmax(logits) if prediction.scores is None else prediction.scores
        mean = smoothing.add(scores, step, labels)
        top, given = ranked(mean, labels, thresholds, self.settings.top_k)
        return replace(prediction, top=top, labels=given)
