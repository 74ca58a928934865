"""The probe of several labels an image, against scikit-learn's logistic regressions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference

from vptkit.scores.multilabel import label_losses
from vptkit.tune.probe.fit_probe import Rows
from vptkit.tune.probe.label_probe import fit_label_probe
from vptkit.tune.probe.label_regression import LabelRegression


def problem(count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Features with channels of other sizes and means, and labels that hang on them, one rarely there."""
    rng = np.random.default_rng(3)
    features = rng.standard_normal((count, 6)) * (1, 1, 5, 0.1, 1, 2) + (0, 0, 9, 0, 1, 0)
    scores = features @ rng.standard_normal((6, 4)) + 6 * rng.standard_normal((count, 4))
    truth = scores > [
        np.quantile(s, q) for s, q in zip(scores.T, (0.5, 0.9, 0.3, 0.6), strict=True)
    ]
    return torch.from_numpy(features).float(), torch.from_numpy(truth).float()


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
def test_each_label_is_scikit_learns_optimum(strength):
    features, truth = problem()
    scale = features.double().square().mean(dim=0).sqrt().numpy()
    found = LabelRegression(features.clone(), truth).solve(strength)
    losses = []
    for c in range(4):
        reference = Reference(C=1 / (strength * len(truth)), tol=1e-10, max_iter=10_000)
        reference.fit(features.numpy() / scale, truth[:, c].numpy())
        assert found.weight[c].numpy() * scale == pytest.approx(
            reference.coef_[0], abs=2e-3, rel=2e-3
        )
        logits = features.numpy() @ (reference.coef_[0] / scale) + reference.intercept_[0]
        ours = (features @ found.weight[c] + found.bias[c]).numpy()
        assert ours == pytest.approx(logits, abs=2e-3, rel=2e-3)
        losses.append(float(label_losses(logits[:, None], truth[:, [c]].numpy()).mean()))
    assert found.loss == pytest.approx(np.mean(losses), abs=1e-5)


def test_a_label_of_no_row_or_of_every_row_has_its_log_odds():
    features, truth = problem()
    truth[:, 0], truth[:, 2] = 0, 1
    found = LabelRegression(features.clone(), truth).solve(1e-2)
    alone = LabelRegression(features.clone(), truth[:, [1, 3]]).solve(1e-2)
    assert not found.weight[[0, 2]].any()
    assert torch.sigmoid(found.bias[[0, 2]]).tolist() == pytest.approx([0.5 / 81, 80.5 / 81])
    assert torch.allclose(found.weight[[1, 3]], alone.weight, atol=1e-4)


def test_the_strength_is_the_best_on_what_was_held_out():
    features, truth = problem(200)
    train, val = Rows(features[:120].clone(), truth[:120]), Rows(features[120:], truth[120:])
    probe = fit_label_probe(train, val=val)
    assert probe.chosen.val_loss <= min(point.val_loss for point in probe.points) + 1e-3
    logits = (val.features @ probe.weight.T + probe.bias).numpy()
    assert label_losses(logits, val.targets.numpy()).mean() == pytest.approx(
        probe.chosen.val_loss, abs=1e-4
    )
    assert 0.5 < probe.chosen.val_top1 <= 1


def test_parts_judge_and_have_heads_without_them():
    features, truth = problem(60)
    parts = torch.arange(60) % 3
    twice = Rows(features.repeat(2, 1), truth.repeat(2, 1))  # two views of each image
    probe = fit_label_probe(twice, parts=parts)
    assert len(probe.without) == 3
    for part, (weight, bias) in enumerate(probe.without):
        kept = parts != part
        alone = LabelRegression(features[kept].repeat(2, 1), truth[kept].repeat(2, 1))
        expected = alone.solve(probe.chosen.strength).divided_by(probe.chosen.temperature)
        ours, theirs = ((features @ w.T + b).sigmoid() for w, b in ((weight, bias), expected))
        assert torch.allclose(ours, theirs, atol=5e-3)
    assert fit_label_probe(Rows(features, truth)).chosen.val_loss is None
