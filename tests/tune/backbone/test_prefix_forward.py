"""The training forward equals the reference, in its values and in all its gradients."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.backbones.merge_schedule import TokenMerging  # noqa: E402
from vptkit.formats.pooling import head_inputs, reads_class_token  # noqa: E402
from vptkit.tune.backbone import prefix_forward  # noqa: E402
from vptkit.tune.backbone.prefix_forward import fast_features, mlp_added, prefix_attention  # noqa: E402
from vptkit.tune.backbone.reference import features  # noqa: E402

TOLERANCE = 1e-10
BACKBONES: dict[str, dict[str, Any]] = {
    "plain": {"depth": 3},
    "registers": {
        "reg_tokens": 2,
        "no_embed_class": True,
        "init_values": 0.4,
        "act_layer": "quick_gelu",
    },
    "no class": {"class_token": False, "global_pool": "avg", "qkv_bias": False},
    "clip": {"pre_norm": True, "proj_bias": False, "depth": 1},
    "distilled": {"name": "deit_tiny_distilled_patch16_224"},
}
CASES = [
    (backbone, insert, pool, norm)
    for backbone, insert, pool, norm in itertools.product(
        BACKBONES,
        ("deep", "shallow", "none"),
        ("token", "avg", "token+avg", "avg_prompts"),
        ("before_pool", "after_pool"),
    )
    if not (backbone == "no class" and reads_class_token(pool))
]


def differences(
    fast, model, insert: str, pool: str, norm: str, m: int = 3, merging: TokenMerging | None = None
) -> tuple[float, float]:
    """Largest relative difference between `fast` and the reference: (values, gradients)."""
    generator = torch.Generator().manual_seed(7)
    sites = {"deep": len(model.blocks), "shallow": 1, "none": 0}[insert]
    pixels = torch.randn(2, 3, 32, 32, generator=generator, dtype=torch.float64)
    prompts = [torch.randn(m, 32, generator=generator, dtype=torch.float64) for _ in range(sites)]
    ahead = torch.randn(2, head_inputs(pool, 32), generator=generator, dtype=torch.float64)
    inputs = [pixels, *prompts, *model.parameters()]
    results = []
    for function in (features, fast):
        leaves = [value.detach().requires_grad_(True) for value in inputs[: 1 + sites]]
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        more = {} if merging is None else {"merging": merging}
        f = function(model, leaves[0], leaves[1:], insert, pool, norm, **more)
        gradients = torch.autograd.grad(
            (f * ahead).sum(), [*leaves, *model.parameters()], allow_unused=True
        )
        zeros = [
            torch.zeros_like(v) if g is None else g
            for g, v in zip(gradients, [*leaves, *model.parameters()], strict=True)
        ]
        results.append((f.detach(), zeros))
        model.requires_grad_(False)
    (f0, g0), (f1, g1) = results
    value = float((f1 - f0).abs().max() / f0.abs().max())
    largest = max(float(g.abs().max()) for g in g0)
    gradient = max(float((b - a).abs().max()) for a, b in zip(g0, g1, strict=True)) / largest
    return value, gradient


@pytest.mark.parametrize(("backbone", "insert", "pool", "norm"), CASES)
def test_values_and_all_gradients(make_vit, backbone, insert, pool, norm):
    model = make_vit(**BACKBONES[backbone]).double()
    value, gradient = differences(fast_features, model, insert, pool, norm)
    assert value < TOLERANCE
    assert gradient < TOLERANCE


@pytest.mark.parametrize("attention", ["proportional", "plain"])
@pytest.mark.parametrize(
    ("backbone", "insert", "pool"),
    [
        ("plain", "deep", "token"),
        ("plain", "deep", "avg_prompts"),
        ("plain", "shallow", "avg"),
        ("registers", "none", "token+avg"),
        ("no class", "deep", "avg"),
        ("distilled", "none", "token"),
    ],
)
def test_merging_in_values_and_all_gradients(make_vit, backbone, insert, pool, attention):
    model = make_vit(**{"depth": 4, **BACKBONES[backbone]}).double()
    schedule = (3, 0, 2, 0)[-len(model.blocks) :]
    merging = TokenMerging(schedule=schedule, attention=attention)
    found = differences(fast_features, model, insert, pool, "before_pool", merging=merging)
    assert max(found) < TOLERANCE


def not_merging(model, pixels, prompts, insert, pool, norm, merging):
    return fast_features(model, pixels, prompts, insert, pool, norm)


def merging_plainly(model, pixels, prompts, insert, pool, norm, merging):
    plain = TokenMerging(schedule=merging.schedule, attention="plain")
    return fast_features(model, pixels, prompts, insert, pool, norm, plain)


def merging_more(model, pixels, prompts, insert, pool, norm, merging):
    more = TokenMerging(schedule=(merging.schedule[0] + 1, *merging.schedule[1:]))
    return fast_features(model, pixels, prompts, insert, pool, norm, more)


@pytest.mark.parametrize("pool", ["token", "avg", "avg_prompts"])
@pytest.mark.parametrize("twin", [not_merging, merging_plainly, merging_more])
def test_twins_that_merge_otherwise_fail(make_vit, twin, pool):
    model, merging = make_vit(depth=4).double(), TokenMerging(schedule=(3, 0, 2, 0))
    found = differences(twin, model, "deep", pool, "before_pool", merging=merging)
    assert min(found) > 1e-6


@pytest.mark.parametrize("m", [1, 7])
def test_any_number_of_prompts(make_vit, m):
    model = make_vit().double()
    assert max(differences(fast_features, model, "deep", "token", "before_pool", m)) < TOLERANCE


def test_a_block_is_timms_block(make_vit):
    block = make_vit(init_values=0.3).double().blocks[1]
    z = torch.randn(2, 17, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for queries in (None, 4):
        own, keys = prefix_attention(block, z, queries=queries)
        torch.testing.assert_close(mlp_added(block, own), block(z)[:, :queries], rtol=0, atol=1e-12)
        assert keys.shape == (2, 2, 17, 16)


class WithoutNorm:
    """A block that lets prompts [m, d] pass its first norm untouched."""

    def __init__(self, block: Any) -> None:
        self._block = block

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)

    def norm1(self, rows: Any) -> Any:
        return rows if rows.dim() == 2 else self._block.norm1(rows)


def rotated(model, pixels, prompts, insert, pool, norm):
    return fast_features(model, pixels, prompts[1:] + prompts[:1], insert, pool, norm)


def without_prompts(model, pixels, prompts, insert, pool, norm):
    return fast_features(model, pixels, [], insert, pool, norm)


def nudged(model, pixels, prompts, insert, pool, norm):
    moved = [p + 1e-5 * p.flip(1) for p in prompts]  # a plain shift would fall to the LayerNorm
    return fast_features(model, pixels, moved, insert, pool, norm)


def detached(model, pixels, prompts, insert, pool, norm):
    return fast_features(model, pixels, [p.detach() for p in prompts], insert, pool, norm)


@pytest.mark.parametrize("pool", ["token", "avg", "token+avg", "avg_prompts"])
@pytest.mark.parametrize("twin", [rotated, without_prompts, nudged])
def test_broken_twins_fail_in_value_and_gradient(make_vit, twin, pool):
    model = make_vit(depth=3).double()
    value, gradient = differences(twin, model, "deep", pool, "before_pool")
    assert value > 10 * TOLERANCE
    assert gradient > 10 * TOLERANCE


def test_a_twin_without_gradient_fails(make_vit):
    value, gradient = differences(detached, make_vit().double(), "deep", "token", "before_pool")
    assert value < TOLERANCE
    assert gradient > 1e-3


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_twin_that_skips_the_norm_of_prompts_fails(make_vit, monkeypatch, pool):
    def twin(block, *rest, **named):
        return prefix_attention(WithoutNorm(block), *rest, **named)

    monkeypatch.setattr(prefix_forward, "prefix_attention", twin)
    model = make_vit().double()
    value, gradient = differences(fast_features, model, "deep", pool, "before_pool")
    assert min(value, gradient) > 1e-3


def test_a_twin_that_reads_another_row_fails(make_vit, monkeypatch):
    def twin(block, z, prompt=None, queries=None, bias=None):
        return prefix_attention(block, z.flip(1) if queries else z, prompt, queries, bias)

    monkeypatch.setattr(prefix_forward, "prefix_attention", twin)
    model = make_vit().double()
    assert min(differences(fast_features, model, "deep", "token", "before_pool")) > 1e-3
