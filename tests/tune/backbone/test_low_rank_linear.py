"""A linear with a low-rank product beside it is the linear of the summed weight."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from vptkit.tune.backbone import low_rank_linear  # noqa: E402
from vptkit.tune.backbone.low_rank_linear import (  # noqa: E402
    Factors,
    LowRankLinear,
    linear_rows,
)

OUT, IN, RANK, SCALE = 12, 7, 3, 0.5


@pytest.fixture
def made():
    """A function: (frozen linear, it with factors of rows 0 to 4 and 8 to 12, the summed weight)."""

    def make(*, bias: bool = True):
        torch.manual_seed(0)
        base = nn.Linear(IN, OUT, bias=bias).double().requires_grad_(False)
        pairs = [
            Factors(
                start,
                stop,
                nn.Parameter(torch.randn(RANK, IN, dtype=torch.float64)),
                nn.Parameter(torch.randn(stop - start, RANK, dtype=torch.float64)),
            )
            for start, stop in ((0, 4), (8, 12))
        ]
        weight = base.weight.clone()
        for start, stop, a, b in pairs:
            weight[start:stop] += SCALE * (b @ a).detach()
        return base, LowRankLinear(base, pairs, SCALE), weight

    return make


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_summed_weight(made, bias):
    base, linear, weight = made(bias=bias)
    x = torch.randn(2, 5, IN, dtype=torch.float64)
    wanted = nn.functional.linear(x, weight, base.bias)
    torch.testing.assert_close(linear(x), wanted)
    torch.testing.assert_close(linear.weight, weight)
    assert linear.bias is base.bias
    a, b = linear.product()
    assert (a.shape, b.shape) == ((2 * RANK, IN), (OUT, 2 * RANK))
    torch.testing.assert_close(base.weight + b @ a, weight)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [slice(4), slice(4, None), slice(3, 9)], ids=str)
def test_some_of_its_outputs(made, bias, rows):
    base, linear, weight = made(bias=bias)
    x = torch.randn(2, 5, IN, dtype=torch.float64)
    wanted = nn.functional.linear(x, weight, base.bias)[..., rows]
    torch.testing.assert_close(linear_rows(linear, x, rows), wanted)
    plain = nn.functional.linear(x, base.weight, base.bias)[..., rows]
    torch.testing.assert_close(linear_rows(base, x, rows), plain)


def test_with_b_at_zero_it_is_the_frozen_linear_bit_by_bit(made):
    base, linear, _ = made()
    x = torch.randn(4, IN, dtype=torch.float64)
    with torch.no_grad():
        for b in linear.b:
            b.zero_()
        assert torch.equal(linear(x), base(x))


def test_no_weight_is_copied_in_a_step(made):
    """What autograd keeps of a step has no tensor of the weight's size but the weight's own memory."""
    base, linear, _ = made()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear(torch.randn(4, IN, dtype=torch.float64)).sum().backward()
    assert kept
    own = base.weight.untyped_storage().data_ptr()
    large = [t for t in kept if t.numel() >= OUT * IN]
    assert all(t.untyped_storage().data_ptr() == own for t in large)


def test_all():
    assert all(hasattr(low_rank_linear, name) for name in low_rank_linear.__all__)
