"""Sets of labels: which ones scores give, and how far two sets agree."""

from __future__ import annotations

import numpy as np
import pytest

from vptkit.scores.label_sets import decided, f1_interval, same_labels

NONE = np.zeros((2, 3), bool)
FIRST = np.asarray([[True, False, False], [True, False, False]])
MORE = np.asarray([[True, True, False], [True, False, False]])


def test_a_label_at_its_threshold_is_given():
    """0.1 in float32 is no 0.1 in float64: both sides are float32, as files have them."""
    scores = np.asarray([[np.float32(0.1), 0.5, np.nextafter(np.float32(0.9), np.float32(0))]])
    assert decided(scores, np.asarray([0.1, 0.5, 0.9])).tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("expected", "found", "share"),
    [
        (NONE, NONE, 1.0),
        (FIRST, FIRST, 1.0),
        (FIRST, NONE, 0.0),
        (FIRST, MORE, 4 / 5),  # an absent label on both sides is no agreement
    ],
)
def test_agreement_counts_labels_that_are_given(expected, found, share):
    assert same_labels(expected, found) == share
    assert same_labels(found, expected) == share


def test_of_one_label_an_image_agreement_is_the_share_of_images():
    random = np.random.default_rng(0)
    these, those = random.integers(0, 4, (2, 50))
    unit = np.eye(4, dtype=bool)
    assert same_labels(unit[these], unit[those]) == pytest.approx((these == those).mean())


def test_the_interval_holds_the_score_and_shrinks_with_the_images():
    random = np.random.default_rng(0)
    truth = random.random((400, 5)) < 0.3
    found = truth ^ (random.random(truth.shape) < 0.1)
    widths = []
    for count in (40, 400):
        low, high = f1_interval(found[:count], truth[:count], draws=200)
        assert 0 < low < same_labels(truth[:count], found[:count]) < high < 1
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert f1_interval(truth, truth, draws=5) == (1.0, 1.0)
