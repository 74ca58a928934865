"""Several labels an image, against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from vptkit.scores.multilabel import (
    average_precisions,
    best_thresholds,
    f1_scores,
    label_losses,
    mean_auc_deviation,
    mean_average_precision,
    sigmoid,
)
from vptkit.scores.probabilities import top1_and_log_loss
from vptkit.scores.temperature import best_factor, fit_temperature


@pytest.fixture
def answers():
    """(logits, truth) of 60 images and 4 labels, coarse logits: many are equal."""
    rng = np.random.default_rng(0)
    truth = rng.random((60, 4)) < (0.5, 0.1, 0.9, 0.3)
    logits = np.round(3 * (truth - 0.5) + 2 * rng.standard_normal((60, 4)), 1)
    return logits.astype(np.float32), truth.astype(np.float32)


def test_average_precision_is_that_of_scikit_learn(answers):
    logits, truth = answers
    expected = [average_precision_score(truth[:, c], logits[:, c]) for c in range(4)]
    assert average_precisions(logits, truth) == pytest.approx(expected, abs=1e-12)
    assert mean_average_precision(logits, truth) == pytest.approx(np.mean(expected), abs=1e-12)


def test_a_label_that_no_image_has_is_left_out_of_the_mean(answers):
    logits, truth = answers
    truth[:, 1] = 0
    found = average_precisions(logits, truth)
    assert np.isnan(found).tolist() == [False, True, False, False]
    assert mean_average_precision(logits, truth) == pytest.approx(np.nanmean(found))


def test_f1_is_that_of_scikit_learn(answers):
    logits, truth = answers
    truth[:, 1], given = 0, logits > 0.3
    given[:, 1] = False  # never given, never there: counts as 0
    found = f1_scores(given, truth)
    options = {"zero_division": 0}
    assert found.micro == pytest.approx(f1_score(truth, given, average="micro", **options))
    assert found.macro == pytest.approx(f1_score(truth, given, average="macro", **options))
    assert found.by_label == pytest.approx(f1_score(truth, given, average=None, **options))


def test_losses_and_probabilities(answers):
    logits, truth = answers
    expected = [log_loss(truth[:, c], sigmoid(logits[:, c])) for c in range(4)]
    assert label_losses(logits, truth).mean() == pytest.approx(np.mean(expected))
    map_, loss = top1_and_log_loss(logits, truth)
    assert loss == pytest.approx(np.mean(expected))
    assert map_ == mean_average_precision(logits, truth)
    assert label_losses(np.array([[1e4, -1e4]]), np.array([[1, 0]])).tolist() == [0.0]
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_at_the_minimum(answers, scale):
    logits, truth = answers[0].astype(np.float64) * scale, answers[1]

    def cost(factor: float) -> float:
        return float(label_losses(factor * logits, truth).sum()) + 2 * (factor - 1 - np.log(factor))

    expected = minimize_scalar(cost, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    assert best_factor(logits, truth) == pytest.approx(expected, rel=1e-5)
    fitted = fit_temperature(logits, truth)
    assert fitted is not None
    assert fitted.temperature == pytest.approx(1 / expected, rel=1e-5)
    assert fitted.val_loss[1] <= fitted.val_loss[0] + 1e-12
    assert best_factor(logits[:14], truth[:14]) == 1.0


def test_thresholds_have_the_largest_f1(answers):
    logits, truth = answers
    truth[:, 3] = 0
    chances = sigmoid(logits)
    found = best_thresholds(chances, truth)
    assert found.dtype == np.float32
    assert found[3] == 0.5  # nothing says where it should be
    for c in range(3):
        scores = [
            f1_score(truth[:, c], chances[:, c] >= t) for t in [0.5, *np.unique(chances[:, c])]
        ]
        assert f1_score(truth[:, c], chances[:, c] >= found[c]) == pytest.approx(max(scores))


@pytest.mark.parametrize(
    ("chances", "truth", "expected"),
    [
        ((0.1, 0.4, 0.8, 0.9), (0, 0, 1, 1), 0.5),  # all between 0.4 and 0.8 are as good
        ((0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1), 0.25),
        ((0.8, 0.9, 0.95, 1.0), (0, 0, 1, 1), 0.925),
        ((0.6, 0.7), (1, 1), 0.5),
        ((0.0, 0.0), (1, 0), 1e-6),  # a threshold is no 0
    ],
)
def test_of_equal_thresholds_the_one_nearest_to_a_half(chances, truth, expected):
    found = best_thresholds(np.array(chances)[:, None], np.array(truth)[:, None])
    assert found.tolist() == pytest.approx([expected])


def test_the_deviation_of_the_mean_auc(answers):
    logits, truth = answers
    aucs = [roc_auc_score(truth[:, c], logits[:, c]) for c in range(4)]
    counts = truth.sum(axis=0)
    variance = (61 / (12 * counts * (60 - counts))).sum()
    expected = sum(auc - 0.5 for auc in aucs) / np.sqrt(variance)
    assert mean_auc_deviation(logits, truth) == pytest.approx(expected)
    assert mean_auc_deviation(np.zeros((9, 2)), truth[:9, :2]) == 0.0
    assert mean_auc_deviation(logits, np.ones((60, 4))) == 0.0
