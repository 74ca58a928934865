"""The document of one frame."""

from __future__ import annotations

from tests.support.feeds import colour_frame
from vptkit.runtime.frame_answers.frame_answer import FrameAnswer
from vptkit.runtime.session.session_protocol import Prediction


def test_an_event_of_several_labels():
    prediction = Prediction(path=None, adapter="x", top=(("a", 0.9),), labels=(("a", 0.9),))
    frame = colour_frame("cam", 3, (0, 0, 0))
    document = FrameAnswer(frame=frame, prediction=prediction, age=0.5, held=2.0).to_json()
    assert document == {
        "source": "cam", "frame": 3, "timestamp": None, "time": 1e9, "age_ms": 500.0,
        "held_s": 2.0, "adapter": "x", "label": "a", "score": 0.9, "labels": ["a"],
        "scores": [0.9], "top": [{"label": "a", "score": 0.9}],
    }  # fmt: skip
