"""Tiny random Vision Transformers with random adapters, for hypothesis.

`setups()` draws a `Setup`: plain numbers and words, so that a failing example can be read and
replayed. `build(setup)` makes the real things of it: a timm model in double precision, its spec and
tensors, an adapter, images, and the reference's answer.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import strategies as st
from timm.layers import QuickGELU
from timm.models.vision_transformer import VisionTransformer

from tests.support.timms import OLDER, create_model, takes
from vptkit.backbones.merge_schedule import TokenMerging, merge_schedule
from vptkit.formats.adapter import Adapter, BackboneRef
from vptkit.formats.backbone_spec import BackboneSpec
from vptkit.formats.backbone_weights import digest_of_weights, tensor_shapes
from vptkit.formats.pooling import head_inputs, reads_class_token
from vptkit.images.preprocess import Preprocess
from vptkit.tune.backbone.reference import adapter_logits
from vptkit.tune.backbone.spec_from_timm import spec_from_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Case", "Setup", "build", "random_adapter", "setups", "specs"]

WIDTH = 32
CLASSES = 5
PROJ_BIAS = [True, True, False] if takes(VisionTransformer, "proj_bias") else [True]
# an older timm loses the class token where there are no positions
POS_EMBED = ["learn"] if OLDER else ["learn", "learn", "none"]
ACTIVATIONS = {"gelu": torch.nn.GELU, "quick_gelu": QuickGELU, "gelu_tanh": "gelu_tanh"}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model, an adapter and a seed; the defaults have most features switched on."""

    image: tuple[int, int] = (16, 24)
    patch: int | tuple[int, int] = 8
    depth: int = 3
    heads: int = 2
    mlp_ratio: float = 2.0
    class_token: bool = True
    distilled: bool = False
    registers: int = 2
    no_embed_class: bool = False
    pos_embed: str = "learn"
    norm_pre: bool = True
    layer_scale: bool = True
    model_pool: str = "token"
    fc_norm: bool | None = None
    final_norm: bool = True
    qkv_bias: bool = True
    proj_bias: bool = True
    activation: str = "gelu"

    insert: str = "deep"
    prompts: int = 3
    rank: int | None = 2
    prompt_scale: float = 3.0
    tuned_norms: bool = True
    pool: str = "token"
    norm: str = "before_pool"
    merge: int = 0
    merge_attention: str = "proportional"

    batch: int = 2
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a setup describes, made.

    Attributes:
        model: the timm model, float64, with the backbone's own LayerNorms.
        spec, weights: of the model; float64.
        adapter: float64 tensors.
        images: uint8 [B, H, W, 3].
        pixels: float64 [B, 3, H, W], normalised.
        reference: float64 [B, C], from `vptkit.tune.backbone.reference`.
    """

    setup: Setup
    model: Any
    spec: BackboneSpec
    weights: dict[str, NDArray[np.float64]]
    adapter: Adapter
    images: NDArray[np.uint8]
    pixels: NDArray[np.float64]
    reference: NDArray[np.float64]


def setups(**fixed: Any) -> st.SearchStrategy[Setup]:
    """Setups; fields given by name keep their value."""
    return _setups().map(lambda setup: _consistent(replace(setup, **fixed)))


@st.composite
def _setups(draw: st.DrawFn) -> Setup:
    flag = st.booleans()
    return Setup(
        image=draw(st.sampled_from([(16, 16), (16, 24), (32, 8), (24, 24), (19, 24), (23, 31)])),
        patch=draw(st.sampled_from([8, 8, (8, 4)])),
        depth=draw(st.integers(1, 3)),
        heads=draw(st.sampled_from([1, 2, 4])),
        mlp_ratio=draw(st.sampled_from([2.0, 1.5, 4.0])),
        class_token=draw(st.sampled_from([True, True, False])),
        distilled=draw(st.sampled_from([False, False, False, True])),
        registers=draw(st.sampled_from([0, 2])),
        no_embed_class=draw(flag),
        pos_embed=draw(st.sampled_from(POS_EMBED)),
        norm_pre=draw(flag),
        layer_scale=draw(flag),
        model_pool=draw(st.sampled_from(["token", "avg"])),
        fc_norm=draw(st.sampled_from([None, True, False])),
        final_norm=draw(st.sampled_from([True, True, True, False])),
        qkv_bias=draw(st.sampled_from([True, True, False])),
        proj_bias=draw(st.sampled_from(PROJ_BIAS)),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        insert=draw(st.sampled_from(["deep", "deep", "shallow", "none"])),
        prompts=draw(st.sampled_from([1, 3, 6])),
        rank=draw(st.sampled_from([None, 1, 4])),
        prompt_scale=draw(st.sampled_from([0.1, 3.0, 100.0])),
        tuned_norms=draw(flag),
        pool=draw(st.sampled_from(["token", "token", "avg", "token+avg", "avg_prompts"])),
        norm=draw(st.sampled_from(["before_pool", "after_pool"])),
        batch=2,
        seed=draw(st.integers(0, 2**16)),
    )


def _consistent(setup: Setup) -> Setup:
    """Settle what timm or an adapter cannot have together."""
    if setup.distilled:
        # DeiT's class has no registers, positions for all tokens, and its own pooling
        setup = replace(
            setup,
            class_token=True,
            registers=0,
            no_embed_class=False,
            pos_embed="learn",
            model_pool="token",
        )
    if not setup.class_token:
        setup = replace(setup, model_pool="avg")
        if reads_class_token(setup.pool):
            setup = replace(setup, pool="avg")
    return setup


def build(setup: Setup) -> Case:
    """Make the model, the adapter and the images of a setup, and ask the reference."""
    rng = np.random.default_rng(setup.seed)
    model = _model(setup)
    _perturb(model, rng)
    spec = spec_from_model(model)
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    adapter = random_adapter(spec, setup, rng, sha256=digest_of_weights(weights))
    images = rng.integers(0, 256, size=(setup.batch, *spec.image_size, 3)).astype(np.uint8)
    p = adapter.preprocess
    pixels = ((images / 255.0 - np.asarray(p.mean)) / np.asarray(p.std)).transpose(0, 3, 1, 2)
    pixels = np.ascontiguousarray(pixels)
    with torch.no_grad():
        tuned = copy.deepcopy(model)
        reference = adapter_logits(tuned, adapter, torch.from_numpy(pixels)).numpy()
    return Case(
        setup=setup,
        model=model,
        spec=spec,
        weights=weights,
        adapter=adapter,
        images=images,
        pixels=pixels,
        reference=reference,
    )


def timm_call(setup: Setup) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments of `timm.create_model`."""
    args: dict[str, Any] = {
        "img_size": setup.image,
        "patch_size": setup.patch,
        "embed_dim": WIDTH,
        "depth": setup.depth,
        "num_heads": setup.heads,
        "mlp_ratio": setup.mlp_ratio,
        "init_values": 0.1 if setup.layer_scale else None,
        "pre_norm": setup.norm_pre,
        "global_pool": setup.model_pool,
        "fc_norm": setup.fc_norm,
        "final_norm": setup.final_norm,
        "qkv_bias": setup.qkv_bias,
        "act_layer": ACTIVATIONS[setup.activation],
    }
    if not setup.proj_bias:
        args["proj_bias"] = False
    if setup.distilled:
        return "deit_tiny_distilled_patch16_224", args
    args |= {
        "class_token": setup.class_token,
        "reg_tokens": setup.registers,
        "no_embed_class": setup.no_embed_class,
        "pos_embed": setup.pos_embed,
    }
    return "vit_tiny_patch16_224", args


