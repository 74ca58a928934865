"""Token merging against its equations, written out token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support.merged_by_hand import merged_by_hand  # noqa: E402
from vptkit.tune.backbone.token_merging import (  # noqa: E402
    match_tokens,
    mean_by_size,
    merge_rows,
)


def _drawn(tokens: int, *, batch: int = 3) -> tuple[Any, Any, Any]:
    g = torch.Generator().manual_seed(tokens)
    keys = torch.randn(batch, 2, tokens, 4, generator=g, dtype=torch.float64)
    z = torch.randn(batch, tokens, 5, generator=g, dtype=torch.float64)
    return keys, z, torch.randint(1, 5, (batch, tokens), generator=g).double()


@pytest.mark.parametrize("protected", [0, 1, 2, 5])
@pytest.mark.parametrize("tokens", [9, 16, 17])
@pytest.mark.parametrize("r", [0, 1, 2, 4])
def test_as_the_equations_say(tokens: int, protected: int, r: int) -> None:
    keys, z, size = _drawn(tokens)
    r = min(r, (tokens - protected) // 2)
    rows, sizes = merge_rows(z, size, match_tokens(keys, protected, r))
    assert rows.shape == (3, tokens - r, 5)
    for i in range(3):
        wanted, weight = merged_by_hand(
            keys[i].numpy(), z[i].numpy(), size[i].numpy(), protected, r
        )
        np.testing.assert_allclose(rows[i].numpy(), wanted, rtol=1e-12)
        np.testing.assert_array_equal(sizes[i].numpy(), weight)


def test_equal_tokens_merge_from_the_front_into_the_front() -> None:
    keys = torch.ones(1, 2, 11, 4)
    found = match_tokens(keys, 1, 3)
    assert found.merged.tolist() == [[2, 4, 6]]
    assert found.kept.tolist() == [[0, 8, 10, 1, 3, 5, 7, 9]]
    assert found.into.tolist() == [[3, 3, 3]]  # all into position 1, which is now 3


def test_most_equal_tokens_are_merged_and_nothing_is_lost() -> None:
    keys, z, size = _drawn(12)
    keys[:, :, 6] = 3 * keys[:, :, 9]  # the same direction: cosine 1
    matching = match_tokens(keys, 1, 1)
    assert matching.merged.tolist() == [[6]] * 3
    rows, sizes = merge_rows(z, size, matching)
    torch.testing.assert_close(sizes.sum(1), size.sum(1))
    torch.testing.assert_close(mean_by_size(rows, sizes), mean_by_size(z, size))
    assert not torch.allclose(rows.mean(1), z.mean(1))  # the unweighted mean is another


def test_gradients_pass_the_means_and_not_the_matching() -> None:
    keys, z, size = _drawn(10)
    keys.requires_grad_()
    z.requires_grad_()
    rows, sizes = merge_rows(z, size, match_tokens(keys, 1, 4))
    (rows * sizes[..., None]).sum().backward()
    assert keys.grad is None
    torch.testing.assert_close(z.grad, size[..., None].expand_as(z))


def test_half_precision_of_a_context_does_not_reach_the_matching() -> None:
    keys = torch.randn(2, 3, 33, 16, generator=torch.Generator().manual_seed(0))
    plain = match_tokens(keys, 1, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = match_tokens(keys, 1, 8)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))
