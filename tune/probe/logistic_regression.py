"""Multinomial logistic regression at its optimum, by L-BFGS.

    f(W, b) = Σ w_i H(y_i, softmax(W x_i + b)) / Σ w_i  +  (λ / 2) ‖W‖²        b is not penalised

x are the features, each channel divided by its root mean square, mean included, so that a strength λ
means the same for every backbone; that is folded back into W. (scikit-learn's C is 1 / (λ n) on such
features.) The mean is included because of the channels that are large on every image (massive
activations; they make the inputs of attention "bursty", too): they say little about the class, and
all move together when the kind of image changes. Divided by their deviation alone, or all channels by
one number, they would be cheap to lean on. docs/results.md has what it is worth.

The problem is solved in the principal axes of the features, each axis scaled by its curvature: the
same optimum, in a tenth of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["LogisticRegression", "Solution"]

_ROWS = 8192  # of features at once: what is computed beside them stays small
_LOGITS = 1 << 19  # at once: larger blocks cost twice the time, outside the processor's caches
_STEPS, _MEMORY = 300, 12  # of L-BFGS: most steps, and pairs that it remembers
# Where it ends, by gradient and by change: for a head, and to compare strengths by (losses there
# are the same to four digits, in six tenths of the steps).
_EXACT, _ROUGH = (1e-6, 1e-9), (1e-4, 1e-6)
_FLAT = 1e-12  # of the largest variance: axes below have none, and weights there are 0


@dataclass(frozen=True, slots=True)
class Solution:
    """The optimum for one strength.

    Attributes:
        strength: λ
        weight, bias: of a head on the features as they came, float32 [C, d] and [C].
        objective: f there.
        loss: mean cross-entropy on the training rows, without the penalty.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    objective: float
    loss: float

    def divided_by(self, temperature: float) -> tuple[Tensor, Tensor]:
        """(weight, bias) of the head whose logits are divided by a temperature."""
        return self.weight / temperature, self.bias / temperature


