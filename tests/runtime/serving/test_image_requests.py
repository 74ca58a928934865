"""What stands behind a request: outputs of adapters with different numbers of classes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vptkit.runtime.serving.http_error import HttpError
from vptkit.runtime.serving.image_requests import best_labels, outputs_of, require_adapter

LABELS = {"two": ("a", "b"), "three": ("x", "y", "z")}
BUNDLE = SimpleNamespace(labels_of=LABELS.get, adapter_names=tuple(LABELS))
LOGITS = np.float32([[1, 2, -np.inf, -np.inf], [3, 0, 1, -np.inf]])


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
    broken[1, 0] = np.nan
    with pytest.raises(HttpError, match="image 1: the logits hold NaN") as caught:
        outputs_of(broken, ["two", "three"], BUNDLE)
    assert caught.value.status == 500
    assert best_labels(LOGITS[1], LABELS["three"], 2, "i")[1][0] == "z"


def test_adapters_by_name_and_number():
    assert [require_adapter(BUNDLE, one) for one in ("two", 1)] == ["two", "three"]
    for wrong, status in (("four", 404), (2, 404), (-1, 404), (None, 400)):
        with pytest.raises(HttpError) as caught:
            require_adapter(BUNDLE, wrong)
        assert caught.value.status == status
