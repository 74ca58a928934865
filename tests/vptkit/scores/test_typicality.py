"""How far is far: against formulas of others, and what the shares promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vptkit.scores.typicality import fit_typicality, held_out_rates

RNG = np.random.default_rng(0)
MEANS = RNG.normal(size=(4, 6)) * 3
SPREAD = RNG.normal(size=(6, 6))


def drawn(count, seed):
    """Features [4 count, 6] and classes: Gaussian, one covariance."""
    classes = np.repeat(np.arange(4), count)
    noise = np.random.default_rng(seed).normal(size=(len(classes), 6)) @ SPREAD
    return MEANS[classes] + noise, classes


def test_the_distance_is_mahalanobis_to_the_nearest_mean():
    covariance = pytest.importorskip("sklearn.covariance")
    features, classes = drawn(15, 1)
    asked = drawn(3, 2)[0]
    found = fit_typicality(features, classes, asked)
    means = np.stack([features[classes == c].mean(axis=0) for c in range(4)])
    centred = features - means[classes]
    shrunk, _ = covariance.ledoit_wolf(centred, assume_centered=True)
    apart = asked[:, None] - means
    expected = np.einsum("nci,ij,ncj->nc", apart, np.linalg.inv(shrunk), apart).min(axis=1)
    assert np.allclose(found.distances(asked) ** 2, expected, rtol=1e-4)
    assert np.array_equal(found.known, np.sort(found.distances(asked)))


def test_shares_are_those_that_are_at_least_as_far():
    found = fit_typicality(*drawn(15, 1), drawn(5, 3)[0])
    assert found.least_rate == pytest.approx(1 / 21)
    asked = drawn(2, 4)[0]
    for share, distance in zip(found.shares(asked), found.distances(asked), strict=True):
        assert share == pytest.approx((1 + (found.known >= distance).sum()) / 21)
    assert found.shares(MEANS + 1000).tolist() == [found.least_rate] * 4
    tied = replace(found, known=np.repeat(found.distances(asked[:1]), 20))
    assert tied.shares(asked[:1])[0] == 1.0  # a distance equal to all of them is not far


def test_a_rate_is_held_on_images_like_the_known_ones_and_others_are_rejected():
    found = fit_typicality(*drawn(30, 1), drawn(50, 5)[0])
    like, unlike = drawn(500, 6)[0], drawn(500, 6)[0] + 25
    assert 0.02 < (found.shares(like) <= 0.05).mean() < 0.09
    assert (found.shares(unlike) <= 0.05).mean() > 0.95


def test_more_numbers_than_images_and_nothing_to_learn_from():
    wide = np.random.default_rng(0).normal(size=(6, 50))
    classes = np.array([0, 0, 0, 1, 1, 1])
    found = fit_typicality(wide, classes, wide)
    assert np.isfinite(found.whitening).all()
    assert found.distances(wide + 9).min() > found.known.max()
    assert fit_typicality(wide[:2], np.array([0, 1]), wide) is None  # one image of each class
    assert fit_typicality(np.ones((4, 3)), np.array([0, 0, 1, 1]), wide[:, :3]) is None


def test_classes_are_left_out_in_their_turn():
    features, classes = drawn(20, 1)
    known, known_classes = drawn(20, 7)
    apart = held_out_rates(features, classes, known, known_classes, 0.05)
    assert len(apart) == 4
    assert max(apart) < 0.5
    same = held_out_rates(features, classes, known, np.zeros(80, dtype=np.intp), 0.05)
    assert same == []  # nothing else is known
