"""The search finds the valley, and asks for few strengths."""

from __future__ import annotations

import math

import pytest

from vptkit.tune.probe.strength_search import STRENGTHS, search_strength


@pytest.mark.parametrize("best", range(0, len(STRENGTHS), 3))
def test_a_valley_is_found(best):
    asked = []

    def loss(strength: float) -> float:
        asked.append(strength)
        return abs(math.log(strength / STRENGTHS[best])) ** 1.5

    assert search_strength(loss) == STRENGTHS[best]
    assert len(set(asked)) == len(asked) <= 9 + 4


def test_of_equals_the_strongest_is_taken():
    assert search_strength(lambda _: 1.0) == STRENGTHS[0]


def test_weak_strengths_are_not_asked_for_behind_the_valley():
    asked = []

    def loss(strength: float) -> float:
        asked.append(strength)
        return abs(math.log10(strength))

    assert search_strength(loss) == pytest.approx(1.0)
    assert min(asked) == pytest.approx(1e-2)
