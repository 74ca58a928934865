"""What a run gave, as documents."""

from __future__ import annotations

import json
from pathlib import Path

from vptkit.tune.run.run_result import TuneResult


def result(**changes):
    values = {
        "adapter": Path("a"),
        "trainable": 9,
        "trainable_prompts": 5,
        "best_epoch": 2,
        "val_top1": 0.5,
        "test_top1": None,
        "seconds": 1.23456,
        "device": "cpu",
        "metrics": Path("m"),
    }
    return TuneResult(**(values | changes))


def test_what_is_not_there_is_null_and_not_none_in_words():
    document = json.loads(json.dumps(result().to_json(), allow_nan=False))
    assert document["page"] is document["test_top1"] is document["layer_norms"] is None
    assert document["seconds"] == 1.23
    assert result().to_text() == result().to_json()


def test_of_the_temperature_people_see_what_it_changed():
    told = {"temperature": 1.5, "val_loss": [0.6521, 0.6], "ece": [0.1, 0.05]}
    assert result(confidence=told).to_json()["confidence"] == told
    text = result(confidence=told).to_text()["confidence"]
    assert text == {"temperature": 1.5, "val_loss": "0.6521 → 0.6", "ece": "0.1 → 0.05"}
    assert result().to_text()["confidence"] is None


def test_of_a_line_people_see_the_place():
    line = {"alpha": 0.4, "curve": [{"alpha": 0.0}, {"alpha": 0.4}]}
    assert result(line=line).to_json()["line"] == line
    assert result(line=line).to_text()["line"] == {"alpha": 0.4}
    assert result().to_text()["line"] is None


def test_of_layer_norms_people_get_the_sums():
    norms = {
        "layers": 5,
        "numbers": 320,
        "fsr_proxy": 0.1,
        "per_layer": [1] * 1000,
        "shift": {"total": 3, "gamma": 1, "beta": 2, "norms": [3, 4]},
        "rescale": {"lambda": 0.7, "curve": [1] * 1000},
    }
    text = result(layer_norms=norms).to_text()
    assert text["layer_norms"] == {"layers": 5, "numbers": 320}
    assert text["shift"] == {"total": 3, "gamma": 1, "beta": 2}
    assert (text["lambda"], text["fsr_proxy"]) == (0.7, 0.1)
    assert result(layer_norms=norms).to_json()["layer_norms"] is norms
    assert result(layer_norms=norms | {"rescale": None}).to_text()["lambda"] is None
