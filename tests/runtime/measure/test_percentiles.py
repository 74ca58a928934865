from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support.held_memory import held_bytes
from vptkit.errors import VptkitError
from vptkit.runtime.measure.percentiles import KEPT, Histogram, Rounds, percentiles_and_mean

PERCENTS = (0, 2.5, 25, 50, 90, 99, 99.9, 100)
ACCURACY = 1e-3
NANOSECOND = 1e-6  # ms


def histogram(*parts) -> Histogram:
    found = Histogram()
    for ms in parts:
        found.add(np.asarray(ms, dtype=float))
    return found


def assert_accurate(found: Histogram, ms: np.ndarray) -> None:
    np.testing.assert_allclose(
        found.percentiles(PERCENTS), np.percentile(ms, PERCENTS), rtol=ACCURACY, atol=NANOSECOND
    )
    assert (found.count, found.least, found.greatest) == (len(ms), ms.min(), ms.max())
    assert found.summary()["mean"] == pytest.approx(ms.mean(), rel=1e-12)


any_ms = st.floats(0, 1e9) | st.floats(1e-7, 1e-5) | st.sampled_from([0.0, 1e-6, 1.0, 1e9])
# many of one value beside a few others, anywhere in the range
any_durations = hnp.arrays(np.float64, st.integers(1, 300), elements=any_ms, fill=any_ms)


@given(any_durations)
@settings(deadline=None)
def test_percentiles_hold_for_any_durations(ms):
    assert_accurate(histogram(ms), ms)


@given(any_durations, any_durations)
@settings(deadline=None, max_examples=30)
def test_merged_is_as_counted_together(a, b):
    together, merged = histogram(a, b), histogram(a)
    merged.merge(histogram(b))
    assert_accurate(merged, np.concatenate([a, b]))
    assert merged.summary() == pytest.approx(together.summary(), rel=1e-12)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 3.0])
def test_percentiles_of_log_normal_durations(sigma):
    ms = np.random.default_rng(0).lognormal(1.0, sigma, 100_000)
    assert_accurate(histogram(*np.split(ms, 10)), ms)


def test_percentiles_between_two_modes_are_interpolated():
    """The median of as many fast as slow calls is half way, where no call was."""
    ms = np.asarray([1.0] * 50 + [9.0] * 50)
    assert_accurate(histogram(ms), ms)


def test_steady_durations_are_exact():
    assert histogram([2.5] * 10_000).summary() == {"p50": 2.5, "p90": 2.5, "p99": 2.5, "mean": 2.5}


def test_durations_beyond_the_bins():
    """What no clock tells, and what nobody waits for, is counted all the same."""
    found = histogram([0.0, 0.0, 1e-300, 5e9, 1e300])
    assert (found.count, found.least, found.greatest) == (5, 0.0, 1e300)
    assert found.percentiles([50])[0] == 0.0
    assert found.percentiles([75])[0] == 1e300  # of those only the longest is known
    assert histogram([0.0] * 9).summary() == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "mean": 0.0}


@pytest.mark.parametrize("broken", [-1e-9, float("nan"), float("inf")])
def test_a_broken_clock_is_said(broken):
    found = histogram([1.0])
    with pytest.raises(VptkitError, match="the clock is broken"):
        found.add(np.asarray([1.0, broken]))
    assert found.count == 1


def test_few_rounds_are_all_kept_in_their_order():
    ms = np.random.default_rng(1).lognormal(1.0, 0.5, (KEPT, 2))
    rounds = Rounds(2)
    for one in ms:
        rounds.add(one)
    assert (rounds.count, rounds.histograms()) == (KEPT, None)
    np.testing.assert_array_equal(rounds.kept(), ms.T)
    assert percentiles_and_mean(rounds.kept()[0]) == {
        "p50": np.percentile(ms[:, 0], 50), "p90": np.percentile(ms[:, 0], 90),
        "p99": np.percentile(ms[:, 0], 99), "mean": ms[:, 0].copy().mean(),
    }  # fmt: skip


def test_of_many_rounds_whole_ones_are_kept():
    """Broken twin: a sample for each candidate, which tears rounds apart."""
    rounds = Rounds(2, kept=50)
    for i in range(1234):
        rounds.add([i, i + 0.5])
    ours, theirs = rounds.kept()
    np.testing.assert_array_equal(theirs - ours, [0.5] * 50)
    assert len(set(ours)) == 50
    both = rounds.histograms()
    assert_accurate(both[0], np.arange(1234.0))
    assert_accurate(both[1], np.arange(1234.0) + 0.5)


def test_each_round_has_the_same_chance_to_be_kept():
    """Broken twins: the last 20, or a draw whose chance does not fall with the rounds so far."""
    kept, rounds, trials = 20, 105, 600
    counts = np.zeros(rounds)
    for seed in range(trials):
        sample = Rounds(1, kept=kept, seed=seed)
        for i in range(rounds):
            sample.add([i])
        counts[sample.kept()[0].astype(int)] += 1
    expected = trials * kept / rounds
    deviation = np.sqrt(expected * (1 - kept / rounds))
    assert counts.sum() == trials * kept
    assert np.abs(counts - expected).max() < 4.5 * deviation


def test_the_choice_is_that_of_its_seed():
    def kept(seed: int) -> list[float]:
        rounds = Rounds(1, kept=10, seed=seed)
        for i in range(100):
            rounds.add([i])
        return rounds.kept()[0].tolist()

    assert kept(3) == kept(3) != kept(4)


def test_a_look_in_between_changes_no_figure():
    rounds = Rounds(1, kept=10)
    for i in range(35):
        rounds.add([i])
        assert len(rounds.kept()[0]) == min(i + 1, 10)
    assert_accurate(rounds.histograms()[0], np.arange(35.0))


def test_a_million_rounds_take_the_memory_of_a_few_thousand():
    """Broken twin: a list of them, which holds 96 MB."""
    rounds = Rounds(3)
    for i in range(1_000_000):
        rounds.add((i * 1e-3, 2.0, 3.0))
    assert held_bytes(rounds) < 1.1e6
    assert rounds.count == 1_000_000
    assert_accurate(rounds.histograms()[0], np.arange(1_000_000) * 1e-3)
