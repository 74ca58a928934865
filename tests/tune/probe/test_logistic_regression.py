"""The optimum, held against scikit-learn's and against its own conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vptkit.tune.probe.logistic_regression import LogisticRegression  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, WIDTH, CLASSES = 90, 24, 4


@pytest.fixture(scope="module")
def data() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Overlapping classes, axes of very different size, far from the origin."""
    random = np.random.default_rng(3)
    targets = random.integers(CLASSES, size=ROWS)
    centres = random.normal(size=(CLASSES, WIDTH))
    sizes = np.logspace(0.5, -1.5, WIDTH)
    features = 7 + sizes * (random.normal(size=(ROWS, WIDTH)) + 0.7 * centres[targets])
    return features.astype(np.float32), targets


def problem(
    features: NDArray[np.float32], targets: object, **options: object
) -> LogisticRegression:
    return LogisticRegression(torch.tensor(features), torch.tensor(targets), CLASSES, **options)


def objective(
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    features: NDArray[np.float32],
    shares: NDArray[np.float64],
    strength: float,
    rows: NDArray[np.float64] | None = None,
) -> float:
    """f as the module's docstring has it, in float64, on channels of root mean square 1."""
    rows = np.ones(len(features)) if rows is None else rows
    rows = rows / rows.sum()
    scale = np.sqrt(rows @ features.astype(float) ** 2)
    logits = features @ weight.T + bias
    log = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    log -= logits.max(1, keepdims=True)
    return float(-(rows @ (shares * log).sum(1)) + strength / 2 * ((weight * scale) ** 2).sum())


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
def test_the_optimum_is_that_of_scikit_learn(data, strength):
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not here")
    features, targets = data
    found = problem(features, targets).solve(strength)
    scale = np.sqrt((features.astype(float) ** 2).mean(axis=0))
    theirs = linear_model.LogisticRegression(C=1 / (strength * ROWS), max_iter=10_000, tol=1e-12)
    theirs.fit(features / scale, targets)
    weight, bias = theirs.coef_ / scale, theirs.intercept_
    one_hot = np.eye(CLASSES)[targets]
    expected = objective(weight, bias, features, one_hot, strength)
    ours = objective(found.weight.numpy(), found.bias.numpy(), features, one_hot, strength)
    assert ours == pytest.approx(expected, rel=1e-4)
    assert found.objective == pytest.approx(expected, rel=1e-4)
    assert found.loss < found.objective


def test_a_path_gives_what_each_strength_gives_alone(data):
    path = problem(*data)
    for strength in (1.0, 0.1, 1e-3):
        alone = problem(*data).solve(strength)
        assert path.solve(strength).objective == pytest.approx(alone.objective, rel=1e-4)


def test_weights_of_rows_are_rows_that_come_again(data):
    features, targets = data
    again = torch.tensor([3.0 if i % 2 else 1.0 for i in range(ROWS)])
    repeated = np.repeat(np.arange(ROWS), again.int().numpy())
    weighted = problem(features, targets, weights=again).solve(1e-2)
    plain = problem(features[repeated], targets[repeated]).solve(1e-2)
    assert weighted.objective == pytest.approx(plain.objective, rel=1e-5)
    torch.testing.assert_close(weighted.weight, plain.weight, rtol=0, atol=2e-3)


def test_soft_labels_are_shares_of_hard_ones(data):
    features, targets = data
    other = (targets + 1) % CLASSES
    soft = (0.75 * np.eye(CLASSES)[targets] + 0.25 * np.eye(CLASSES)[other]).astype(np.float32)
    mixed = problem(features, soft).solve(1e-2)
    both = problem(
        np.concatenate([features, features]),
        np.concatenate([targets, other]),
        weights=torch.tensor([0.75] * ROWS + [0.25] * ROWS),
    ).solve(1e-2)
    assert mixed.objective == pytest.approx(both.objective, rel=1e-5)


def test_features_in_parts_are_features_at_once(data, monkeypatch):
    whole = problem(*data).solve(1e-2)
    monkeypatch.setattr("vptkit.tune.probe.logistic_regression._ROWS", 13)
    assert problem(*data).solve(1e-2).objective == pytest.approx(whole.objective, rel=1e-6)


@pytest.mark.parametrize("rows", [2, 10])
def test_fewer_rows_than_features(data, rows):
    features, targets = data
    few = problem(features[:rows], targets[:rows])
    assert few.solve(1e-3).loss < few.solve(1.0).loss < np.log(CLASSES)


def test_features_without_any_variance_leave_the_shares_of_the_classes(data):
    _, targets = data
    found = problem(np.full((ROWS, WIDTH), 3.0, np.float32), targets).solve(1e-2)
    logits = 3.0 * found.weight.sum(dim=1) + found.bias
    expected = np.bincount(targets) / ROWS
    np.testing.assert_allclose(torch.softmax(logits, 0).numpy(), expected, atol=1e-3)


def test_a_strength_means_the_same_whatever_the_size_of_a_channel(data):
    features, targets = data
    sizes = np.logspace(-3, 3, WIDTH).astype(np.float32)
    plain = problem(features, targets).solve(1e-2)
    sized = problem(features * sizes, targets).solve(1e-2)
    x = torch.tensor(features)
    torch.testing.assert_close(
        x @ plain.weight.T + plain.bias,
        (x * torch.tensor(sizes)) @ sized.weight.T + sized.bias,
        rtol=0,
        atol=5e-3,
    )


def test_a_channel_that_is_large_on_every_image_is_leant_on_less(data):
    """The same differences between images, on top of a large constant: a larger weight costs more."""
    features, targets = data
    centred = features - features.mean(axis=0)
    near, far = (
        problem(centred + constant * np.eye(WIDTH, dtype=np.float32)[0], targets).solve(0.1)
        for constant in (0.0, 30.0)
    )
    assert far.weight[:, 0].norm() < near.weight[:, 0].norm() / 10
    assert far.weight[:, 1].norm() > near.weight[:, 1].norm()


def test_a_channel_of_nothing_but_zeros_has_no_weight(data):
    features, targets = data
    dead = features * (np.arange(WIDTH) != 5)
    found = problem(dead.astype(np.float32), targets).solve(1e-2)
    assert found.weight[:, 5].abs().max() < 1e-9 < found.weight[:, 4].abs().max()
    assert found.weight.isfinite().all()
