"""The strength without a validation split; nothing that is held out has a twin among the others."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from vptkit.tune.probe.cross_validated_probe import (  # noqa: E402
    FIXED_STRENGTH,
    cross_validated_knn,
    fit_probe_by_parts,
)
from vptkit.tune.probe.fit_probe import Rows  # noqa: E402
from vptkit.tune.probe.logistic_regression import LogisticRegression  # noqa: E402


def noise(count: int, width: int = 64) -> Rows:
    """Features that say nothing of their class: who knows the answers has seen them."""
    generator = torch.Generator().manual_seed(0)
    return Rows(torch.randn(count, width, generator=generator), torch.arange(count) % 2)


def clear(count: int, spread: float = 1.0) -> Rows:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(count) % 3
    centres = 3 * torch.eye(3, 8)[targets]
    return Rows(centres + spread * torch.randn(count, 8, generator=generator), targets)


def parts_of(count: int, folds: int = 5) -> torch.Tensor:
    return torch.arange(count) // 6 % folds


def copied(rows: Rows) -> Rows:
    return Rows(rows.features.clone(), rows.targets)


@pytest.mark.parametrize("views", [1, 2])
def test_a_view_of_a_held_out_image_is_not_trained_on(views):
    """Equal views: in another part they would give the answer away."""
    plain = noise(60)
    rows = Rows(plain.features.repeat(views, 1), plain.targets.repeat(views))
    found = fit_probe_by_parts(rows, parts_of(60), 2)
    assert found.probe.chosen.val_top1 < 0.7
    assert found.probe.chosen.val_loss > 0.6
    assert cross_validated_knn(plain, parts_of(60), 2, 1) < 0.7


def test_the_strength_is_judged_on_each_image_once():
    rows, parts = clear(60), parts_of(60)
    found = fit_probe_by_parts(copied(rows), parts, 3)
    chosen = found.probe.chosen
    losses, right = [], []
    for part, (weight, bias) in enumerate(found.without):
        others = parts != part
        alone = LogisticRegression(rows.features[others], rows.targets[others], 3)
        again = alone.solve(chosen.strength)
        torch.testing.assert_close(weight * chosen.temperature, again.weight, rtol=1e-2, atol=1e-3)
        logits = rows.features[~others] @ weight.T + bias
        targets = rows.targets[~others]
        losses += torch.nn.functional.cross_entropy(logits, targets, reduction="none").tolist()
        right += (logits.argmax(1) == targets).tolist()
    assert chosen.val_loss == pytest.approx(sum(losses) / 60, rel=2e-3)
    assert chosen.val_top1 == pytest.approx(sum(right) / 60)
    least = min(point.val_loss for point in found.probe.points)
    assert chosen.val_loss <= least + 1e-3  # of all but equals the strongest


def test_the_head_is_that_of_all_rows():
    rows, weights = clear(60), torch.tensor([1.0, 2.0, 3.0])
    found = fit_probe_by_parts(copied(rows), parts_of(60), 3, weights)
    whole = LogisticRegression(rows.features, rows.targets, 3, weights[rows.targets])
    solution = whole.solve(found.probe.chosen.strength)
    temperature = found.probe.chosen.temperature
    torch.testing.assert_close(found.probe.weight * temperature, solution.weight)
    torch.testing.assert_close(found.probe.bias * temperature, solution.bias)


def test_where_nothing_can_be_held_out_the_strength_is_fixed():
    rows, never = clear(3), torch.full((3,), -1)
    found = fit_probe_by_parts(copied(rows), never, 3)
    assert found.without == ()
    assert found.probe.to_json()["strength"] == FIXED_STRENGTH
    assert found.probe.chosen.val_loss is found.probe.chosen.val_top1 is None
    logits = rows.features @ found.probe.weight.T + found.probe.bias
    assert (logits.argmax(1) == rows.targets).all()
    assert cross_validated_knn(rows, never, 3, 1) is None


def test_neighbours_are_those_that_are_not_held_out():
    rows = clear(60, 0.3)
    assert cross_validated_knn(rows, parts_of(60), 3, 10) == 1.0


def test_val_judges_beside_the_parts():
    """Labels of val that contradict train weigh against what the parts alone would choose."""
    rows, val = clear(60), clear(30)
    wrong = Rows(val.features, (val.targets + 1) % 3)
    alone, agreed, misled = (
        fit_probe_by_parts(copied(rows), parts_of(60), 3, val=judge).probe.chosen
        for judge in (None, val, wrong)
    )
    assert agreed.val_top1 == pytest.approx((alone.val_top1 * 60 + 30) / 90, abs=0.05)
    assert misled.val_top1 <= 61 / 90
    assert misled.val_loss > 2 * agreed.val_loss


def test_with_one_image_a_class_val_alone_judges():
    rows, val = clear(3), clear(30)
    found = fit_probe_by_parts(copied(rows), torch.full((3,), -1), 3, val=val)
    assert found.without == ()
    assert len(found.probe.points) > 2
    assert found.probe.chosen.val_top1 > 0.5
