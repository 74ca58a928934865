"""Whitening matrices: the equations of the paper, and the released code's as a literal copy."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.tune.methods.whitening import Moments, token_moments, whitening  # noqa: E402

D = 32


def draw(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(x) -> Moments:
    """Of tokens [images, T, d], in one go."""
    rows = x.reshape(-1, x.shape[-1])
    return Moments(rows.T @ rows / len(rows), x.mean(dim=0), len(rows))


@pytest.fixture
def attention(make_vit):
    return make_vit().double().blocks[0].attn


def parts_of(attention):
    weight = attention.qkv.weight
    return weight[:D], weight[D : 2 * D]


def test_the_matrix_is_that_of_the_true_logit(attention):
    """Attention compares x with x' by (x Wqᵀ)(x' Wkᵀ)ᵀ, heads together, biases left out."""
    w_q, w_k = parts_of(attention)
    x, other = draw(5, D), draw(7, D, seed=1)
    g = w_q.T @ w_k
    torch.testing.assert_close((x @ w_q.T) @ (other @ w_k.T).T, x @ g @ other.T)
    tokens = draw(4, 50, D, seed=2)
    transformed = tokens.reshape(-1, D) @ g.T  # X~ᵀ: one row a token
    sigma = transformed.T @ transformed / len(transformed)
    w = whitening(attention, moments_of(tokens), floor=1e-15).matrix
    torch.testing.assert_close(w @ sigma @ w, torch.eye(D).double(), rtol=0, atol=1e-5)
    wrong = (w_q @ w_k.T) @ tokens.reshape(-1, D).T  # the twin with the released orientation
    sigma = wrong @ wrong.T / wrong.shape[1]
    assert (w @ sigma @ w - torch.eye(D)).abs().max() > 0.1


def test_whitened_data_is_white(attention):
    w_q, w_k = parts_of(attention)
    tokens = draw(6, 40, D, seed=3) * torch.linspace(0.1, 5, D).double()
    w = whitening(attention, moments_of(tokens), floor=1e-15).matrix
    white = tokens.reshape(-1, D) @ (w_q.T @ w_k).T @ w
    covariance = white.T @ white / len(white)
    torch.testing.assert_close(covariance, torch.eye(D).double(), rtol=0, atol=1e-5)


def test_the_matrix_is_symmetric_and_positive(attention):
    result = whitening(attention, moments_of(draw(3, 40, D)))
    torch.testing.assert_close(result.matrix, result.matrix.T, rtol=1e-9, atol=1e-9)
    assert float(torch.linalg.eigvalsh(result.matrix)[0]) > 0
    assert result.matrix.dtype == torch.float64
    assert result.row_norm == pytest.approx(float(result.matrix.norm(dim=1).mean()))


def test_the_floor_holds_where_the_rank_is_short(attention):
    w_q, w_k = parts_of(attention)
    tokens = draw(1, 10, D)  # ten tokens span ten of 32 directions
    result = whitening(attention, moments_of(tokens), floor=1e-6)
    g = w_q.T @ w_k
    rows = tokens[0] @ g.T
    sigma = rows.T @ rows / 10
    values, vectors = torch.linalg.eigh(sigma)
    assert result.rank == int((values > 1e-6 * values[-1]).sum())
    assert result.rank <= 10
    kept = vectors[:, values > 1e-6 * values[-1]]
    identity = torch.eye(result.rank).double()
    white = kept.T @ (result.matrix @ sigma @ result.matrix) @ kept
    torch.testing.assert_close(white, identity, rtol=0, atol=1e-5)
    largest = float(torch.linalg.eigvalsh(result.matrix)[-1])
    assert largest == pytest.approx((1e-6 * float(values[-1])) ** -0.5, rel=1e-6)
    assert torch.isfinite(result.matrix).all()


def test_diagnostics_stay_finite_where_the_rank_is_short(attention):
    """They travel in JSON, which knows no infinity."""
    for form in ("attention", "released"):
        for seed in range(5):
            result = whitening(attention, moments_of(draw(1, 10, D, seed=seed) * 1e3), form=form)
            assert 1e9 < result.condition < float("inf")
            assert result.condition <= 1.001 / (D * 2.0**-52)  # what float64 can tell
    enough = whitening(attention, moments_of(draw(1, 500, D)))
    assert not enough.condition_is_bound
    short = whitening(attention, moments_of(draw(1, 3, D)))
    assert short.condition_is_bound
    assert short.condition == pytest.approx(1 / (D * 2.0**-52))


def test_a_higher_floor_gives_smaller_rows(attention):
    moments = moments_of(draw(1, 20, D))
    norms = [whitening(attention, moments, floor=floor).row_norm for floor in (1e-8, 1e-4, 1e-1)]
    assert norms[0] > 3 * norms[1] > 9 * norms[2]


# ---- the released code's variant ----------------------------------------------------------------


def released_literally(weight, x, *, load_q_twice: bool):
    """`methods` 1.8 items 1, 2 and 4 as the authors' script does it, but for the floor.

    weight: torch's qkv, rows out; x: [100, T, d].
    """
    wq = weight[0:D]
    wk = weight[0:D] if load_q_twice else weight[D : 2 * D]
    wqk = wq @ wk.T  # item 1
    averaged = torch.stack([wqk @ image.T for image in x]).mean(dim=0)  # item 2: [d, T]
    sigma = averaged @ averaged.T / D
    u, s, _ = torch.linalg.svd(sigma)
    return sigma, u @ torch.diag(s.clamp_min(1e-6 * s[0]) ** -0.5) @ u.T


@pytest.mark.parametrize("twice", [False, True])
def test_the_released_variant(attention, twice):
    x = draw(9, 40, D, seed=4)
    sigma, wanted = released_literally(attention.qkv.weight, x, load_q_twice=twice)
    got = whitening(attention, moments_of(x), form="released", same_query_key=twice)
    torch.testing.assert_close(got.matrix, wanted, rtol=1e-6, atol=1e-6)
    other = whitening(attention, moments_of(x), form="released", same_query_key=not twice)
    assert (other.matrix - wanted).abs().max() > 0.1
    paper = whitening(attention, moments_of(x))
    assert (paper.matrix - wanted).abs().max() > 0.1
    assert sigma.shape == (D, D)


def test_the_released_variant_is_short_of_rank(attention):
    x = draw(9, 20, D)  # twenty positions, whatever the number of images
    assert whitening(attention, moments_of(x), form="released").rank <= 20
    assert whitening(attention, moments_of(x), floor=1e-12).rank == D


# ---- moments, streamed --------------------------------------------------------------------------


def entering(model, pixels, tap):
    """Tokens that enter each block, by hooks on timm's own forward."""
    seen = []
    hooks = [
        (block.norm1 if tap == "post_ln1" else block).register_forward_hook(
            lambda _, inputs, output: seen.append(output if tap == "post_ln1" else inputs[0])
        )
        for block in model.blocks
    ]
    model(pixels)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("tap", ["pre_ln1", "post_ln1"])
@pytest.mark.parametrize("sizes", [[10], [1] * 10, [3, 3, 4], [9, 1]])
def test_streamed_moments_are_those_of_one_go(make_vit, tap, sizes):
    model = make_vit(depth=3, reg_tokens=1, pre_norm=True).double()
    pixels = draw(10, 3, 32, 32)
    streamed = token_moments(model, torch.split(pixels, sizes), tap)
    assert len(streamed) == 3
    for found, x in zip(streamed, entering(model, pixels, tap), strict=True):
        wanted = moments_of(x)
        torch.testing.assert_close(found.second, wanted.second, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.mean_tokens, wanted.mean_tokens, rtol=1e-10, atol=1e-12)
        assert found.count == 10 * 18
        assert found.second.dtype == torch.float64


def test_the_taps_differ(make_vit):
    model = make_vit().double()
    pixels = [draw(3, 3, 32, 32)]
    before, after = (token_moments(model, pixels, tap)[0].second for tap in ("pre_ln1", "post_ln1"))
    assert (before - after).abs().max() > 0.1
