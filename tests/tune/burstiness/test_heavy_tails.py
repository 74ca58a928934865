"""Tails told from a stream: against distributions that are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vptkit.tune.burstiness.heavy_tails import Tally  # noqa: E402

COUNT = 200_000


def sample(exponent: float, scale: float = 1.0, count: int = COUNT):
    """Of the density exp(-(|x|/scale)^exponent): a power of a gamma variable, with a sign."""
    random = np.random.default_rng(0)
    magnitude = scale * random.gamma(1 / exponent, 1.0, count) ** (1 / exponent)
    return magnitude * random.choice([-1.0, 1.0], count)


def tally(values, parts: int = 1) -> Tally:
    found = Tally()
    for part in np.array_split(values, parts):
        found.add(torch.from_numpy(part))
    return found


@pytest.mark.parametrize("scale", [1e-5, 1.0, 3e4])
@pytest.mark.parametrize("exponent", [0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0])
def test_the_fit_finds_the_exponent(exponent, scale):
    tails = tally(sample(exponent, scale)).tails()
    assert tails.generalised.exponent == pytest.approx(exponent, rel=0.02)
    assert tails.generalised.scale == pytest.approx(scale, rel=0.05)
    fits = {1.0: tails.laplacian, 2.0: tails.gaussian}
    for fixed, fit in fits.items():
        assert fit.exponent == fixed
        # no other exponent is likelier than the fitted one; a wrong one is clearly worse
        gap = tails.generalised.log_likelihood - fit.log_likelihood
        assert gap > -1e-9
        assert (gap < 1e-4) == (fixed == exponent)


def test_closed_forms():
    """A Gaussian's scale is √2 rms, a Laplacian's the mean magnitude; the log-likelihoods too."""
    x = sample(1.3, 2.0)
    tails = tally(x).tails()
    rms, magnitude = math.sqrt((x**2).mean()), np.abs(x).mean()
    assert tails.gaussian.scale == pytest.approx(math.sqrt(2) * rms, rel=1e-3)
    assert tails.laplacian.scale == pytest.approx(magnitude, rel=1e-3)
    gaussian = -0.5 * math.log(2 * math.pi * rms**2) - 0.5
    assert tails.gaussian.log_likelihood == pytest.approx(gaussian, abs=1e-3)
    assert tails.laplacian.log_likelihood == pytest.approx(-math.log(2 * magnitude) - 1, abs=1e-3)
    places = np.linspace(-60, 60, 100_001)
    for fit in (tails.gaussian, tails.laplacian, tails.generalised):
        total = fit.density(places).sum() * (places[1] - places[0])
        assert total == pytest.approx(1, abs=1e-4)


def test_moments_are_those_of_the_numbers():
    x = sample(0.8) + 0.3  # not centred: the kurtosis is about the mean, the rms about zero
    tails = tally(x).tails()
    centred = x - x.mean()
    kurtosis = (centred**4).mean() / (centred**2).mean() ** 2 - 3
    rms = math.sqrt((x**2).mean())
    assert tails.count == COUNT
    assert tails.mean == pytest.approx(x.mean())
    assert tails.rms == pytest.approx(rms)
    assert tails.excess_kurtosis == pytest.approx(kurtosis, rel=1e-9)
    assert tails.max_abs == pytest.approx(np.abs(x).max())
    assert tails.max_over_rms == pytest.approx(np.abs(x).max() / rms)
    assert tails.beyond_6_rms == pytest.approx((np.abs(x) > 6 * rms).mean(), rel=0.02)
    assert tally(sample(2.0)).tails().beyond_6_rms == 0


def test_a_stream_is_one_go():
    x = sample(0.6)
    one, many = tally(x).tails(), tally(x, parts=17).tails()
    for key in ("mean", "rms", "max_abs", "excess_kurtosis", "beyond_6_rms"):
        assert getattr(one, key) == pytest.approx(getattr(many, key), rel=1e-9)
    assert one.generalised == many.generalised


def test_the_histogram_counts():
    x = sample(0.7) - 0.2
    edges = np.linspace(-np.abs(x).max(), np.abs(x).max(), 101)
    found = tally(x).histogram(edges)
    wanted = np.histogram(x, edges)[0]
    assert found.sum() == pytest.approx(COUNT, abs=2)
    # an edge cuts a bin of half a per cent; what is beyond the cut is guessed
    assert np.abs(found - wanted).max() < 0.01 * wanted.max()
    assert np.abs(found[::-1] - wanted).max() > 0.05 * wanted.max()  # the mirrored twin


@pytest.mark.parametrize("values", [[], [0.0, 0.0, 0.0], [2.0, 2.0], [1e-30, -1e-30], [1e12]])
def test_degenerate_numbers_stay_finite(values):
    found = tally(np.array(values, dtype=np.float64)) if values else Tally()
    document = found.tails().to_json()
    json.dumps(document, allow_nan=False)
    assert document["count"] == len(values)


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.7, 1e-9])
def test_equal_numbers_have_no_tails(value):
    tails = tally(np.full(1001, value)).tails()
    assert tails.excess_kurtosis == 0
    assert tails.max_over_rms == pytest.approx(1)
