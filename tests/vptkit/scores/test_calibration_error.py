"""The expected calibration error."""

from __future__ import annotations

import numpy as np
import pytest

from vptkit.scores.calibration_error import BINS, calibration_bins, expected_calibration_error


def test_by_hand():
    """Two bins: four images at 0.9 of which three are right, one at 0.5 that is wrong."""
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.5])
    right = np.array([True, True, True, False, False])
    wanted = 4 / 5 * abs(0.75 - 0.9) + 1 / 5 * 0.5
    assert expected_calibration_error(confidence, right) == pytest.approx(wanted)


def test_what_comes_true_as_often_as_it_is_said_has_none():
    right = np.arange(100) < 80
    assert expected_calibration_error(np.full(100, 0.8), right) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(np.ones(3), np.ones(3, bool)) == 0
    assert expected_calibration_error(np.ones(3), np.zeros(3, bool)) == 1


def test_the_upper_edge_belongs_to_a_bin_and_the_lower_one_to_the_one_before():
    """0.4 = 6/15 lies with 0.39 (right and wrong even out), not with 0.41."""
    confidence, right = np.array([0.4, 0.39, 0.41]), np.array([True, False, True])
    wanted = (abs(1 - 0.4 - 0.39) + 0.59) / 3
    assert expected_calibration_error(confidence, right) == pytest.approx(wanted)


def test_against_the_definition_read_word_by_word():
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    right = rng.random(500) < confidence**2
    total = 0.0
    for b in range(1, BINS + 1):
        inside = [i for i in range(500) if (b - 1) / BINS < confidence[i] <= b / BINS]
        if inside:
            accuracy = sum(right[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / 500 * abs(accuracy - mean)
    assert expected_calibration_error(confidence, right) == pytest.approx(total, rel=1e-12)
    assert expected_calibration_error(confidence.astype(np.float32), right) == pytest.approx(
        total, rel=1e-5
    )


def test_the_bins_are_those_of_the_error():
    random = np.random.default_rng(0)
    said = np.concatenate([random.uniform(size=500), [0.0, 1.0, 1 / 15]])
    right = random.uniform(size=len(said)) < said
    bins = calibration_bins(said, right)
    assert sum(one.count for one in bins) == len(said)
    assert sum(one.right for one in bins) == right.sum()
    gaps = [one.count * abs(one.right / one.count - one.confidence) for one in bins if one.count]
    assert sum(gaps) / len(said) == pytest.approx(expected_calibration_error(said, right))
    for i, one in enumerate(bins):
        assert i / len(bins) <= one.confidence <= (i + 1) / len(bins) or not one.count
