from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from vptkit.errors import VptkitError
from vptkit.runtime.measure.percentiles import KEPT
from vptkit.runtime.measure.timing import (
    Budget,
    Ratio,
    Timing,
    compare_medians,
    measure_latency,
    random_images,
    warm_up,
)


class Clock:
    """A clock that stands still unless a call turns it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def call(self, *milliseconds: float, log: list | None = None, name: str = ""):
        """A function that takes the given times one after the other, then the last for ever."""
        times = list(milliseconds)

        def run() -> None:
            self.now += (times.pop(0) if len(times) > 1 else times[0]) / 1000
            if log is not None:
                log.append(name)

        return run


def timing(*ms: float) -> Timing:
    return Timing(ms=np.asarray(ms, dtype=float), warm_up=0, settled=True)


def test_times_belong_to_their_candidates():
    clock = Clock()
    budget = Budget(rounds=7)
    calls = [clock.call(ms) for ms in (3.0, 5.0, 11.0)]
    found = measure_latency(calls, budget=budget, clock=clock)
    for expected, timing in zip((3.0, 5.0, 11.0), found, strict=True):
        np.testing.assert_allclose(timing.ms, [expected] * 7)


def test_rounds_are_interleaved_and_their_order_is_shuffled_but_repeatable():
    def order(seed: int) -> list[tuple[str, ...]]:
        clock, log = Clock(), []
        calls = [clock.call(1.0, log=log, name=n) for n in "abc"]
        measure_latency(calls, budget=Budget(rounds=30), clock=clock, seed=seed)
        measured = log[-90:]
        return [tuple(measured[i : i + 3]) for i in range(0, 90, 3)]

    rounds = order(0)
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) == 6
    assert rounds == order(0)
    assert rounds != order(1)


def test_warm_up_ends_when_the_median_settles_and_is_thrown_away():
    clock = Clock()
    slow_start = [90.0, 60.0, 40.0, 20.0, 15.0, 12.0]
    (found,) = measure_latency(
        [clock.call(*slow_start, 10.0)], budget=Budget(rounds=3), clock=clock
    )
    assert found.settled
    assert found.warm_up > len(slow_start)
    np.testing.assert_allclose(found.ms, [10.0] * 3)


def test_warm_up_of_a_steady_call_is_short():
    clock = Clock()
    assert warm_up(clock.call(50.0), budget=Budget(), clock=clock) == (10, True)


@pytest.mark.parametrize(("least", "calls"), [(0.0, 10), (0.25, 128)])
def test_warm_up_of_a_fast_call_lasts_until_clocks_have_risen(least, calls):
    """Ten calls of a GPU are over before its clock has moved."""
    clock = Clock()
    budget = Budget(warm_up_least=least)
    # 1/512 of a second: exact in binary
    assert warm_up(clock.call(1000 / 512), budget=budget, clock=clock) == (calls, True)


def test_warm_up_of_a_clock_that_stands_still_ends():
    clock = Clock()
    assert warm_up(clock.call(0.0), budget=Budget(), clock=clock) == (5000, False)


def test_warm_up_gives_up_after_its_calls_and_says_so():
    clock = Clock()
    growing = [1.2**i for i in range(100)]
    # 20 calls take less than 0.2 s
    budget = Budget(warm_up_seconds=1e9)
    assert warm_up(clock.call(*growing), budget=budget, clock=clock) == (20 + 50, False)


def test_warm_up_of_a_fast_call_goes_on_until_it_settles():
    """Broken twin: one look at the end of the least time, which a ramp of clocks does not pass."""
    clock = Clock()
    ramp = [1000 / 512] * 90 + [1000 / 512 * 1.3**i for i in range(20)]
    budget = Budget(warm_up_least=0.2)
    calls, settled = warm_up(clock.call(*ramp), budget=budget, clock=clock)
    assert settled
    assert calls > len(ramp)


def test_warm_up_gives_up_after_its_seconds():
    clock = Clock()
    budget = Budget(warm_up_seconds=2.5)
    assert warm_up(clock.call(1000.0), budget=budget, clock=clock) == (3, False)


def test_seconds_bound_the_rounds():
    clock = Clock()
    calls = [clock.call(30.0), clock.call(70.0)]
    found = measure_latency(calls, budget=Budget(seconds=4.95), clock=clock)
    assert [len(t.ms) for t in found] == [50, 50]


def test_a_slow_candidate_still_gets_the_least_number_of_rounds():
    clock = Clock()
    (found,) = measure_latency([clock.call(3000.0)], budget=Budget(seconds=1.0), clock=clock)
    assert len(found.ms) == 20


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_a_budget_must_be_positive(wrong):
    with pytest.raises(VptkitError, match="expected positive numbers"):
        Budget(**wrong)


def test_summary():
    summary = timing(*range(1, 102)).summary()
    assert summary == {"p50": 51.0, "p90": 91.0, "p99": 100.0, "mean": 51.0}


class Watch:
    """Progress that looks how much memory 4000 late rounds add."""

    total, rounds, added = None, 0, 0

    def update(self, advance: int = 1, text: str = "") -> None:
        self.rounds += advance
        if self.rounds == 10_000:
            tracemalloc.start()
        elif self.rounds == 14_000:
            self.added, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()


def test_a_long_measurement_keeps_little_and_tells_the_same():
    """Broken twin: a list of all rounds, which grows by 500 kB; ten minutes once held 2.6 GB."""
    disturbed = np.random.default_rng(0).lognormal(0, 0.5, 1000)  # meets all of a round
    clock, watch, made = Clock(), Watch(), [0, 0]

    def call(i: int, factor: float):
        def run() -> None:
            clock.now += factor * disturbed[made[i] % 1000] / 1000
            made[i] += 1

        return run

    # A warm-up of one call each, so that both meet the same disturbance in a round.
    budget = Budget(rounds=50_000, warm_up_seconds=1e-9)
    calls = [call(0, 1.0), call(1, 0.9)]
    base, ours = measure_latency(calls, budget=budget, clock=clock, progress=watch)
    assert made == [50_001, 50_001]
    assert watch.added < 50_000
    assert (base.count, len(base.ms), len(ours.ms)) == (50_000, KEPT, KEPT)
    np.testing.assert_allclose(ours.ms, 0.9 * base.ms, rtol=1e-6)
    for timing, factor in ((base, 1.0), (ours, 0.9)):
        whole, found = factor * np.tile(disturbed, 50), timing.summary()
        expected = np.percentile(whole, [50, 90, 99])
        np.testing.assert_allclose([found[p] for p in ("p50", "p90", "p99")], expected, rtol=1e-3)
        assert found["mean"] == pytest.approx(whole.mean(), rel=1e-6)
    ratio = compare_medians(ours, base)
    assert ratio.value == pytest.approx(0.9, rel=1e-6)
    assert ratio.verdict == "faster"


def test_a_clear_difference_is_found():
    random = np.random.default_rng(0)
    base = 10 + random.normal(0, 0.5, 60)
    ratio = compare_medians(timing(*(0.8 * base + random.normal(0, 0.2, 60))), timing(*base))
    assert ratio.low < ratio.value < ratio.high < 1
    assert ratio.value == pytest.approx(0.8, abs=0.02)
    assert ratio.verdict == "faster"


def test_few_rounds_allow_no_claim():
    """Five rounds: no interval of theirs covers the median in 95 of 100 cases."""
    fast, slow = (1.0, 1.1, 1.0, 1.1, 1.0), (9.0, 9.1, 9.0, 9.1, 9.0)
    assert compare_medians(timing(*fast), timing(*slow)).verdict == "no measurable difference"
    assert compare_medians(timing(*fast, 1.0), timing(*slow, 9.0)).verdict == "faster"


def test_the_same_candidate_twice_is_mostly_not_called_different():
    random = np.random.default_rng(0)
    claims = 0
    for seed in range(60):
        a, b = (timing(*random.lognormal(2, 0.1, 40)) for _ in range(2))
        claims += (
            compare_medians(a, b, seed=seed, resamples=300).verdict != "no measurable difference"
        )
    assert claims <= 8  # five in a hundred are expected


def test_what_disturbs_a_round_disturbs_both():
    """Drift over the rounds cancels in the pairs; drawn apart it would hide the difference."""
    random = np.random.default_rng(0)
    drift = np.exp(np.linspace(0, 1.5, 80))
    ours, base = 9.5 * drift, 10 * drift
    together = compare_medians(timing(*ours), timing(*base))
    apart = compare_medians(timing(*ours), timing(*random.permutation(base)))
    assert together.verdict == "faster"
    assert apart.verdict == "no measurable difference"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.9, 0.99, "faster"),
        (0.9, 1.0, "no measurable difference"),
        (0.9, 1.1, "no measurable difference"),
        (1.0, 1.1, "no measurable difference"),
        (1.01, 1.1, "slower"),
    ],
)
def test_verdicts(low, high, verdict):
    assert Ratio(value=(low + high) / 2, low=low, high=high).verdict == verdict


def test_images_are_noise_and_repeatable():
    images = random_images(2, (24, 16), seed=3)
    assert (images.dtype, images.shape) == (np.uint8, (2, 24, 16, 3))
    assert images.std() > 50
    np.testing.assert_array_equal(images, random_images(2, (24, 16), seed=3))
    assert (images != random_images(2, (24, 16), seed=4)).any()
