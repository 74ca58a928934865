"""LoRA in training: which linears, its start, its gradients against the reference, what is stored."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.timms import create_model  # noqa: E402
from vptkit.errors import VptkitError  # noqa: E402
from vptkit.formats.adapter import Adapter, BackboneRef  # noqa: E402
from vptkit.formats.backbone_weights import tensor_shapes  # noqa: E402
from vptkit.images.preprocess import Preprocess  # noqa: E402
from vptkit.tune.backbone import prefix_forward  # noqa: E402
from vptkit.tune.backbone.reference import adapter_logits, features  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.lora_targets import TARGETS, targets_of  # noqa: E402
from vptkit.tune.methods import lora  # noqa: E402
from vptkit.tune.methods.lora import Lora, lora_sites  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned, parameter_groups  # noqa: E402
from vptkit.tune.run.write_run import _learned  # noqa: E402

RANK = 4


def lora_of(model, targets: str = "all", rank: int = RANK, alpha: float = 6.0) -> Lora:
    sites = lora_sites(spec_from_model(model), targets_of(targets))
    generator = torch.Generator().manual_seed(0)
    return Lora(model, sites, rank=rank, alpha=alpha, generator=generator)


@torch.no_grad()
def move(factors: Lora, size: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(3)
    for value in factors.b:
        value.add_(size * torch.randn(value.shape, generator=generator))


def merged(model, factors: Lora):
    """The backbone with its weights summed, from what would be stored."""
    copied = copy.deepcopy(model)
    tensors = factors.tensors()
    with torch.no_grad():
        for name in [name for name in tensors if name.endswith(".a")]:
            a, b = (torch.from_numpy(tensors[n]).double() for n in (name, name[:-1] + "b"))
            module = name.removeprefix("delta.").removesuffix(".a")
            copied.get_parameter(f"{module}.weight").add_(b @ a)
    return copied


def pixels_of(model, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    size = model.patch_embed.img_size
    return torch.randn(2, 3, *size, generator=generator, dtype=torch.float64).to(dtype)


# ---- which --------------------------------------------------------------------------------------

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
MODELS = {
    "vit": ("vit_tiny_patch16_224", {}),
    "swiglu": ("vit_giant_patch14_dinov2", {"init_values": 0.3}),
    "beit": ("beit_base_patch16_224", {}),
    "eva, fused": ("eva_giant_patch14_224", {}),
    "eva, separate": ("eva02_tiny_patch14_224", {}),
    "branches": ("vit_small_patch16_18x2_224", {}),
    "parallel": ("vit_tiny_patch16_224", {"block_fn": timm.models.vision_transformer.ParallelScalingBlock}),
    "post": ("vit_relpos_base_patch16_cls_224", {"block_fn": timm.models.vision_transformer_relpos.ResPostRelPosBlock}),
}  # fmt: skip


@pytest.fixture(params=list(MODELS))
def any_model(request):
    name, arguments = MODELS[request.param]
    model = create_model(name, num_classes=0, **SMALL, **arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model.eval().requires_grad_(requires_grad=False)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["q,v", "k", "proj", "fc1", "fc2", "all"])
def test_each_target_of_any_backbone_computes_as_the_summed_weights(any_model, targets):
    """In every kind of block; also where timm reads the weight itself instead of calling the linear."""
    factors = lora_of(any_model, targets)
    assert len(factors.a) >= 2 * len(targets_of(targets))
    spec, pixels = spec_from_model(any_model), pixels_of(any_model)

    def answer(model):
        with torch.no_grad():
            return prefix_forward.fast_features(model, pixels, [], "none", spec.pool, "before_pool")

    plain = answer(any_model)
    assert torch.equal(answer(factors.backbone), plain)
    move(factors)
    wanted = answer(merged(any_model, factors))
    assert float((wanted - plain).abs().max()) > 1e-3
    torch.testing.assert_close(answer(factors.backbone), wanted, rtol=1e-4, atol=1e-5)


def test_all_is_every_row_of_every_linear_of_the_blocks_once(any_model):
    spec = spec_from_model(any_model)
    rows = {
        name.removesuffix(".weight"): shape[0]
        for name, shape in tensor_shapes(spec).items()
        if name.startswith("blocks.") and len(shape) == 2 and ".rel_pos." not in name
        if name.endswith(".weight")
    }
    covered = {module: [0] * count for module, count in rows.items()}
    for site in lora_sites(spec, TARGETS):
        for row in range(site.start, site.stop):
            covered[site.module][row] += 1
    assert {module for module, counts in covered.items() if set(counts) != {1}} == set()


def test_queries_keys_and_values_have_factors_of_their_own(make_vit):
    """The rows of k stay what they are; one rank each for q and v."""
    factors = lora_of(make_vit(), "q,v")
    move(factors)
    tensors = factors.tensors()
    assert list(tensors) == [f"delta.blocks.{i}.attn.qkv.{f}" for i in (0, 1) for f in "ab"]
    a, b = (tensors[f"delta.blocks.1.attn.qkv.{f}"] for f in "ab")
    assert (a.shape, b.shape) == ((2 * RANK, 32), (96, 2 * RANK))
    rows = {"q": slice(32), "k": slice(32, 64), "v": slice(64, 96)}
    empty = {(n, j) for n, part in rows.items() for j in (0, 1) if not b[part, j * RANK : (j + 1) * RANK].any()}  # fmt: skip
    assert empty == {("q", 1), ("k", 0), ("k", 1), ("v", 0)}
    assert factors.a[2].shape == (RANK, 32)


def test_the_scale_is_in_b(make_vit):
    factors = lora_of(make_vit(), "proj", rank=4, alpha=6.0)
    move(factors)
    b = factors.tensors()["delta.blocks.0.attn.proj.b"]
    torch.testing.assert_close(torch.from_numpy(b), factors.b[0].detach() * 1.5)


def test_a_rank_that_no_linear_has_is_refused(make_vit):
    with pytest.raises(VptkitError, match=r"lora_rank is 33.*blocks\.0\.attn\.qkv has rank 32"):
        lora_of(make_vit(), "q", rank=33)
    lora_of(make_vit(), "q", rank=32)


# ---- the start ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "ln+lora", "lora+vpt", "ln+lora+vpt"])
def test_before_the_first_step_it_is_the_model_without_it(make_vit, make_config, method):
    """Bit by bit: prompts and head are drawn as without, and the products are zero."""
    model, pixels = make_vit(), pixels_of(make_vit())
    others = [part for part in method.split("+") if part != "lora"]
    without = make_config(method="+".join(others) or "linear")
    spec = spec_from_model(model)
    with torch.no_grad():
        plain = Tuned(model, spec, without, 3, None).eval()(pixels)
        tuned = Tuned(model, spec, make_config(method=method), 3, None).eval()
        assert torch.equal(tuned(pixels), plain)
        move(tuned.lora)
        assert not torch.allclose(tuned(pixels), plain, atol=1e-3)


@pytest.mark.slow
def test_a_step_moves_the_answers_as_far_at_any_rank(make_vit, make_config):
    """What alpha / r is for: a rate that holds for one rank holds for others."""
    model, targets = make_vit(), torch.tensor([0, 1])
    pixels, spec, moves = pixels_of(model), spec_from_model(model), {}
    for rank in (2, 8, 32):
        config = make_config(method="lora", lora_rank=rank, lr_lora=1e-3, lr_head=1e-12)
        tuned = Tuned(model, spec, config, 3, None)
        before = tuned(pixels)
        torch.nn.functional.cross_entropy(before, targets).backward()
        torch.optim.AdamW(parameter_groups(tuned, config)).step()
        moves[rank] = float((tuned(pixels) - before).abs().mean().detach())
    assert max(moves.values()) < 1.5 * min(moves.values()), moves


@pytest.mark.slow
def test_what_is_shared_stays_as_it_is(make_vit, make_config):
    """Steps of all that learns leave the frozen backbone's bytes alone."""
    model = make_vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = make_config(method="ln+lora+vpt", lora_targets="all", lr=0.1, lr_ln=0.1, lr_lora=0.1)
    tuned = Tuned(model, spec_from_model(model), config, 3, None)
    optimizer = torch.optim.AdamW(parameter_groups(tuned, config))
    learned = {name: value.clone() for name, value in tuned.state_dict().items()}
    for _ in range(2):  # the first one moves b alone, as a's gradient hangs on b
        optimizer.zero_grad()
        tuned(pixels_of(model)).square().sum().backward()
        optimizer.step()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(torch.equal(v, learned[name]) for name, v in tuned.state_dict().items())


