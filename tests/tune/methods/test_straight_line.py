"""The line between start and end: its points bit by bit, what val says of them, the rule."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vptkit.scores.temperature import fit_temperature  # noqa: E402
from vptkit.tune.methods.straight_line import (  # noqa: E402
    GRID,
    LinePoint,
    best_point,
    curve_of,
    judged_point,
    moved,
    on_line,
)


def two_states():
    generator = torch.Generator().manual_seed(0)
    start, end = (
        {"a": torch.randn(5, 7, generator=generator), "b": torch.randn(3, generator=generator)}
        for _ in range(2)
    )
    start["still"] = end["still"] = torch.tensor([0.1, 1e-30, -3.3])
    return start, end


def test_its_ends_are_start_and_end_bit_by_bit():
    start, end = two_states()
    for alpha, wanted in ((0.0, start), (1.0, end)):
        found = on_line(start, end, alpha)
        assert list(found) == list(end)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("alpha", GRID)
def test_between_and_behind_them(alpha):
    start, end = two_states()
    found = on_line(start, end, alpha)
    assert torch.equal(found["still"], end["still"])  # a frozen factor
    for name in ("a", "b"):
        first, last = start[name].double(), end[name].double()
        between = (1 - alpha) * first + alpha * last
        torch.testing.assert_close(found[name], between.float(), rtol=2e-7, atol=1e-7)
        assert found[name].dtype == torch.float32


def test_the_grid_begins_at_the_start_and_goes_past_the_end():
    assert GRID[:11] == tuple(tenth / 10 for tenth in range(11))
    assert GRID[11:] == (1.25, 1.5)


def test_half_precision_is_rounded_once():
    start, end = torch.tensor([1.0]).bfloat16(), torch.tensor([2.0]).bfloat16()
    assert moved(start, end, 0.3).dtype == torch.bfloat16
    assert moved(start, end, 0.3) == torch.tensor([1.3]).bfloat16()


def scored(alpha, logits, truth):
    found = judged_point(alpha, logits, truth)
    assert found is not None
    return found


@pytest.fixture
def val():
    """(logits of 60 images, their classes): right in about four of five."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 60)
    logits = rng.normal(size=(60, 4)).astype(np.float32)
    logits[np.arange(60), truth] += 2
    return logits, truth


def test_a_point_is_judged_behind_its_own_temperature(val):
    logits, truth = val
    point = scored(0.5, logits, truth)
    assert point.top1 == (logits.argmax(axis=1) == truth).mean()
    assert point.loss == pytest.approx(fit_temperature(logits, truth).val_loss[1], rel=1e-12)
    assert len(point.losses) == 60
    # A head that is three times less sure says the same, but for the pull towards T = 1.
    assert scored(0.5, logits / 3, truth).loss == pytest.approx(point.loss, abs=0.01)
    raw = -np.log(1 / np.exp(logits / 3 - (logits / 3)[np.arange(60), truth][:, None]).sum(1))
    assert raw.mean() > point.loss + 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_point_that_is_not_finite_is_left_out(val, bad):
    logits, truth = val
    logits[7, 2] = bad
    assert judged_point(1.5, logits, truth) is None


def points(**losses):
    return [LinePoint(float(alpha[1:]) / 10, 0.5, np.array(v)) for alpha, v in losses.items()]


def test_the_smallest_loss_is_taken_and_of_equals_the_smaller_alpha():
    assert best_point(points(a0=[2.0], a5=[1.0], a9=[3.0])).alpha == 0.5
    assert best_point(points(a9=[1.0], a2=[1.0], a5=[1.0])).alpha == 0.2
    accurate = LinePoint(0.7, 1.0, np.array([1.5]))  # accuracy does not count
    assert best_point([*points(a5=[1.0]), accurate]).alpha == 0.5


def test_the_curve_says_how_sure_a_difference_is():
    curve = curve_of(
        points(a0=[1.0, 2.0, 3.0, 4.0], a5=[0.0, 2.0, 2.0, 4.0], a9=[1.0, 3.0, 3.0, 5.0])
    )
    assert [row["alpha"] for row in curve] == [0.0, 0.5, 0.9]
    assert [row["val_loss"] for row in curve] == [2.5, 2.0, 3.0]
    # differences to the lowest: (1, 0, 1, 0), none, always 1
    assert [row["val_loss_error"] for row in curve] == [0.25, 0.0, 0.0]
