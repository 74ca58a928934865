from __future__ import annotations

import numpy as np
import pytest

from vptkit.errors import DataError, GateError
from vptkit.export.numerics.accuracy_gate import (
    accuracy_text,
    compare,
    require_gate,
    sqnr_db,
    with_split,
)
from vptkit.export.numerics.evidence import Evidence

LOGITS = np.random.default_rng(0).normal(size=(200, 4))
JUDGED = {"min_agreement": 0.985, "simulated": False, "images": "x"}


def test_sqnr():
    assert sqnr_db(LOGITS, LOGITS) is None
    assert sqnr_db(LOGITS, LOGITS * 1.1) == pytest.approx(20)


def test_three_of_two_hundred_pass_and_four_fail():
    found = LOGITS.copy()
    truth = LOGITS.argmax(axis=1)
    for i in range(4):
        found[i, (truth[i] + 1) % 4] += 99
        result = compare(LOGITS, found, truth, **JUDGED)
        assert result.agreement == result.top1 == 1 - (i + 1) / 200
        assert result.agreement_low < result.agreement < result.agreement_high
        assert result.ok == (i < 3)
    with pytest.raises(GateError, match=r"int8 agrees with fp32 on 98\.00% of 200 images") as error:
        require_gate("a", "int8", result)
    assert error.value.exit_code == 3
    assert "; accuracy 100.0 % → 98.0 % (196 of 200; 95 % interval 95.0 to 99.2 %). vptkit" in str(
        error.value
    )


def test_the_split_of_the_images_and_whether_they_flatter():
    def evidence(**what):
        return Evidence(run=lambda _: lambda _: {}, **what)

    truth = LOGITS.argmax(axis=1)
    plain = compare(LOGITS, -LOGITS, truth, **JUDGED)
    result = with_split(plain, evidence(gate_split="val"))
    assert (result.split, result.too_kind, result.too_kind_because) == ("val", False, None)
    with pytest.raises(GateError, match=r"of 200 images .* of val, at least"):
        require_gate("a", "int8", result)
    result = with_split(plain, evidence(gate_split="train", too_kind="judged on training images"))
    assert (result.to_json()["too_kind"], result.split) == (True, "train")
    with pytest.raises(GateError, match="these judge too kindly: judged on training images"):
        require_gate("a", "int8", result)


def test_accuracy_before_and_after():
    truth = LOGITS.argmax(axis=1)
    assert accuracy_text(compare(LOGITS, LOGITS, truth, **JUDGED)).startswith(
        "accuracy 100.0 % → 100.0 % (200 of 200;"
    )
    assert accuracy_text(compare(LOGITS, LOGITS, None, **JUDGED)) is None


def test_without_classes_there_is_no_top1():
    result = compare(LOGITS, LOGITS, None, **JUDGED)
    require_gate("a", "int8", result)
    assert (result.top1, result.top1_fp32, result.sqnr_db) == (None, None, None)


def test_nan_and_nothing():
    broken = LOGITS.copy()
    broken[3] = np.nan
    with pytest.raises(GateError, match="NaN or Inf on 1 of 200"):
        compare(LOGITS, broken, None, **JUDGED)
    with pytest.raises(DataError, match="no images"):
        compare(LOGITS[:0], LOGITS[:0], None, **JUDGED)


def test_of_several_labels_an_image_the_labels_that_are_given_are_compared():
    """Half of what is given is lost, though 97.5 % of all decisions are the same."""
    expected = np.full((10, 20), -4.0)
    expected[:, 0] = 4.0
    found = expected.copy()
    found[:5, 0] = -4.0
    halves = np.full(20, 0.5, np.float32)
    result = compare(expected, found, np.zeros(10, np.intp), **JUDGED, thresholds=halves)
    assert result.agreement == pytest.approx(2 / 3)  # 2 · 5 / (10 + 5)
    assert (result.ok, result.top1, result.to_json()["multilabel"]) == (False, None, True)
    with pytest.raises(GateError, match=r"on 66\.67% of the labels of 10 images"):
        require_gate("a", "int8", result)
    lenient = compare(expected, found, None, **JUDGED, thresholds=np.full(20, 0.01, np.float32))
    assert lenient.ok  # at these thresholds every label is given by both
    assert "multilabel" not in compare(expected, found, None, **JUDGED).to_json()
