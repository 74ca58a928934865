"""Features beside the expected ones: figures that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vptkit.scores.feature_distance import feature_distance, unit_length


def test_figures_by_hand():
    expected = np.float32([[3, 0], [0, 4]])
    found = feature_distance(expected, np.float32([[3, 0], [4, 4]]))
    assert (found.count, found.max_abs_diff, found.max_rel_diff) == (2, 4.0, 1.0)
    assert found.min_cosine == pytest.approx(math.sqrt(0.5))
    assert found.cosine == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert found.text() == "features: cosine 0.85355 on average, 0.70711 at least"
    assert set(found.to_json()) == {
        "count",
        "max_abs_diff",
        "max_rel_diff",
        "cosine",
        "min_cosine",
    }


def test_the_same_features_are_no_distance_apart_also_without_a_direction():
    zero = np.zeros((1, 3), np.float32)
    same = feature_distance(zero, zero)
    assert (same.max_rel_diff, same.min_cosine) == (0.0, 1.0)
    assert feature_distance(zero, zero + 1).min_cosine == 0.0
    assert feature_distance(zero, zero + 1).max_rel_diff > 1e300


def test_what_is_no_number_has_no_figures():
    found = feature_distance(np.ones((1, 2)), np.float32([[np.nan, 1]]))
    assert found.max_rel_diff is found.min_cosine is found.cosine is None
    assert found.text() == "features: NaN or Inf"


def test_unit_length_as_torch_does_it():
    torch = pytest.importorskip("torch")
    rows = np.float32([[3, 4], [0, 0], [1e-13, 0]])
    expected = torch.nn.functional.normalize(torch.from_numpy(rows)).numpy()
    assert np.allclose(unit_length(rows), expected, rtol=1e-6, atol=0)
