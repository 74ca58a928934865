"""From features to a head; the floor of the neighbours."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vptkit.tune.probe.fit_probe import FIXED_STRENGTH, Rows, fit_probe  # noqa: E402
from vptkit.tune.probe.logistic_regression import LogisticRegression  # noqa: E402
from vptkit.tune.probe.nearest_neighbours import cross_validated_knn, knn_top1  # noqa: E402


def rows(count: int, seed: int, noise: float = 1.0) -> Rows:
    """Three classes around fixed centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(3, 8) * 3
    targets = torch.arange(count) % 3
    return Rows(centres[targets] + noise * torch.randn(count, 8, generator=generator), targets)


def test_the_strength_is_the_one_with_the_lowest_loss_on_val():
    val = rows(60, 1)
    probe = fit_probe(rows(30, 0), 3, val=val)
    assert probe.chosen.val_loss <= min(point.val_loss for point in probe.points) + 1e-3
    strengths = [point.strength for point in probe.points]
    assert strengths == sorted(strengths, reverse=True)
    logits = val.features @ probe.weight.T + probe.bias
    assert torch.nn.functional.cross_entropy(logits, val.targets).item() == pytest.approx(
        probe.chosen.val_loss, rel=5e-3
    )
    assert probe.chosen.val_top1 == (logits.argmax(1) == val.targets).double().mean().item() > 0.8
    document = probe.to_json()
    assert document["strength"] == probe.chosen.strength
    assert len(document["grid"]) == len(probe.points)


def test_each_strength_is_judged_behind_its_own_temperature():
    val = rows(60, 1, 2.0)
    probe = fit_probe(rows(30, 0, 2.0), 3, val=val)
    plain = fit_probe(rows(30, 0, 2.0), 3, val=val, tempered=False)
    temperatures = [point.temperature for point in probe.points]
    assert temperatures[0] < 0.5 < 1 < temperatures[-1]  # a weak penalty has large logits
    assert {point.temperature for point in plain.points} == {1.0}
    assert probe.chosen.val_loss < plain.chosen.val_loss
    solution = LogisticRegression(*rows(30, 0, 2.0), 3).solve(probe.chosen.strength)
    near = {"rtol": 1e-2, "atol": 1e-3}
    torch.testing.assert_close(probe.weight * probe.chosen.temperature, solution.weight, **near)
    torch.testing.assert_close(probe.bias * probe.chosen.temperature, solution.bias, **near)


def test_few_held_out_images_say_nothing_of_a_temperature():
    assert fit_probe(rows(30, 0), 3, val=rows(12, 1)).chosen.temperature == 1.0


def test_a_stronger_penalty_is_chosen_where_features_say_less():
    clear = fit_probe(rows(30, 0, 0.3), 3, val=rows(60, 1, 0.3))
    vague = fit_probe(rows(30, 0, 6.0), 3, val=rows(60, 1, 6.0))
    assert clear.chosen.strength < vague.chosen.strength


def test_weights_of_classes_lift_a_rare_one():
    train = rows(90, 0, 3.0)
    kept = (train.targets != 2) | (torch.arange(90) < 9)
    few = Rows(train.features[kept], train.targets[kept])
    val = rows(90, 1, 3.0)

    def answers(weights: torch.Tensor | None) -> int:
        probe = fit_probe(Rows(few.features.clone(), few.targets), 3, val=val, weights=weights)
        return int(((val.features @ probe.weight.T + probe.bias).argmax(1) == 2).sum())

    assert answers(torch.tensor([1.0, 1.0, 10.0])) > answers(None)


def test_neighbours_vote():
    train = Rows(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    queries = Rows(torch.tensor([[5.0, 0.2], [0.1, 3.0], [-1.0, 0.0]]), torch.tensor([0, 1, 1]))
    assert knn_top1(train, queries, 2, k=1) == 1.0  # the last: farthest from the first two
    # with all three, the one near neighbour outweighs the two far ones (temperature 0.07)
    assert knn_top1(train, queries, 2, k=10) == 1.0
    wrong = Rows(queries.features, torch.tensor([1, 0, 0]))
    assert knn_top1(train, wrong, 2, k=1) == 0.0


def test_neighbours_of_many_queries_are_counted_in_parts(monkeypatch):
    train, queries = rows(30, 0, 2.0), rows(50, 1, 2.0)
    whole = knn_top1(train, queries, 3, k=5)
    monkeypatch.setattr("vptkit.tune.probe.nearest_neighbours._ROWS", 7)
    assert knn_top1(train, queries, 3, k=5) == whole
    assert 0.5 < whole < 1.0
    assert np.isfinite(whole)


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
    found = fit_probe(rows, 2, parts=parts_of(60))
    assert found.chosen.val_top1 < 0.7
    assert found.chosen.val_loss > 0.6
    assert cross_validated_knn(plain, parts_of(60), 2, 1) < 0.7


def test_the_strength_is_judged_on_each_image_once():
    rows, parts = clear(60), parts_of(60)
    found = fit_probe(copied(rows), 3, parts=parts)
    chosen = found.chosen
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
    least = min(point.val_loss for point in found.points)
    assert chosen.val_loss <= least + 1e-3  # of all but equals the strongest


def test_the_head_is_that_of_all_rows():
    rows, weights = clear(60), torch.tensor([1.0, 2.0, 3.0])
    found = fit_probe(copied(rows), 3, parts=parts_of(60), weights=weights)
    whole = LogisticRegression(rows.features, rows.targets, 3, weights[rows.targets])
    solution = whole.solve(found.chosen.strength)
    temperature = found.chosen.temperature
    torch.testing.assert_close(found.weight * temperature, solution.weight)
    torch.testing.assert_close(found.bias * temperature, solution.bias)


def test_where_nothing_can_be_held_out_the_strength_is_fixed():
    rows, never = clear(3), torch.full((3,), -1)
    found = fit_probe(copied(rows), 3, parts=never)
    assert found.without == ()
    assert found.to_json()["strength"] == FIXED_STRENGTH
    assert found.chosen.val_loss is found.chosen.val_top1 is None
    logits = rows.features @ found.weight.T + found.bias
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
        fit_probe(copied(rows), 3, parts=parts_of(60), val=judge).chosen
        for judge in (None, val, wrong)
    )
    assert agreed.val_top1 == pytest.approx((alone.val_top1 * 60 + 30) / 90, abs=0.05)
    assert misled.val_top1 <= 61 / 90
    assert misled.val_loss > 2 * agreed.val_loss


def test_with_one_image_a_class_val_alone_judges():
    rows, val = clear(3), clear(30)
    found = fit_probe(copied(rows), 3, parts=torch.full((3,), -1), val=val)
    assert found.without == ()
    assert len(found.points) > 2
    assert found.chosen.val_top1 > 0.5
