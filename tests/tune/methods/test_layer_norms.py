"""Learnable LayerNorms: which, their gradients against the reference, shift and scaling."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.timms import (  # noqa: E402
    NO_VALUES,
    OLDER,
    REASON,
)
from vptkit.tune.backbone import prefix_forward  # noqa: E402
from vptkit.tune.backbone.reference import features  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.methods import layer_norms  # noqa: E402
from vptkit.tune.methods.layer_norms import LayerNorms, norm_names, scaled  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned, parameter_groups  # noqa: E402

TOLERANCE = 1e-12  # float64, of the largest gradient


def norms_of(model, pool: str = "token") -> LayerNorms:
    return LayerNorms(model, norm_names(spec_from_model(model), pool))


def move(norms: LayerNorms, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    norms.put([v + 0.1 * torch.randn(v.shape, generator=generator).to(v) for v in norms.learned()])


def pixels_of(model, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    size = model.patch_embed.img_size
    return torch.randn(2, 3, *size, generator=generator, dtype=torch.float64).to(dtype)


# ---- which --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "pool", "extra"),
    [
        ({}, "token", ["norm"]),
        ({"pre_norm": True}, "token", ["norm_pre", "norm"]),
        ({"global_pool": "avg", "fc_norm": True}, "avg", ["fc_norm"]),
        ({"final_norm": False}, "token", []),
        (
            {"qk_norm": True},
            "token",
            ["norm", *(f"blocks.{i}.attn.{x}_norm" for i in (0, 1) for x in "qk")],
        ),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else None,
)
def test_every_norm_is_tuned(make_vit, arguments, pool, extra):
    model = make_vit(**arguments)
    blocks = [f"blocks.{i}.norm{n}" for i in (0, 1) for n in (1, 2)]
    names = norm_names(spec_from_model(model), pool)
    expected = {f"{n}.{p}" for n in [*blocks, *extra] for p in ("weight", "bias")}
    assert set(names) == expected
    assert len(names) == len(expected)
    assert expected <= set(dict(model.named_parameters()))


@pytest.mark.skipif(OLDER, reason=REASON)  # it divides by the variance, and is refused
def test_an_rms_norm_has_no_bias(make_vit):
    model = make_vit(norm_layer="rmsnorm")
    norms = norms_of(model)
    assert set(norms.names) == {n for n, _ in model.named_parameters() if "norm" in n}
    assert all(name.endswith(".weight") for name in norms.names)
    move(norms)
    assert all(shift.beta is None and shift.gamma > 0 for shift in norms.shifts())


def test_the_norm_of_an_attention_pool_counts_only_if_it_is_used():
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_base_patch16_siglip_224", pretrained=False, **arguments)
    spec = spec_from_model(model)
    assert spec.pool == "map"
    both = {"attn_pool.norm.weight", "attn_pool.norm.bias"}
    assert set(norm_names(spec, "map")) - set(norm_names(spec, "avg")) == both


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("vit_base_patch16_224", 38_400), ("vit_base_patch16_clip_224", 39_936)],
)
def test_counts_of_the_paper(name, numbers):
    """25 norms of 2 x 768 numbers in a ViT-B; one more before block 0 in CLIP's."""
    with NO_VALUES:
        model = timm.create_model(name, pretrained=False, num_classes=0)
    names = norm_names(spec_from_model(model), "token")
    assert sum(model.get_parameter(name).numel() for name in names) == numbers
    assert len(names) == numbers // 768


@pytest.mark.parametrize(
    ("method", "prompts"), [("ln", 0), ("ln+vpt", 2 * 3 * 32), ("ln+bpt", 2 * 5 * (3 + 32))]
)
def test_what_a_method_learns(make_vit, make_config, method, prompts):
    model = make_vit()
    config = make_config(method=method)
    tuned = Tuned(model, spec_from_model(model), config, 3, None)
    norms = 5 * 2 * 32
    assert tuned.trainable() == (norms + prompts + 3 * 33, norms + prompts)
    for part, expected in (
        ("all", norms + prompts + 99),
        ("head", 99),
        ("body", norms + prompts),
        ("all", norms + prompts + 99),
    ):
        tuned.learn(part)
        groups = parameter_groups(tuned, config, part)
        held = [p for group in groups for p in group["params"]]
        assert sum(p.numel() for p in held) == expected
        assert {id(p) for p in held} == {id(p) for p in tuned.parameters() if p.requires_grad}
        assert tuned.trainable() == (norms + prompts + 99, norms + prompts)
        assert len({id(p) for p in held}) == len(held)


