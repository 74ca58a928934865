"""Wilson's interval."""

from __future__ import annotations

import math

import pytest

from vptkit.scores.score_interval import share_text, wilson


def test_wilson_against_published_values():
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20)[0] == 0
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="0 of 0"):
        wilson(0, 0)


def solved(successes: int, count: int, low: float, high: float) -> float:
    """The p between low and high at which the score statistic is just significant, by bisection."""

    def beyond(p: float) -> bool:
        spread = math.sqrt(p * (1 - p) / count)
        return abs(successes / count - p) > 1.959963984540054 * spread

    outside = beyond(low)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) == outside else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize(("successes", "count"), [(1, 2), (217, 250), (11, 12), (1, 1000)])
def test_wilson_solves_the_score_equation(successes, count):
    share = successes / count
    bounds = solved(successes, count, 1e-12, share), solved(successes, count, share, 1 - 1e-12)
    assert wilson(successes, count) == pytest.approx(bounds, abs=1e-9)


def test_a_share_in_words():
    assert share_text(217, 250) == "86.8 % (217 of 250; 95 % interval 82.0 to 90.4 %)"
    assert share_text(1999, 2000).startswith("99.9 % (1999 of 2000; ")
    assert share_text(5, 5) == "100.0 % (5 of 5; 95 % interval 56.6 to 100.0 %)"
