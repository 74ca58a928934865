"""Ranges of activations."""

from __future__ import annotations

import numpy as np

from vptkit.export.numerics.calibration import Spread, choose_range


def test_ranges_of_a_normal_distribution_with_an_outlier():
    value = np.random.default_rng(0).normal(size=(1000, 100)).astype(np.float32)
    value[3, 7] = 60
    spread = Spread()
    spread.add(value[:500])
    spread.add(value[500:])
    assert spread.counts.sum() == value.size
    assert choose_range(spread, "max") == 60
    assert 3.5 < choose_range(spread, "percentile") < 4.5
    cut = choose_range(spread, "mse")
    assert 4 < cut < 60

    def loss(end):
        return ((np.clip(np.rint(value / end * 127), -127, 127) * end / 127 - value) ** 2).sum()

    assert loss(cut) <= min(loss(60), loss(4)) * 1.05
    assert choose_range(Spread(), "mse") == 1
