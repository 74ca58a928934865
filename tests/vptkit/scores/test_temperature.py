"""The temperature: fitted on val."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vptkit.scores.calibration_error import expected_calibration_error
from vptkit.scores.probabilities import log_loss, softmax
from vptkit.scores.temperature import best_factor, fit_temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray


def drawn(images: int, *, size: float = 3.0, classes: int = 5, seed: int = 0):
    """Logits, and classes drawn with just the probabilities that these say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)) * size
    truth = (softmax(logits).cumsum(axis=1) > rng.random((images, 1))).argmax(axis=1)
    return logits, truth


@pytest.mark.parametrize("factor", [0.2, 1.0, 2.5, 12.0])
def test_the_temperature_that_was_put_in_comes_out(factor):
    logits, truth = drawn(4000)
    found = fit_temperature((factor * logits).astype(np.float32), truth)
    assert found.temperature == pytest.approx(factor, rel=0.06)
    assert found.ece[1] < 0.025
    assert found.val_loss[1] <= found.val_loss[0]


@pytest.mark.slow
def test_it_is_the_optimum_that_torch_finds():
    """The same objective, by L-BFGS over log T."""
    logits, truth = drawn(300)
    torch = pytest.importorskip("torch")
    z, y = torch.from_numpy(3 * logits), torch.from_numpy(truth)
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [t], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure():
        solver.zero_grad()
        pull = 2 * (torch.exp(-t) - 1 + t)
        total = torch.nn.functional.cross_entropy(z * torch.exp(-t), y, reduction="sum") + pull
        total.backward()
        return total

    solver.step(closure)
    found = fit_temperature(3 * logits, truth)
    assert found.temperature == pytest.approx(float(t.detach().exp()), rel=1e-6)
    alone = min(np.geomspace(0.5, 8, 4000), key=lambda one: log_loss(3 * logits / one, truth))
    assert found.temperature == pytest.approx(alone, rel=0.02)  # the pull weighs little


def test_before_and_after_are_those_of_the_logits():
    logits, truth = drawn(500)
    found = fit_temperature(4 * logits, truth)
    for index, temperature in enumerate((1, found.temperature)):
        cooled = 4 * logits / temperature
        sure = softmax(cooled).max(axis=1)
        assert found.val_loss[index] == pytest.approx(log_loss(cooled, truth))
        ece = expected_calibration_error(sure, cooled.argmax(axis=1) == truth)
        assert found.ece[index] == pytest.approx(ece)
    assert found.to_json() == {
        "temperature": found.temperature,
        "val_loss": list(found.val_loss),
        "ece": list(found.ece),
    }


@pytest.mark.parametrize("size", [0.01, 1.0, 1e6])
def test_answers_that_are_all_right_do_not_run_to_the_bound(size):
    """Log-loss alone has its minimum at T = 0 there."""
    truth = np.arange(100) % 4
    found = fit_temperature(size * np.eye(4)[truth], truth)
    assert 0.05 <= found.temperature <= 20
    if size >= 1:
        assert 0.15 < found.temperature <= 1.01
    assert found.val_loss[1] <= found.val_loss[0]


def test_answers_that_are_all_wrong_end_at_the_bound():
    truth = np.arange(100) % 4
    found = fit_temperature(100 * np.eye(4)[(truth + 1) % 4], truth)
    assert found.temperature == pytest.approx(20)
    assert np.isfinite(found.val_loss).all()


def test_few_images_say_nothing():
    logits, truth = drawn(15)
    assert fit_temperature(9 * logits[:14], truth[:14]).temperature == 1
    assert fit_temperature(9 * logits, truth).temperature > 1.5


def test_few_images_do_harm_no_more():
    """20 images of a classifier that is right by its own word: what is lost elsewhere is little."""
    test, truth = drawn(4000, size=8, seed=99)
    losses = [
        log_loss(test / fit_temperature(*drawn(20, size=8, seed=seed)).temperature, truth)
        for seed in range(20)
    ]
    assert max(losses) < log_loss(test, truth) + 0.12


def test_logits_that_are_not_finite_have_no_temperature():
    logits, truth = drawn(50)
    logits[3, 1] = np.nan
    assert fit_temperature(logits, truth) is None
    assert fit_temperature(logits[:0], truth[:0]) is None


def test_parts_of_many_images_add_up(monkeypatch):
    logits, truth = drawn(100)
    whole = fit_temperature(2 * logits, truth)
    monkeypatch.setattr("vptkit.scores.temperature._VALUES", 30)
    assert fit_temperature(2 * logits, truth).temperature == pytest.approx(whole.temperature, 1e-12)


@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0, 30.0, 1e4])
def test_few_looks_at_the_logits_find_the_factor(monkeypatch, size):
    """Among them sizes for which it is the end of its interval. (36 halvings were half a probe's time.)"""
    logits, truth = drawn(100)
    looks = []

    def looked(values: NDArray[Any]) -> NDArray[np.float64]:
        looks.append(1)
        return softmax(values)

    monkeypatch.setattr("vptkit.scores.temperature.softmax", looked)
    factor = best_factor(size * logits, truth)
    assert 0 < len(looks) <= 10

    def objective(factor: float) -> float:
        return 100 * log_loss(factor * size * logits, truth) + 2 * (factor - 1 - np.log(factor))

    beside = [other for other in (0.99 * factor, 1.01 * factor) if 0.05 <= other <= 20]
    assert min(map(objective, beside)) > objective(factor)
