"""What a bundle says about one frame: a prediction, with where and when the frame came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vptkit.runtime.session.session_protocol import Prediction
    from vptkit.runtime.streams.frame import Frame

__all__ = ["FrameAnswer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAnswer:
    """The answer to one frame.

    Attributes:
        frame: source, number, times and pixels.
        prediction: as of an image; its probabilities are smoothed where that was asked for.
        age: seconds from the frame's capture to this answer.
        held: of an event (`StreamSettings.on_change`): seconds of the source's clock for which the
            label before was told; None of the first, and of what is no event.
    """

    frame: Frame
    prediction: Prediction
    age: float
    held: float | None = None

    def to_json(self) -> dict[str, Any]:
        """{"source", "frame", "timestamp", "time", "age_ms", "adapter", "label", "score", "top"}.

        `timestamp` is of the source's clock (seconds, or null), `time` seconds since 1970. Of an
        event there is "held_s", too; of a broken frame "error" in the place of labels.
        """
        frame = self.frame
        head: dict[str, Any] = {
            "source": frame.source,
            "frame": frame.number,
            "timestamp": None if frame.timestamp is None else round(frame.timestamp, 6),
            "time": round(frame.wall, 3),
            "age_ms": round(1000 * self.age, 2),
        }
        if self.held is not None:
            head["held_s"] = round(self.held, 3)
        document = self.prediction.to_json()
        told = {key: document[key] for key in document if key not in ("path", "index", "adapter")}
        head["adapter"] = self.prediction.adapter
        if self.prediction.error is None:
            head |= {"label": self.prediction.label, "score": self.prediction.score}
        return head | told
