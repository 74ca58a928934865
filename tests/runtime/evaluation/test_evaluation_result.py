"""What is counted of answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vptkit.runtime.evaluation.evaluation_result import Confused, answers_to, judge
from vptkit.scores.calibration_error import expected_calibration_error
from vptkit.scores.probabilities import log_loss, softmax
from vptkit.scores.score_interval import wilson

LABELS = ("ant", "bee", "cow")
#                     ant right   ant → bee    ant → bee     bee right   bee → ant
LOGITS = np.float32([[9, 0, 0], [0, 5, 0], [0, 1, 0.5], [0, 3, 0], [2, 1.9, 0]])
TRUTH = np.array([0, 0, 0, 1, 1])
IMAGES = [Path(f"d/{i}.png") for i in range(5)]


@pytest.fixture
def result():
    parts = [answers_to(LOGITS[part], TRUTH[part]) for part in (slice(0, 2), slice(2, 5))]
    return judge(Path("d"), "test", LABELS, IMAGES, TRUTH, np.concatenate(parts))


def test_rows_are_the_classes_and_columns_the_answers(result):
    assert result.confusion.tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 0]]
    assert (result.count, result.right, result.top1, result.top5) == (5, 2, 0.4, 1.0)
    assert result.absent == ["cow"]
    assert result.confused == [Confused("ant", "bee", 2), Confused("bee", "ant", 1)]


def test_the_most_confident_mistakes_come_first(result):
    probabilities = softmax(LOGITS).max(axis=1)
    order = sorted((1, 2, 4), key=lambda i: -probabilities[i])
    assert [m.image for m in result.mistakes] == [IMAGES[i] for i in order]
    assert [m.probability for m in result.mistakes] == pytest.approx(probabilities[order])
    assert (result.mistakes[0].truth, result.mistakes[0].answered) == ("ant", "bee")


def test_scores_are_those_of_all_logits_at_once(result):
    assert result.log_loss == pytest.approx(log_loss(LOGITS, TRUTH))
    right = LOGITS.argmax(axis=1) == TRUTH
    ece = expected_calibration_error(softmax(LOGITS).max(axis=1), right)
    assert result.ece == pytest.approx(ece)


def test_the_document(result):
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["confusion"] == {"labels": list(LABELS), "counts": result.confusion.tolist()}
    assert document["top1_interval"] == list(wilson(2, 5))
    assert document["top5_interval"] == list(wilson(5, 5))
    assert document["classes"] == {
        "ant": {"count": 3, "right": 1, "top1": 1 / 3, "interval": list(wilson(1, 3))},
        "bee": {"count": 2, "right": 1, "top1": 1 / 2, "interval": list(wilson(1, 2))},
    }
    assert document["confused"][0] == {"truth": "ant", "answered": "bee", "count": 2}
    assert document["mistakes"][0] == {
        "path": "d/1.png",
        "truth": "ant",
        "answered": "bee",
        "probability": pytest.approx(0.98671, abs=1e-5),
    }
    assert (document["split"], document["absent"]) == ("test", ["cow"])


def test_of_equal_logits_the_first_label_is_the_answer():
    answers = answers_to(np.zeros((2, 7), np.float32), np.array([0, 6]))
    assert answers["label"].tolist() == [0, 0]
    assert answers["among_five"].tolist() == [True, False]
    assert answers["probability"] == pytest.approx([1 / 7, 1 / 7])


def test_a_certain_mistake_has_a_finite_loss():
    assert answers_to(np.float32([[1e30, 0]]), np.array([1]))["log_loss"] == pytest.approx(1e30)