def test_norms_have_their_rate_and_no_decay(make_vit, make_config):
    """Decay would pull γ to 0, not to the backbone's value."""
    model = make_vit()
    config = make_config(method="ln+bpt", wd=0.5, wd_head=0.7, lr=0.1, lr_ln=0.2, lr_head=0.3)
    tuned = Tuned(model, spec_from_model(model), config, 3, None)
    rates = {
        id(p): (group["lr"], group["base_lr"], group["weight_decay"])
        for group in parameter_groups(tuned, config)
        for p in group["params"]
    }
    assert {rates[id(p)] for p in tuned.layer_norms.parameters()} == {(0.2, 0.2, 0.0)}
    assert {rates[id(p)] for p in tuned.prompts.a} == {(0.1, 0.1, 0.5)}
    assert rates[id(tuned.head.weight)] == (0.3, 0.3, 0.7)


# ---- the copy -----------------------------------------------------------------------------------


def test_all_but_the_norms_is_shared(make_vit):
    model = make_vit(pre_norm=True, init_values=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    norms = norms_of(model)
    copied = norms.backbone.state_dict()
    for name, value in model.state_dict().items():
        shared = copied[name].data_ptr() == value.data_ptr()
        assert shared == (name not in norms.names), name
    assert {n for n, p in norms.backbone.named_parameters() if p.requires_grad} == set(norms.names)
    move(norms)
    with torch.no_grad():
        pixels = pixels_of(model, torch.float32)
        assert not torch.allclose(norms.backbone(pixels), model(pixels))
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_parameters_are_what_the_copy_reads(make_vit):
    norms = norms_of(make_vit())
    for name, value in zip(norms.names, norms.values, strict=True):
        assert norms.backbone.get_parameter(name) is value
    state = {name: value + 1 for name, value in norms.state_dict().items()}
    norms.load_state_dict(state)  # as a resumed run does
    pairs = zip(norms.names, norms.start, strict=True)
    assert all(torch.equal(norms.backbone.get_parameter(n), start + 1) for n, start in pairs)
    norms.double()  # as .to(device) does
    for name, value in zip(norms.names, norms.values, strict=True):
        assert norms.backbone.get_parameter(name) is value


# ---- gradients ----------------------------------------------------------------------------------

CASES = [
    ({}, "deep", "token", "before_pool"),
    ({"pre_norm": True, "init_values": 0.3, "reg_tokens": 2}, "deep", "token", "before_pool"),
    ({}, "deep", "avg_prompts", "after_pool"),
    ({"global_pool": "avg", "fc_norm": True}, "deep", "avg", "after_pool"),
    ({}, "shallow", "token", "before_pool"),
    ({"pre_norm": True}, "none", "token", "before_pool"),
    ({"qk_norm": True}, "deep", "token", "before_pool"),
]


def gradients(forward, model, insert, pool, norm):
    """Of a loss by every norm parameter and prompt, by name."""
    copied = copy.deepcopy(model)
    norms = norms_of(copied, pool)
    move(norms)
    generator = torch.Generator().manual_seed(2)
    sites = {"deep": len(model.blocks), "shallow": 1, "none": 0}[insert]
    prompts = [
        torch.randn(3, 32, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(sites)
    ]
    f = forward(norms.backbone, pixels_of(model), prompts, insert, pool, norm)
    (f * torch.linspace(-1, 2, f.numel(), dtype=f.dtype).view_as(f)).sum().backward()
    named = dict(zip(norms.names, norms.values, strict=True))
    named |= {f"prompt.{i}": prompt for i, prompt in enumerate(prompts)}
    return {name: value.grad for name, value in named.items()}


def worst(found, wanted) -> float:
    assert set(found) == set(wanted)
    assert not any(gradient is None for gradient in wanted.values())
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted) / largest


@pytest.mark.parametrize(("arguments", "insert", "pool", "norm"), CASES)
def test_gradients_are_the_references(make_vit, arguments, insert, pool, norm):
    model = make_vit(**arguments).double()
    wanted = gradients(features, model, insert, pool, norm)
    assert all(float(gradient.abs().max()) > 0 for gradient in wanted.values())
    found = gradients(prefix_forward.fast_features, model, insert, pool, norm)
    assert worst(found, wanted) < TOLERANCE


def test_prompts_that_bypass_the_tuned_norm_are_seen(make_vit, monkeypatch):
    """The broken twin: prefix keys and values from the backbone's own LN1."""
    model = make_vit().double()
    real = prefix_forward.prefix_attention

    def broken(block, z, prompt=None, queries=None, bias=None):
        if prompt is None:
            return real(block, z, prompt, queries, bias)
        twin = copy.deepcopy(block).requires_grad_(requires_grad=False)
        twin.norm1 = Frozen(block.norm1, prompt)
        return real(twin, z, prompt, queries, bias)

    class Frozen(torch.nn.Module):
        def __init__(self, norm, prompt):
            super().__init__()
            self.norm, self.prompt = norm, prompt

        def forward(self, x):
            if x is self.prompt:
                detached = copy.deepcopy(self.norm).requires_grad_(requires_grad=False)
                return detached(x)
            return self.norm(x)

    wanted = gradients(features, model, "deep", "token", "before_pool")
    monkeypatch.setattr(prefix_forward, "prefix_attention", broken)
    found = gradients(prefix_forward.fast_features, model, "deep", "token", "before_pool")
    found = {n: torch.zeros_like(wanted[n]) if g is None else g for n, g in found.items()}
    assert worst(found, wanted) > 1e-3


def test_the_logits_of_a_model_are_those_of_its_adapter(make_vit, make_config):
    """`ln.{timm name}` in the file is what training computed with."""
    from vptkit.formats.adapter import Adapter, BackboneRef
    from vptkit.images.preprocess import Preprocess
    from vptkit.tune.backbone.reference import adapter_logits

    model = make_vit(pre_norm=True)
    tuned = Tuned(model, spec_from_model(model), make_config(method="ln+vpt"), 3, None).eval()
    move(tuned.layer_norms)
    adapter = Adapter(
        name="a",
        backbone=BackboneRef(name="x"),
        method="ln+vpt",
        insert="deep",
        prompt_length=3,
        pool="token",
        norm="before_pool",
        labels=("a", "b", "c"),
        preprocess=Preprocess(input_size=(3, 32, 32), mean=(0, 0, 0), std=(1, 1, 1)),
        tensors={
            **tuned.prompts.tensors(),
            **tuned.layer_norms.tensors(),
            "head.weight": tuned.head.weight.detach().numpy(),
            "head.bias": tuned.head.bias.detach().numpy(),
        },
    )
    pixels = pixels_of(model, torch.float32)
    with torch.no_grad():
        wanted = adapter_logits(copy.deepcopy(model), adapter, pixels)
        torch.testing.assert_close(tuned(pixels), wanted, rtol=1e-4, atol=1e-4)
        bare = {n: v for n, v in adapter.tensors.items() if not n.startswith("ln.")}
        adapter.tensors.clear()
        adapter.tensors.update(bare)
        without = adapter_logits(copy.deepcopy(model), adapter, pixels)
    assert not torch.allclose(without, wanted, atol=1e-2)


# ---- shift and scaling --------------------------------------------------------------------------


def test_shift_is_gamma_and_beta_apart(make_vit):
    norms = norms_of(make_vit(pre_norm=True))
    assert all((s.gamma, s.beta) == (0.0, 0.0) for s in norms.shifts())
    values = norms.learned()
    values[norms.names.index("blocks.1.norm2.weight")][:4] += 3.0
    values[norms.names.index("norm.bias")][0] -= 0.5
    norms.put(values)
    found = {s.name: (s.gamma, s.beta) for s in norms.shifts()}
    assert list(found) == [
        "norm_pre",
        *(f"blocks.{i}.norm{n}" for i in (0, 1) for n in (1, 2)),
        "norm",
    ]
    assert found["blocks.1.norm2"] == (pytest.approx(6.0), 0.0)
    assert found["norm"] == (0.0, pytest.approx(0.5))
    assert math.fsum(a + b for a, b in found.values()) == pytest.approx(6.5)


@pytest.mark.parametrize("what", ["none", "gamma", "beta", "both"])
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7])
def test_scaling(make_vit, what, factor):
    """start + λ (learned − start); exact at 0 and 1; the shift grows by λ."""
    norms = norms_of(make_vit())
    move(norms)
    learned, before = norms.learned(), norms.shifts()
    scaled(norms, learned, factor, what)
    for name, value, start, end in zip(
        norms.names, norms.learned(), norms.start, learned, strict=True
    ):
        kind = "gamma" if name.endswith("weight") else "beta"
        if what not in (kind, "both") or factor == 1.0:
            assert torch.equal(value, end)
        elif factor == 0.0:
            assert torch.equal(value, start)
        else:
            expected = start.numpy() + factor * (end.numpy() - start.numpy())
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-5, atol=1e-6)
    for old, new in zip(before, norms.shifts(), strict=True):
        grown = [factor if what in (kind, "both") else 1.0 for kind in ("gamma", "beta")]
        assert new.gamma == pytest.approx(grown[0] * old.gamma, rel=1e-5, abs=1e-9)
        assert new.beta == pytest.approx(grown[1] * old.beta, rel=1e-5, abs=1e-9)


def test_scaling_keeps_the_sign_of_a_zero(make_vit):
    """Plain tuning comes back bit by bit, not only equal."""
    norms = norms_of(make_vit())
    learned = [torch.full_like(value, -0.0) for value in norms.learned()]
    scaled(norms, learned, 1.0, "both")
    assert all(torch.signbit(value).all() for value in norms.learned())


def test_all():
    assert all(hasattr(layer_norms, name) for name in layer_norms.__all__)
