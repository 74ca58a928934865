"""Probabilities and log-loss."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vptkit.scores.probabilities import log_loss, log_losses, log_softmax, softmax


def test_softmax_of_large_logits():
    np.testing.assert_allclose(softmax(np.float32([[1e4, 1e4, -1e4]])), [[0.5, 0.5, 0.0]])


def test_by_hand():
    logits = np.log(np.float32([[1, 2, 5], [3, 1, 4]]))  # shares of 8
    np.testing.assert_allclose(softmax(logits), [[0.125, 0.25, 0.625], [0.375, 0.125, 0.5]], 1e-6)
    np.testing.assert_allclose(np.exp(log_softmax(logits)), softmax(logits), 1e-12)
    wanted = [math.log(4), math.log(2)]
    np.testing.assert_allclose(log_losses(logits, np.array([1, 2])), wanted, 1e-6)
    assert log_loss(logits, np.array([1, 2])) == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_a_loss_stays_finite_where_the_probability_is_zero():
    """float32's largest logits: exp of their distance is 0."""
    assert log_loss(np.float32([[3e38, -3e38]]), np.array([1])) == pytest.approx(6e38)
    assert log_loss(np.float32([[1000, 0]]), np.array([1])) == 1000.0


def test_the_loss_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(50, 7)) * 9, rng.integers(0, 7, 50)
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth))
    assert log_loss(logits, truth) == pytest.approx(float(wanted), rel=1e-12)
