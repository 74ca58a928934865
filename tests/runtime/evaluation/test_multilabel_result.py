"""How right answers of several labels an image are, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vptkit.runtime.evaluation.mistakes_file import write_mistakes
from vptkit.runtime.evaluation.multilabel_result import MultilabelEvaluation
from vptkit.runtime.evaluation.multilabel_text import multilabel_text


@pytest.fixture
def result():
    return MultilabelEvaluation(
        data=Path("d"),
        split="test",
        labels=("cat", "dog", "owl"),
        thresholds=np.float32([0.5, 0.5, 0.5]),
        images=(Path("d/0.png"), Path("d/1.png"), Path("d/2.png"), Path("d/3.png")),
        scores=np.float32([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.7]]),
        truth=np.asarray([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool),
    )


def test_figures(result):
    document = result.to_json()
    assert (document["count"], document["exact"]) == (4, 2)
    assert document["micro_f1"] == pytest.approx(2 * 4 / (5 + 5))
    assert document["classes"]["cat"] == {
        "count": 3,
        "given": 2,
        "right": 2,
        "threshold": 0.5,
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(4 / 5),
        "average_precision": pytest.approx(1.0),
    }
    owl = document["classes"]["owl"]
    assert (owl["recall"], owl["average_precision"], owl["precision"]) == (None, None, 0.0)
    assert document["map"] == pytest.approx(1.0)
    assert document["absent"] == ["owl"]
    assert "no image has owl" in result.notes[0]
    low, high = document["micro_f1_interval"]
    assert low < 0.8 < high
    json.dumps(document, allow_nan=False)


def test_mistakes_the_furthest_first(result, tmp_path):
    assert [one.to_json() for one in result.mistakes] == [
        {
            "path": "d/2.png",
            "truth": ["cat", "dog"],
            "answered": ["dog"],
            "missing": ["cat"],
            "extra": [],
            "distance": pytest.approx(0.8),
        },
        {
            "path": "d/3.png",
            "truth": [],
            "answered": ["owl"],
            "missing": [],
            "extra": ["owl"],
            "distance": pytest.approx(0.7),
        },
    ]
    write_mistakes(result.mistakes, tmp_path / "wrong.csv", several=True)
    lines = (tmp_path / "wrong.csv").read_text().splitlines()
    assert lines[0] == "path,truth,answered,missing,extra,distance"
    assert lines[2].startswith('d/3.png,[],"[""owl""]",[],"[""owl""]",0.69')


def test_text(result):
    text = multilabel_text(result)
    assert text.splitlines()[-1].startswith("test mAP 100.0 %, micro F1 80.0 % (95 % interval ")
    assert text.splitlines()[-1].endswith("), macro F1 60.0 % (4 images)")
    assert "2.png  misses cat" in text
    assert "3.png  has owl too many" in text