def _model(setup: Setup) -> Any:
    name, args = timm_call(setup)
    with torch.random.fork_rng(devices=[]):
        model = create_model(name, num_classes=0, **args)
    return model.double().eval().requires_grad_(requires_grad=False)


def _perturb(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Move every parameter off its initial 0 or 1: a forgotten one shall be seen."""
    for value in model.state_dict().values():
        value.add_(torch.from_numpy(0.3 * rng.standard_normal(tuple(value.shape))))


def random_adapter(
    spec: BackboneSpec,
    setup: Setup,
    rng: np.random.Generator,
    *,
    sha256: str | None = None,
    dtype: type[np.floating[Any]] = np.float64,
) -> Adapter:
    """A random adapter for a backbone, as the setup says."""
    d, m = spec.width, setup.prompts if setup.insert != "none" else 0
    tensors: dict[str, NDArray[Any]] = {
        "head.weight": rng.standard_normal((CLASSES, head_inputs(setup.pool, d))),
        "head.bias": rng.standard_normal(CLASSES),
    }
    for i in range({"deep": spec.depth, "shallow": 1, "none": 0}[setup.insert]):
        if setup.rank is None:
            tensors[f"prompt.{i}"] = setup.prompt_scale * rng.standard_normal((m, d))
        else:
            size = np.sqrt(setup.prompt_scale)
            tensors[f"prompt.{i}.a"] = size * rng.standard_normal((m, setup.rank))
            tensors[f"prompt.{i}.b"] = size * rng.standard_normal((d, setup.rank))
    if setup.tuned_norms:
        for name in tensor_shapes(spec):
            if "norm" in name and rng.random() < 0.7:
                tensors[f"ln.{name}"] = 0.7 + 0.4 * rng.standard_normal(d)
    merging = TokenMerging(
        schedule=merge_schedule(setup.merge, spec),
        attention=setup.merge_attention,  # type: ignore[arg-type]
    )
    name, args = timm_call(setup)
    args["act_layer"] = setup.activation  # by its name in timm
    return Adapter(
        name="random",
        backbone=BackboneRef(
            name=name,
            args={k: list(v) if isinstance(v, tuple) else v for k, v in args.items()},
            spec=spec,
            sha256=sha256,
        ),
        method="bpt",
        insert=setup.insert,
        prompt_length=m,
        pool=setup.pool,
        norm=setup.norm,
        labels=tuple(f"class {i}" for i in range(CLASSES)),
        preprocess=Preprocess(
            input_size=(3, *spec.image_size), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)
        ),
        tensors={k: np.asarray(v, dtype=dtype) for k, v in tensors.items()},
        merging=merging if merging.merged else None,
    )


@st.composite
def specs(draw: st.DrawFn) -> BackboneSpec:
    """Backbones on paper: every field varies, no model is made."""
    heads, head_width = draw(st.integers(1, 4)), draw(st.sampled_from([2, 4]))
    class_token = draw(st.booleans())
    patch = draw(st.sampled_from([(8, 8), (4, 8)]))
    return BackboneSpec(
        image_size=(draw(st.integers(8, 30)), draw(st.integers(8, 30))),
        patch_size=patch,
        width=heads * head_width,
        depth=draw(st.integers(1, 4)),
        heads=heads,
        mlp_width=draw(st.integers(1, 40)),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        qkv_bias=draw(st.booleans()),
        proj_bias=draw(st.booleans()),
        patch_bias=draw(st.booleans()),
        norm_eps=draw(st.sampled_from([1e-5, 1e-6, 1e-12])),
        class_token=class_token,
        dist_token=draw(st.booleans()) if class_token else False,
        registers=draw(st.sampled_from([0, 0, 1, 4])),
        pos_embed=draw(st.sampled_from(["all", "patches", "none"])),
        norm_pre=draw(st.booleans()),
        layer_scale=draw(st.booleans()),
        final_norm=draw(st.sampled_from(["norm", "fc_norm", None])),
        pool=draw(st.sampled_from(["token", "avg"] if class_token else ["avg"])),
    )
