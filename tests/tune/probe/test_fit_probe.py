"""From features to a head; the floor of the neighbours."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vptkit.tune.probe.fit_probe import Rows, fit_probe  # noqa: E402
from vptkit.tune.probe.logistic_regression import LogisticRegression  # noqa: E402
from vptkit.tune.probe.nearest_neighbours import knn_top1  # noqa: E402


def rows(count: int, seed: int, noise: float = 1.0) -> Rows:
    """Three classes around fixed centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(3, 8) * 3
    targets = torch.arange(count) % 3
    return Rows(centres[targets] + noise * torch.randn(count, 8, generator=generator), targets)


def test_the_strength_is_the_one_with_the_lowest_loss_on_val():
    val = rows(60, 1)
    probe = fit_probe(rows(30, 0), val, 3)
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
    probe = fit_probe(rows(30, 0, 2.0), val, 3)
    plain = fit_probe(rows(30, 0, 2.0), val, 3, tempered=False)
    temperatures = [point.temperature for point in probe.points]
    assert temperatures[0] < 0.5 < 1 < temperatures[-1]  # a weak penalty has large logits
    assert {point.temperature for point in plain.points} == {1.0}
    assert probe.chosen.val_loss < plain.chosen.val_loss
    solution = LogisticRegression(*rows(30, 0, 2.0), 3).solve(probe.chosen.strength)
    near = {"rtol": 1e-2, "atol": 1e-3}
    torch.testing.assert_close(probe.weight * probe.chosen.temperature, solution.weight, **near)
    torch.testing.assert_close(probe.bias * probe.chosen.temperature, solution.bias, **near)


def test_few_held_out_images_say_nothing_of_a_temperature():
    assert fit_probe(rows(30, 0), rows(12, 1), 3).chosen.temperature == 1.0


def test_a_stronger_penalty_is_chosen_where_features_say_less():
    clear = fit_probe(rows(30, 0, 0.3), rows(60, 1, 0.3), 3)
    vague = fit_probe(rows(30, 0, 6.0), rows(60, 1, 6.0), 3)
    assert clear.chosen.strength < vague.chosen.strength


def test_weights_of_classes_lift_a_rare_one():
    train = rows(90, 0, 3.0)
    kept = (train.targets != 2) | (torch.arange(90) < 9)
    few = Rows(train.features[kept], train.targets[kept])
    val = rows(90, 1, 3.0)

    def answers(weights: torch.Tensor | None) -> int:
        probe = fit_probe(Rows(few.features.clone(), few.targets), val, 3, weights)
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
