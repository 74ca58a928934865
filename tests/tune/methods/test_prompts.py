"""Learnable prompts: counts, initial values, what is frozen, what the adapter file gets."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.errors import VptkitError  # noqa: E402
from vptkit.tune.methods.prompts import PromptConfig, Prompts, needs_whitening  # noqa: E402

D = 768


def make(
    form: str, length: int, *, sites: int = 1, width: int = D, whitening=None, seed=0, **config
):
    return Prompts(
        PromptConfig(form=form, length=length, **config),
        width=width,
        patch=(16, 16),
        sites=sites,
        whitening=matrices(sites, width) if whitening is None else whitening,
        generator=torch.Generator().manual_seed(seed),
    )


def matrices(sites: int, width: int):
    """Something that stands for whitening matrices: distinct entries."""
    one = torch.arange(width * width, dtype=torch.float64).reshape(width, width)
    return [one + 0.5 * i for i in range(sites)]


def trainable(prompts) -> int:
    return sum(p.numel() for p in prompts.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("form", "length", "rank", "sites", "count"),
    [
        ("fwhiten", 100, 75, 1, 76_800),
        ("twhiten", 100, 75, 1, 666_624),
        ("bilinear", 100, 75, 1, 65_100),
        ("bilinear", 50, 50, 12, 183_600),
        ("free", 100, 75, 1, 76_800),
        ("free", 50, 50, 12, 460_800),
    ],
)
def test_trainable_counts_of_the_papers(form, length, rank, sites, count):
    prompts = make(form, length, rank=rank, sites=sites)
    assert trainable(prompts) == count
    assert all(p.shape == (length, D) for p in prompts())
    assert len(prompts()) == sites


def test_stored_factors_of_deep_bilinear():
    stored = make("bilinear", 50, rank=50, sites=12).tensors()
    assert sum(value.size for value in stored.values()) == 490_800


@pytest.mark.parametrize("last", [0, 1, 4, 6, 99])
def test_the_factor_is_learned_in_the_last_blocks_only(last):
    prompts = make("bilinear", 3, rank=2, sites=6, width=16, tune_b_last=last)
    learned = [b.requires_grad for b in prompts.b]
    assert learned == [i >= 6 - last for i in range(6)]
    assert all(a.requires_grad for a in prompts.a)


@pytest.mark.parametrize(
    ("form", "frozen"), [("fwhiten", [0, 1, 2, 3, 4]), ("twhiten", []), ("bilinear", [0])]
)
def test_what_is_frozen_gets_no_gradient(form, frozen):
    prompts = make(form, 3, rank=2, sites=5, width=16)
    sum(p.square().sum() for p in prompts()).backward()
    assert [i for i, b in enumerate(prompts.b) if b.grad is None] == frozen
    assert all(a.grad is not None and a.grad.abs().max() > 0 for a in prompts.a)


# ---- initial values -----------------------------------------------------------------------------


def test_free_prompts_start_uniform():
    bound = math.sqrt(6 / (3 * 16 * 16 + D))
    assert bound == pytest.approx(0.0625)
    values = torch.cat(make("free", 50, sites=2)()).flatten().detach()
    assert float(values.abs().max()) < bound
    assert float(values.abs().max()) > 0.999 * bound
    assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert abs(float(values.mean())) < 0.001


def test_bilinear_starts_normal_and_xavier():
    prompts = make("bilinear", 100, rank=75)
    a, b = prompts.a[0].detach(), prompts.b[0].detach()
    bound = math.sqrt(6 / (75 + D))
    assert bound == pytest.approx(0.0844, abs=1e-4)
    assert float(a.std()) == pytest.approx(0.02, rel=0.05)
    assert 0.999 * bound < float(b.abs().max()) < bound
    assert float(prompts()[0].detach().std()) == pytest.approx(0.008, abs=0.001)


@pytest.mark.parametrize("form", ["fwhiten", "twhiten"])
def test_whitened_prompts_start_normal_times_w(form):
    w = torch.randn(64, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    prompts = make(form, 200, width=64, whitening=[w])
    assert float(prompts.a[0].detach().std()) == pytest.approx(0.02, rel=0.05)
    wanted = prompts.a[0].double() @ w.T  # the order matters: W is not symmetric here
    torch.testing.assert_close(prompts()[0].double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_seed_decides():
    first, same, other = (make("bilinear", 4, sites=2, seed=s) for s in (1, 1, 2))
    for i in range(2):
        assert torch.equal(first()[i], same()[i])
        assert not torch.equal(first()[i], other()[i])
    assert not torch.equal(first()[0], first()[1])


def test_whitening_as_a_start_shares_its_columns():
    prompts = make("bilinear", 3, rank=7, sites=2, width=20, b_init="whiten")
    w0, w1 = matrices(2, 20)
    chosen = []
    for w, b in zip((w0, w1), prompts.b, strict=True):
        columns = [int((w[0] == value).nonzero()) for value in b[0].double()]
        assert torch.equal(b.double(), w[:, columns])
        chosen.append(columns)
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 7


def test_the_released_variant_draws_columns_for_each_row():
    prompts = make("bilinear", 3, rank=7, width=20, b_init="whiten", released=True)
    w = matrices(1, 20)[0]
    rows = []
    for r, row in enumerate(prompts.b[0].double()):
        columns = [int((w[r] == value).nonzero()) for value in row]
        assert len(set(columns)) == 7
        rows.append(tuple(columns))
    assert len(set(rows)) > 15


def test_who_needs_whitening():
    def needs(form: str, b_init: str = "random") -> bool:
        return needs_whitening(PromptConfig(form=form, length=1, b_init=b_init))

    assert needs("fwhiten")
    assert needs("twhiten")
    assert needs("bilinear", "whiten")
    assert not needs("bilinear")
    assert not needs("free", "whiten")


def test_a_rank_above_the_width_has_no_columns_to_take():
    with pytest.raises(VptkitError, match="rank 21 is more than the backbone's width 20"):
        make("bilinear", 3, rank=21, width=20, b_init="whiten")


# ---- forward and file ---------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 7, 50])
@pytest.mark.parametrize("form", ["free", "bilinear", "fwhiten", "twhiten"])
def test_the_file_holds_what_was_trained(form, length):
    generator = torch.Generator().manual_seed(3)
    whitening = [torch.randn(24, 24, generator=generator, dtype=torch.float64) for _ in range(3)]
    prompts = make(form, length, rank=4, sites=3, width=24, whitening=whitening)
    tensors = prompts.tensors()
    factors = {"prompt.0.a", "prompt.0.b"} if form == "bilinear" else {"prompt.0"}
    assert {name for name in tensors if name.startswith("prompt.0")} == factors
    assert {str(value.dtype) for value in tensors.values()} == {"float32"}
    for i, prompt in enumerate(prompts()):
        if form == "bilinear":
            stored = tensors[f"prompt.{i}.a"] @ tensors[f"prompt.{i}.b"].T
        else:
            stored = tensors[f"prompt.{i}"]
        np.testing.assert_allclose(stored, prompt.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_file_does_not_follow_later_training():
    prompts = make("free", 2, width=8)
    before = prompts.tensors()["prompt.0"].copy()
    stored = prompts.tensors()
    with torch.no_grad():
        prompts.a[0].add_(1.0)
    assert np.array_equal(stored["prompt.0"], before)


def test_dropout_while_training_only():
    prompts = make("free", 40, width=64, dropout=0.25)
    plain = prompts.a[0]
    prompts.eval()
    assert torch.equal(prompts()[0], plain)
    prompts.train()
    torch.manual_seed(0)
    dropped = prompts()[0]
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(0.25, abs=0.05)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
