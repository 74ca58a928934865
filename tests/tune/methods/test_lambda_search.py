"""The search for λ: it finds peaks, and stays at 1 unless validation says otherwise."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vptkit.tune.methods.lambda_search import GRID, LambdaPoint, best_lambda, search_lambda  # noqa: E402


def first(share):
    """Which of 1,000 images are right, if those are the first ones."""
    return np.arange(1000) < round(1000 * share)


def search(top1, loss=lambda factor: 0.5):
    """The trials, and how often each λ was asked."""
    asked = []

    def score(factor):
        asked.append(factor)
        return first(top1(factor)), loss(factor)

    points = search_lambda(score)
    assert [t.factor for t in points] == sorted(set(asked))
    assert len(asked) == len(set(asked))  # an evaluation is a pass over the split
    assert len(asked) <= len(GRID) + 6
    assert set(GRID) <= set(asked)
    for point in points:
        assert point.top1 == first(top1(point.factor)).mean()
        assert point.loss == loss(point.factor)
        assert point.won - point.lost == round(1000 * (point.top1 - first(top1(1.0)).mean()))
    return points


@pytest.mark.parametrize("peak", [0.6, 0.83, 1.0, 1.07, 1.33, 1.62, 1.9])
def test_a_peak_between_grid_points_is_found(peak):
    points = search(lambda factor: 1 - abs(factor - peak))
    best = best_lambda(points)
    assert best.factor == pytest.approx(peak, abs=0.06)
    on_grid = max(first(1 - abs(factor - peak)).mean() for factor in GRID)
    assert best.top1 >= on_grid


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_no_difference_leaves_one(value):
    assert best_lambda(search(lambda _: value)).factor == 1.0


@pytest.mark.parametrize(("low", "high"), [(1.3, 9.0), (0.0, 0.8)])
def test_on_a_plateau_the_nearest_to_one_wins(low, high):
    points = search(lambda factor: 0.9 if low <= factor <= high else 0.8)
    edge = low if low > 1 else high
    best = best_lambda(points)
    assert best.top1 == 0.9
    assert abs(best.factor - edge) < 0.02


def test_ties_are_not_broken_by_loss():
    points = search(lambda _: 0.7, loss=lambda factor: 1 / factor)
    assert best_lambda(points).factor == 1.0


def test_a_better_grid_end_is_taken():
    assert best_lambda(search(lambda factor: factor / 2)).factor == 2.0
    assert best_lambda(search(lambda factor: 1 - factor / 2)).factor == 0.5


def test_best_lambda():
    plain = LambdaPoint(1.0, 0.8, 0.1)
    points = [LambdaPoint(0.5, 0.9, 1.0, won=10), LambdaPoint(1.25, 0.9, 3.0, won=10), plain]
    assert best_lambda(points).factor == 1.25


@pytest.mark.parametrize(
    ("won", "lost", "taken"),
    [(1, 0, False), (2, 0, True), (3, 1, False), (4, 1, True), (10, 6, False), (11, 6, True)],
)
def test_a_gain_that_chance_would_give_is_not_taken(won, lost, taken):
    """More than one standard error: won - lost > sqrt(won + lost), McNemar's statistic above 1."""
    plain = LambdaPoint(1.0, 0.8, 0.1)
    other = LambdaPoint(1.5, 0.8 + (won - lost) / 100, 0.1, won, lost)
    assert best_lambda([plain, other]).factor == (1.5 if taken else 1.0)


def test_won_and_lost_are_counted_image_by_image():
    """As accurate as λ = 1, on other images."""
    plain = np.array([True, True, False, False, True])
    right = {1.0: plain, 2.0: np.array([False, True, True, False, True])}
    points = search_lambda(lambda factor: (right.get(factor, plain), 0.5))
    assert [(t.won, t.lost) for t in points if t.factor in right] == [(0, 0), (1, 1)]
    assert best_lambda(points).factor == 1.0