class LogisticRegression:
    """The problem of some features; `solve` finds its optimum for one strength after the other."""

    def __init__(
        self, features: Tensor, targets: Tensor, classes: int, weights: Tensor | None = None
    ) -> None:
        """Find the features' principal axes.

        Args:
            features: float32 [n, d], wherever the solver shall run. Its memory is taken over and
                overwritten, so that it is needed only once; it may be that of a file.
            targets: class indices, int64 [n]; or shares of the classes (soft labels), float32 [n, C].
            classes: C
            weights: of the rows, float32 [n]; None: all 1.
        """
        self._targets, self._classes = targets, classes
        count, width = features.shape
        rows = torch.ones(count, device=features.device) if weights is None else weights
        self._weights = rows / rows.sum()
        self._centre = torch.zeros(width, dtype=torch.float64, device=features.device)
        for part in _parts(count):
            self._centre += self._weights[part].double() @ features[part].double()
        moment = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        for part in _parts(count):
            centred = features[part] - self._centre.float()
            moment += (centred.T @ (centred * self._weights[part][:, None])).double()
        scale = (moment.diagonal() + self._centre**2).sqrt()
        self._scale = torch.where(scale > 0, scale, 1)  # a channel that is always 0 stays 0
        variances, axes = torch.linalg.eigh(moment / self._scale / self._scale[:, None])
        kept = variances > _FLAT * variances[-1].clamp(min=1e-30)
        self._variances, self._axes = variances[kept], axes[:, kept]
        projection = (self._axes / self._scale[:, None]).float()  # [d, k]
        self._inputs = features[:, : len(self._variances)]
        for part in _parts(count):
            self._inputs[part] = (features[part] - self._centre.float()) @ projection
        self._found: dict[float, Tensor] = {}

    def solve(self, strength: float, *, exact: bool = True) -> Solution:
        """The optimum for one strength; the search begins at the next stronger one that is known.

        Args:
            strength: λ; from strong to weak is quickest.
            exact: else only as near to it as strengths need to be compared.
        """
        stronger = [known for known in self._found if known >= strength]
        if stronger:
            start = self._found[min(stronger)]
        else:
            size = len(self._variances) + 1, self._classes
            start = torch.zeros(size, dtype=torch.float64, device=self._inputs.device)
        theta, objective, loss = self._search(strength, start, _EXACT if exact else _ROUGH)
        self._found[strength] = theta
        weight = (self._axes @ theta[:-1] / self._scale[:, None]).T
        bias = theta[-1] - weight @ self._centre
        return Solution(strength, weight.float(), bias.float(), objective, loss)

    def _search(
        self, strength: float, start: Tensor, tolerances: tuple[float, float]
    ) -> tuple[Tensor, float, float]:
        """Theta [k + 1, C] (the last row is the bias), f and the cross-entropy there."""
        certainty = self._curvature(start)
        curvature = torch.cat([self._variances * certainty + strength, certainty[None]])
        steps = curvature.clamp(min=1e-12).rsqrt()[:, None]
        scaled = (start / steps).requires_grad_()
        solver = torch.optim.LBFGS(
            [scaled],
            max_iter=_STEPS,
            history_size=_MEMORY,
            tolerance_grad=tolerances[0],
            tolerance_change=tolerances[1],
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            theta = scaled.detach() * steps
            loss, gradient = self._gradient(theta)
            gradient[:-1] += strength * theta[:-1]
            scaled.grad = gradient * steps
            return loss + strength / 2 * theta[:-1].square().sum()

        solver.step(closure)
        theta = scaled.detach() * steps
        loss = float(self._loss(theta))
        return theta, loss + strength / 2 * float(theta[:-1].square().sum()), loss

    def _curvature(self, theta: Tensor) -> Tensor:
        """The cross-entropy's mean curvature by a logit, p (1 - p)."""
        total = theta.new_zeros(())
        for part, log in self._logs(theta):
            answers = log.exp()
            means = (answers * (1 - answers)).mean(dim=1)
            total += (self._weights[part] * means).sum(dtype=torch.float64)
        return total

    def _loss(self, theta: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return sum(
            (self._share_of_loss(part, log) for part, log in self._logs(theta)),
            theta.new_zeros(()),
        )

    def _gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy, and its gradient by theta."""
        loss, gradient = theta.new_zeros(()), torch.zeros_like(theta)
        for part, log in self._logs(theta):
            loss += self._share_of_loss(part, log)
            residual = self._residual(part, log)
            gradient[:-1] += self._inputs[part].T @ residual
            gradient[-1] += residual.sum(dim=0, dtype=torch.float64)
        return loss, gradient

    def _logs(self, theta: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Log-probabilities, float32 [b, C], of some rows after the others."""
        weight, bias = theta[:-1].float(), theta[-1].float()
        rows = min(_ROWS, max(1, _LOGITS // self._classes))
        for part in _parts(len(self._inputs), rows):
            yield part, torch.log_softmax(torch.addmm(bias, self._inputs[part], weight), dim=1)

    def _share_of_loss(self, part: slice, log: Tensor) -> Tensor:
        """What some rows add to the cross-entropy."""
        targets = self._targets[part]
        if targets.dim() == 2:
            own = (targets * log).sum(dim=1)
        else:
            own = log.gather(1, targets[:, None])[:, 0]
        return -(self._weights[part] * own).sum(dtype=torch.float64)

    def _residual(self, part: slice, log: Tensor) -> Tensor:
        """The gradient by some rows' logits, float32 [b, C]; in the memory of `log`."""
        rows, targets = self._weights[part][:, None], self._targets[part]
        answers = log.exp_().mul_(rows)
        if targets.dim() == 2:
            return answers.mul_(targets.sum(dim=1, keepdim=True)).sub_(rows * targets)
        return answers.scatter_add_(1, targets[:, None], -rows)


def _parts(count: int, rows: int = _ROWS) -> Iterator[slice]:
    for begin in range(0, count, rows):
        yield slice(begin, begin + rows)
