"""What stands behind a request: outputs of adapters with different numbers of classes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vptkit.runtime.serving.http_error import HttpError
from vptkit.runtime.serving.image_requests import (
    best_labels,
    given_labels,
    outputs_of,
    require_adapter,
)

ENTRIES = {
    name: {"name": name, "labels": list(labels)}
    for name, labels in (("two", "ab"), ("three", "xyz"))
}
MANY = {"name": "many", "labels": ["x", "y", "z"], "thresholds": [0.97, 0.5, 0.6]}


def bundle_of(entries):
    return SimpleNamespace(
        entry=entries.get, adapter_names=tuple(entries), manifest={"adapters": [*entries.values()]}
    )


BUNDLE = bundle_of(ENTRIES)
LOGITS = np.float32([[[1, 2, -np.inf, -np.inf]], [[3, 0, 1, -np.inf]]])


def test_outputs_are_as_wide_as_the_widest_and_finite():
    found = outputs_of(LOGITS, ["two", "three"], BUNDLE)
    lowest = np.finfo(np.float32).min
    assert found["logits"].values.tolist() == [[1, 2, lowest], [3, 0, 1]]
    assert found["label"].values == ["b", "x"]
    assert found["score"].values[0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert found["score"].values.dtype == np.float32
    assert outputs_of(LOGITS[:1], ["two"], BUNDLE)["logits"].shape == (1, 2)


def test_nan_is_the_images_own_fault():
    broken = LOGITS.copy()
    broken[1, 0, 0] = np.nan
    with pytest.raises(HttpError, match="image 1: the logits hold NaN") as caught:
        outputs_of(broken, ["two", "three"], BUNDLE)
    assert caught.value.status == 500
    assert best_labels(LOGITS[1], ENTRIES["three"], 2, "i")[1][0] == "z"


def test_several_labels_have_a_score_each_and_are_given_from_their_thresholds_on():
    """They are the graph's, and not computed anew from its logits."""
    answers = np.float32([[[3, 0, 1, -np.inf], [0.9, 0.5, 0.75, 0]]])
    found = outputs_of(answers, ["many"], bundle_of({"many": MANY}))
    assert found["scores"].values.tolist() == np.float32([[0.9, 0.5, 0.75]]).tolist()
    assert found["logits"].values.tolist() == [[3, 0, 1]]
    assert found["label"].values == ["x"]
    ranked = best_labels(answers[0], MANY, 3, "i")
    assert [label for label, _ in ranked] == ["x", "z", "y"]
    assert [label for label, _ in given_labels(ranked, MANY)] == ["z", "y"]
    assert given_labels(ranked, ENTRIES["three"]) is None
    assert "scores" not in outputs_of(LOGITS[1:], ["three"], BUNDLE)


def test_adapters_by_name_and_number():
    assert [require_adapter(BUNDLE, one) for one in ("two", 1)] == ["two", "three"]
    for wrong, status in (("four", 404), (2, 404), (-1, 404), (None, 400)):
        with pytest.raises(HttpError) as caught:
            require_adapter(BUNDLE, wrong)
        assert caught.value.status == status
