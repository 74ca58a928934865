"""A logistic regression for each label, all at their optimum for one strength of L2.

    f(W, b) = Σ_c [ Σ_i w_i BCE(y_ic, W_c x_i + b_c) / Σ w_i  +  (λ / 2) ‖W_c‖² ]

The labels share nothing but λ: each is scikit-learn's LogisticRegression with C = 1 / (λ n). They are
solved together, in the principal axes of `LogisticRegression`, each label's axes scaled by its own
curvature. Of a label that no row, or every row, has, b has no optimum: W is 0 and b the log-odds of
(k + 1/2) / (n + 1), k of n rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

from .logistic_regression import LogisticRegression

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["LabelRegression"]

_LOGITS = 1 << 19  # at once, for memory
_STEPS, _MEMORY = 300, 12  # of L-BFGS, as for single labels


class LabelRegression(LogisticRegression):
    """The problem of some features and labels; `solve` finds its optimum for one strength after the other.

    `Solution.loss` is the mean over the labels, `Solution.objective` their sum.
    """

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        """Find the features' principal axes.

        Args:
            features: of `LogisticRegression`: float32 [n, d], which is overwritten.
            targets: 0 or 1, float32 [n, C].
        """
        super().__init__(features, targets, targets.shape[1])
        count, has = len(targets), targets.double().sum(dim=0)
        self._mixed = (has > 0) & (has < count)
        one_sided = (~self._mixed).double()
        share = (has + 0.5 * one_sided) / (count + one_sided)
        self._prior = torch.logit(share)  # log-odds, [C]
        self._truth = targets

    def _search(
        self, strength: float, start: Tensor, tolerances: tuple[float, float]
    ) -> tuple[Tensor, float, float]:
        """Theta [k + 1, C] (the last row is the bias), f, and the mean binary cross-entropy there."""
        if not start.any():
            start[-1] = self._prior
        share = torch.sigmoid(self._prior)
        certainty = share * (1 - share)  # [C]
        curvature = torch.cat([self._variances[:, None] * certainty + strength, certainty[None]])
        steps = curvature.clamp(min=1e-12).rsqrt() * self._mixed
        scaled = torch.zeros_like(start).requires_grad_()
        solver = torch.optim.LBFGS(
            [scaled],
            max_iter=_STEPS,
            history_size=_MEMORY,
            tolerance_grad=tolerances[0],
            tolerance_change=tolerances[1],
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            theta = start + scaled.detach() * steps
            loss, gradient = self._slope(theta)
            gradient[:-1] += strength * theta[:-1]
            scaled.grad = gradient * steps
            return loss + strength / 2 * theta[:-1].square().sum()

        solver.step(closure)
        theta = start + scaled.detach() * steps
        loss = float(self._slope(theta)[0])
        objective = loss + strength / 2 * float(theta[:-1].square().sum())
        return theta, objective, loss / self._truth.shape[1]

    def _slope(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over labels of the mean binary cross-entropy, and its gradient by theta."""
        weight, bias = theta[:-1].float(), theta[-1].float()
        loss, gradient = theta.new_zeros(()), torch.zeros_like(theta)
        for part in self._blocks():
            inputs, truth = self._inputs[part], self._truth[part]
            logits = torch.addmm(bias, inputs, weight)
            rows = self._weights[part][:, None]
            loss += (rows * (softplus(logits) - truth * logits)).sum(dtype=torch.float64)
            residual = rows * (torch.sigmoid(logits) - truth)
            gradient[:-1] += inputs.T @ residual
            gradient[-1] += residual.sum(dim=0, dtype=torch.float64)
        return loss, gradient

    def _blocks(self) -> Iterator[slice]:
        count, labels = self._truth.shape
        rows = max(1, _LOGITS // labels)
        for begin in range(0, count, rows):
            yield slice(begin, begin + rows)