@pytest.mark.parametrize(
    ("method", "others"), [("lora", 0), ("ln+lora", 320), ("lora+bpt", 2 * 5 * (3 + 32))]
)
def test_what_a_method_learns(make_vit, make_config, method, others):
    model = make_vit()
    config = make_config(method=method, lora_rank=3, wd=0.5, lr_lora=0.25)
    tuned = Tuned(model, spec_from_model(model), config, 3, None)
    factors = 2 * 2 * 3 * (32 + 32)
    body = others + factors
    assert tuned.trainable() == (body + 99, body)
    for part, expected in (("all", body + 99), ("head", 99), ("body", body), ("all", body + 99)):
        tuned.learn(part)
        groups = parameter_groups(tuned, config, part)
        held = [p for group in groups for p in group["params"]]
        assert sum(p.numel() for p in held) == expected
        assert {id(p) for p in held} == {id(p) for p in tuned.parameters() if p.requires_grad}
    own = {id(p) for p in tuned.lora.parameters()}
    (group,) = (g for g in groups if id(g["params"][0]) in own)
    assert (group["lr"], group["base_lr"], group["weight_decay"]) == (0.25, 0.25, 0.5)


# ---- gradients ----------------------------------------------------------------------------------

CASES = [
    ({}, "none", "token"),
    ({}, "deep", "token"),
    ({"reg_tokens": 2, "init_values": 0.3}, "deep", "avg_prompts"),
    ({"qk_norm": True}, "deep", "token"),
    ({}, "shallow", "avg"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "insert", "pool"), CASES)
