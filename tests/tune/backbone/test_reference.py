"""The reference: timm's own forward without prompts, and the written meaning with them."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from timm.models.vision_transformer import ResPostBlock  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.support.merged_by_hand import merged_by_hand  # noqa: E402
from vptkit.backbones.merge_schedule import TokenMerging  # noqa: E402
from vptkit.errors import BackboneError  # noqa: E402
from vptkit.formats.adapter import Adapter, BackboneRef, write_adapter  # noqa: E402
from vptkit.formats.backbone_weights import digest_of_weights  # noqa: E402
from vptkit.images.preprocess import normalize  # noqa: E402
from vptkit.tune.backbone import reference  # noqa: E402
from vptkit.tune.backbone.reference import (  # noqa: E402
    adapter_logits,
    apply_layer_norms,
    features,
    reference_logits,
)
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import preprocess_of  # noqa: E402
from vptkit.tune.backbone.token_merging import MergedTokens  # noqa: E402

REGISTERS = {"reg_tokens": 2, "no_embed_class": True, "init_values": 0.3}


def pixels_of(count: int = 2, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 32, 32, generator=generator, dtype=torch.float64)


def prompts_of(model, m: int = 3, seed: int = 2, sites: int | None = None):
    generator = torch.Generator().manual_seed(seed)
    count = len(model.blocks) if sites is None else sites
    return [torch.randn(m, 32, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize(
    ("arguments", "pool", "norm"),
    [
        ({}, "token", "before_pool"),
        ({"fc_norm": True}, "token", "after_pool"),
        ({"global_pool": "avg"}, "avg", "after_pool"),
        ({"global_pool": "avg", "fc_norm": False}, "avg", "before_pool"),
        ({"global_pool": "avg", "class_token": False}, "avg", "after_pool"),
        ({"global_pool": "avg", **REGISTERS}, "avg", "after_pool"),
        ({"pre_norm": True, **REGISTERS}, "token", "before_pool"),
        ({"final_norm": False}, "token", "before_pool"),
        ({"pos_embed": "none"}, "token", "before_pool"),
        ({"dynamic_img_size": True}, "token", "before_pool"),
    ],
)
def test_without_prompts_it_is_timm(make_vit, arguments, pool, norm):
    model = make_vit(**arguments).double()
    pixels = pixels_of()
    ours = features(model, pixels, [], "none", pool, norm)
    torch.testing.assert_close(ours, model(pixels), rtol=0, atol=1e-12)


def test_of_a_distilled_model_the_class_token_counts(make_vit):
    model = make_vit("deit_tiny_distilled_patch16_224").double()
    tokens = model.forward_features(pixels_of())
    ours = features(model, pixels_of(), [], "none", "token", "before_pool")
    torch.testing.assert_close(ours, tokens[:, 0], rtol=0, atol=1e-12)


def test_the_wrong_place_of_the_norm_is_not_timm(make_vit):
    model = make_vit(global_pool="avg").double()
    wrong = features(model, pixels_of(), [], "none", "avg", "before_pool")
    assert (wrong - model(pixels_of())).abs().max() > 1e-2


# ---- prompts, against a few lines of their own --------------------------------------------------


def block_by_hand(weights, i: int, heads: int, z, bias=0.0, merge=lambda keys, z: z):
    """One pre-norm block, [B, t, d] → [B, t, d], of nothing but matrices.

    bias is added to the logits [B, t, t]; merge makes of keys [B, t, d] and tokens those that the MLP sees.
    """
    w = {k.removeprefix(f"blocks.{i}."): v for k, v in weights.items() if f"blocks.{i}." in k}

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    q, k, v = linear(norm(z, "norm1"), "attn.qkv").chunk(3, -1)
    e = q.shape[-1] // heads
    parts = []
    for h in range(heads):
        cut = slice(h * e, (h + 1) * e)
        scores = q[..., cut] @ k[..., cut].transpose(1, 2) / math.sqrt(e) + bias
        parts.append(scores.softmax(-1) @ v[..., cut])
    z = z + linear(torch.cat(parts, -1), "attn.proj") * w.get("ls1.gamma", 1.0)
    z = merge(k, z)
    x = linear(norm(z, "norm2"), "mlp.fc1")
    x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return z + linear(x, "mlp.fc2") * w.get("ls2.gamma", 1.0)


def tokens_by_hand(model, pixels, prompts, insert):
    """Tokens behind the last block, prompts (if any) between prefix and patches."""
    weights = model.state_dict()
    patches = F.conv2d(
        pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=8
    )
    patches = patches.flatten(2).transpose(1, 2) + weights["pos_embed"][:, -16:]
    prefix = [weights["cls_token"]]
    if "reg_token" in weights:  # no_embed_class: the prefix has no position
        prefix.append(weights["reg_token"])
    else:
        prefix[0] = prefix[0] + weights["pos_embed"][:, :1]
    start = torch.cat(prefix, 1).expand(len(pixels), -1, -1)
    k = start.shape[1]
    z = torch.cat([start, patches], 1)
    for i in range(len(model.blocks)):
        if insert == "deep":
            if i:
                z = torch.cat([z[:, :k], z[:, -16:]], 1)
            p = prompts[i]
        else:
            p = prompts[0] if i == 0 else None
        if p is not None:
            z = torch.cat([z[:, :k], p[None].repeat(len(pixels), 1, 1), z[:, -16:]], 1)
        z = block_by_hand(weights, i, 2, z)
    return z, k


@pytest.mark.parametrize("insert", ["deep", "shallow"])
@pytest.mark.parametrize("arguments", [{}, REGISTERS, {"depth": 3, "init_values": 0.2}])
def test_prompts_by_hand(make_vit, insert, arguments):
    model = make_vit(**arguments).double()
    prompts = prompts_of(model, sites=1 if insert == "shallow" else None)
    z, k = tokens_by_hand(model, pixels_of(), prompts, insert)
    assert z.shape[1] == k + 3 + 16
    pools = {
        "token": lambda z: z[:, 0],
        "avg": lambda z: z[:, k + 3 :].mean(1),
        "avg_prompts": lambda z: z[:, 1:].mean(1),  # registers and prompts included
        "token+avg": lambda z: torch.stack([z[:, 0], z[:, k + 3 :].mean(1)], 1),
    }
    for pool, pooled in pools.items():
        for norm in ("before_pool", "after_pool"):
            wanted = pooled(model.norm(z)) if norm == "before_pool" else model.norm(pooled(z))
            got = features(model, pixels_of(), prompts, insert, pool, norm)
            torch.testing.assert_close(got, wanted.flatten(1), rtol=0, atol=1e-11)


def test_the_average_with_prompts_keeps_all_where_there_is_no_class_token(make_vit):
    model = make_vit(global_pool="avg", class_token=False).double()
    prompts = prompts_of(model)
    f = features(model, pixels_of(), prompts, "deep", "avg_prompts", "after_pool")
    z = model.patch_embed(pixels_of()) + model.pos_embed
    for i, block in enumerate(model.blocks):
        z = block(torch.cat([prompts[i].expand(2, -1, -1), z[:, -16:]], 1))
    torch.testing.assert_close(f, model.fc_norm(z.mean(1)), rtol=0, atol=1e-12)


def test_the_order_of_prompts_does_not_matter(make_vit):
    model = make_vit().double()
    prompts = prompts_of(model)
    good = features(model, pixels_of(), prompts, "deep", "token", "before_pool")
    turned = [p.flip(0) for p in prompts]
    same = features(model, pixels_of(), turned, "deep", "token", "before_pool")
    torch.testing.assert_close(same, good, rtol=0, atol=1e-11)


@pytest.mark.parametrize("attention", ["proportional", "plain"])
@pytest.mark.parametrize("insert", ["deep", "shallow", "none"])
@pytest.mark.parametrize("arguments", [{}, REGISTERS])
def test_merging_by_hand(make_vit, arguments, insert, attention):
    """Prompts take no part; class and registers stay; means weigh by size."""
    model = make_vit(depth=3, **arguments).double()
    k, m = model.num_prefix_tokens, 0 if insert == "none" else 3
    prompts = prompts_of(model, sites={"deep": 3, "shallow": 1, "none": 0}[insert])
    merging = TokenMerging(schedule=(3, 2, 0), attention=attention)
    z = reference.embed(model, pixels_of())
    size = np.ones((2, z.shape[1]))
    for i, r in enumerate(merging.schedule):
        if insert == "deep" or (insert == "shallow" and i == 0):
            z = torch.cat([z[:, :k], prompts[i].expand(2, -1, -1), z[:, k:]], 1)
        image = [*range(k), *range(k + m, z.shape[1])]

        def merge(keys, z, image=image, r=r):
            nonlocal size
            rows = []
            split = keys[:, image].reshape(2, len(image), 2, 16).transpose(1, 2)
            for own, z_own, size_own in zip(split, z[:, image], size, strict=True):
                rows.append(merged_by_hand(own.numpy(), z_own.numpy(), size_own, k, r))
            size = np.stack([sizes for _, sizes in rows])
            merged = torch.from_numpy(np.stack([tokens for tokens, _ in rows]))
            return torch.cat([merged[:, :k], z[:, k : k + m], merged[:, k:]], 1)

        bias = torch.zeros(2, 1, z.shape[1], dtype=torch.float64)
        if attention == "proportional":
            bias[:, 0, image] = torch.from_numpy(size).log()
        z = block_by_hand(model.state_dict(), i, 2, z, bias, merge)
        if insert == "deep" and i < 2:
            z = torch.cat([z[:, :k], z[:, k + m :]], 1)
    z, weight = model.norm(z), torch.from_numpy(size)[:, k:, None]
    assert z.shape[1] == k + m + 16 - 5
    assert weight.sum() == 2 * 16
    patches, rest = (z[:, k + m :] * weight).sum(1), z[:, 1 : k + m].sum(1)
    wanted = {"token": z[:, 0], "avg": patches / 16}
    wanted["avg_prompts"] = (patches + rest) / (16 + k + m - 1)
    for pool, f in wanted.items():
        got = features(model, pixels_of(), prompts, insert, pool, "before_pool", merging=merging)
        torch.testing.assert_close(got, f, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", {"qk_norm": True, "init_values": 0.3}),
        ("vit_tiny_patch16_224", {"block_fn": ResPostBlock}),
        ("eva02_tiny_patch14_224", {"use_rot_pos_emb": False}),
        ("eva02_tiny_patch14_224", {}),
    ],
)
def test_a_block_in_two_halves_is_timms_block(make_vit, name, arguments):
    """Norms of keys, LayerScale, norms behind the branches, another class of block."""
    model = make_vit(name, **arguments).double()
    z = reference.embed(model, pixels_of())
    tokens = MergedTokens(torch.ones(z.shape[:2], dtype=torch.float64))
    merging = TokenMerging(schedule=(0, 0))
    found, after = reference.merging_block(model, 0, z, tokens, merging)
    torch.testing.assert_close(found, reference.call_block(model, 0, z), rtol=0, atol=1e-12)
    assert after is tokens
    merged, after = reference.merging_block(model, 0, z, tokens, TokenMerging(schedule=(4, 0)))
    assert merged.shape[1] == z.shape[1] - 4
    assert after.size.sum() == tokens.size.sum()
    assert (after.parts is None) == (getattr(model, "rope", None) is None)


@pytest.mark.parametrize("twin", ["block", "kept", "position", "deep as shallow"])
def test_broken_twins_differ(make_vit, twin):
    """Each mistake that a faster implementation could make is visible in the features."""
    model = make_vit(depth=3).double()
    prompts = prompts_of(model)
    good = features(model, pixels_of(), prompts, "deep", "token", "before_pool")
    if twin == "block":
        bad = features(
            model, pixels_of(), prompts[1:] + prompts[:1], "deep", "token", "before_pool"
        )
    elif twin == "deep as shallow":
        bad = features(model, pixels_of(), prompts, "shallow", "token", "before_pool")
    elif twin == "kept":  # the rows of the blocks before live on
        z = model._pos_embed(model.patch_embed(pixels_of()))
        for block, prompt in zip(model.blocks, prompts, strict=True):
            z = block(torch.cat([z[:, :1], prompt.expand(2, -1, -1), z[:, 1:]], 1))
        bad = model.norm(z)[:, 0]
    else:  # prompts get a position embedding
        moved = [p + model.pos_embed[0, 1:4] for p in prompts]
        bad = features(model, pixels_of(), moved, "deep", "token", "before_pool")
    assert (bad - good).abs().max() > 1e-3


# ---- adapters -----------------------------------------------------------------------------------


def make_adapter(model, **overrides):
    random = np.random.default_rng(3)

    def draw(*shape):
        return random.normal(size=shape).astype(np.float32)

    tensors = {"head.weight": draw(4, 32), "head.bias": draw(4)}
    for i in range(2):
        tensors[f"prompt.{i}.a"], tensors[f"prompt.{i}.b"] = draw(3, 5), draw(32, 5)
    fields = {
        "name": "a",
        "backbone": BackboneRef(
            name="vit_tiny_patch16_224",
            args={"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
            spec=spec_from_model(model),
            sha256=digest_of_weights(weights_from_model(model)),
        ),
        "method": "bpt",
        "insert": "deep",
        "prompt_length": 3,
        "pool": "token",
        "norm": "before_pool",
        "labels": ("a", "b", "c", "d"),
        "preprocess": preprocess_of(model),
        "tensors": tensors | overrides.pop("tensors", {}),
    }
    return Adapter(**{**fields, **overrides})


def test_logits_of_an_adapter(make_vit):
    model = make_vit().double()
    adapter = make_adapter(model)
    t = {name: torch.from_numpy(value).double() for name, value in adapter.tensors.items()}
    prompts = [t[f"prompt.{i}.a"] @ t[f"prompt.{i}.b"].T for i in range(2)]
    f = features(model, pixels_of(), prompts, "deep", "token", "before_pool")
    wanted = f @ t["head.weight"].T + t["head.bias"]
    got = adapter_logits(model, adapter, pixels_of())
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11)


def test_tuned_layer_norms_replace_the_backbones(make_vit):
    random = np.random.default_rng(4)
    names = ("blocks.0.norm1.weight", "blocks.1.norm2.bias", "norm.weight", "norm.bias")
    tuned = {f"ln.{name}": random.normal(size=32).astype(np.float32) for name in names}
    model = make_vit().double()
    plain = adapter_logits(model, make_adapter(model), pixels_of())
    adapter = make_adapter(model, tensors=tuned)

    twin = make_vit().double()
    state = twin.state_dict() | {k[3:]: torch.from_numpy(v).double() for k, v in tuned.items()}
    twin.load_state_dict(state)
    wanted = adapter_logits(twin, make_adapter(twin), pixels_of())

    got = adapter_logits(model, adapter, pixels_of())
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    assert (got - plain).abs().max() > 1e-2

    fresh = make_vit().double()
    untouched = adapter_logits(fresh, adapter, pixels_of(), layer_norms_applied=True)
    torch.testing.assert_close(untouched, plain, rtol=0, atol=1e-12)
    apply_layer_norms(fresh, adapter)
    torch.testing.assert_close(
        fresh.norm.weight, torch.from_numpy(tuned["ln.norm.weight"]).double()
    )


def test_reference_logits_from_files(make_vit, weights, tmp_path):
    model = make_vit()
    adapter = make_adapter(model)
    write_adapter(tmp_path / "a.safetensors", adapter)
    images = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    got = reference_logits(tmp_path / "a.safetensors", weights, images)
    pixels = torch.from_numpy(normalize(images, adapter.preprocess))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, reference_logits(adapter, weights, images))
    np.testing.assert_allclose(got, adapter_logits(model, adapter, pixels).numpy(), atol=1e-4)


def test_other_weights_are_refused(make_vit, weights, tmp_path):
    other = make_adapter(make_vit(seed=1))
    write_adapter(tmp_path / "a.safetensors", other)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(BackboneError, match=r"another backbone.*digest"):
        reference_logits(tmp_path / "a.safetensors", weights, images)