def test_gradients_are_the_references(make_vit, arguments, insert, pool):
    """By a, b and prompts; the reference computes with summed weights that hang on a and b."""
    model = make_vit(**arguments).double()
    factors = lora_of(model).double()
    move(factors)
    generator = torch.Generator().manual_seed(2)
    sites = {"deep": len(model.blocks), "shallow": 1, "none": 0}[insert]
    prompts = [torch.randn(3, 32, generator=generator, dtype=torch.float64) for _ in range(sites)]
    leaves = [prompt.requires_grad_() for prompt in prompts] + [*factors.a, *factors.b]
    pixels = pixels_of(model, torch.float64)
    twin = copy.deepcopy(model)
    for module, linear in factors._linears.items():  # a tensor where torch has a parameter
        own = twin.get_submodule(module)
        del own.weight
        own.weight = linear.weight
    found = []
    for forward, network in (
        (features, twin),
        (prefix_forward.fast_features, factors.backbone),
    ):
        f = forward(network, pixels, prompts, insert, pool, "before_pool")
        loss = (f * torch.linspace(-1, 2, f.numel(), dtype=f.dtype).view_as(f)).sum()
        found.append(torch.autograd.grad(loss, leaves))
    largest = max(float(gradient.abs().max()) for gradient in found[0])
    assert all(float(gradient.abs().max()) > 0 for gradient in found[0])
    for wanted, gradient in zip(*found, strict=True):
        assert float((gradient - wanted).abs().max()) < 1e-12 * largest


def test_prompts_that_bypass_the_product_are_seen(make_vit, monkeypatch):
    """The broken twin: prefix keys and values of the frozen linear."""
    model = make_vit()
    factors = lora_of(model, "k,v")
    move(factors)
    prompts = [torch.ones(3, 32) for _ in range(2)]
    arguments = (pixels_of(model), prompts, "deep", "token", "before_pool")
    with torch.no_grad():
        wanted = features(merged(model, factors), *arguments)
        right = prefix_forward.fast_features(factors.backbone, *arguments)
        torch.testing.assert_close(right, wanted, rtol=1e-4, atol=1e-4)
        real, blocks = prefix_forward.prefix_keys_values, dict(zip(factors.backbone.blocks, model.blocks, strict=True))  # fmt: skip
        monkeypatch.setattr(
            prefix_forward, "prefix_keys_values", lambda block, p: real(blocks[block], p)
        )
        wrong = prefix_forward.fast_features(factors.backbone, *arguments)
    assert not torch.allclose(wrong, wanted, atol=1e-2)


@pytest.mark.parametrize("method", ["lora", "ln+lora+vpt"])
def test_the_logits_of_a_model_are_those_of_its_adapter(make_vit, make_config, method):
    """`delta.{module}.a` and `.b` in the file are what training computed with, scale and all."""
    model = make_vit()
    config = make_config(method=method, lora_rank=3, lora_alpha=5.0, lora_targets="all")
    tuned = Tuned(model, spec_from_model(model), config, 3, None).eval()
    move(tuned.lora)
    adapter = Adapter(
        name="a",
        backbone=BackboneRef(name="x"),
        method=method,
        insert=tuned.insert,
        prompt_length=3 if config.prompted else 0,
        pool="token",
        norm="before_pool",
        labels=("a", "b", "c"),
        preprocess=Preprocess(input_size=(3, 32, 32), mean=(0, 0, 0), std=(1, 1, 1)),
        tensors=_learned(tuned),
    )
    pixels = pixels_of(model)
    with torch.no_grad():
        wanted = adapter_logits(copy.deepcopy(model), adapter, pixels)
        worst = (tuned(pixels) - wanted).abs().max() / wanted.abs().max()
        assert float(worst) < 1e-5
        for name in [name for name in adapter.tensors if name.endswith(".b")]:
            adapter.tensors[name] = 1.01 * adapter.tensors[name]
        other = adapter_logits(copy.deepcopy(model), adapter, pixels)
    assert float((other - wanted).abs().max() / wanted.abs().max()) > 1e-4


def test_the_names_of_targets_are_all_there(make_vit):
    spec = spec_from_model(make_vit())
    assert all(len(lora_sites(spec, [target])) == 2 for target in TARGETS)


def test_all():
    assert all(hasattr(lora, name) for name in lora.__all__)
