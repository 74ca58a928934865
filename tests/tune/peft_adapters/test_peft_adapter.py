"""Folders as PEFT saves them: made here in its layout, taken strictly."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from tests.support.foreign_checkpoints import (  # noqa: E402
    HEAD,
    NAME,
    TINY,
    D,
    L,
    draw,
    pixels_of,
    require_parity,
)
from vptkit.errors import AdapterError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune.backbone.published_model import with_norm_eps  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import (  # noqa: E402
    spec_from_model,
    weights_from_model,
)
from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter  # noqa: E402
from vptkit.tune.peft_adapters.peft_adapter import from_peft  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


PEFT_CONFIG = {"peft_type": "LN_TUNING", "target_modules": r"(.*\.norm[12]|norm)$"}


def transformers_name(name: str, container: str) -> str:
    name = re.sub(r"blocks\.(\d+)", rf"{container}.\1", name)
    name = name.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
    return "vit." + re.sub(r"^norm", "layernorm", name)


@pytest.fixture
def peft(tmp_path: Path, make_vit: Callable[..., Any]) -> Callable[..., Any]:
    """A function: write a folder as `save_pretrained` does; returns it and the tuned model."""
    from safetensors.torch import save_file

    def make(style: str = "timm", drop: str = "-", **config: Any) -> tuple[Path, Any]:
        model = make_vit()
        state = {}
        with torch.no_grad():
            for i, (name, value) in enumerate(model.named_parameters()):
                if "norm" not in name:
                    continue
                value.copy_(value + 0.5 * draw(D, seed=100 + i))
                module, _, end = name.rpartition(".")
                theirs = module if style == "timm" else transformers_name(module, style)
                state[f"base_model.model.{theirs}.ln_tuning_layers.{end}"] = value.clone()
        head = "head" if style == "timm" else "classifier"
        state |= {f"base_model.model.{head}.{k}": v for k, v in HEAD.items()}
        folder = tmp_path / "peft"
        folder.mkdir(exist_ok=True)
        state = {k: v for k, v in state.items() if drop not in k}
        save_file(state, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(PEFT_CONFIG | config))
        return folder, model

    return make


@pytest.fixture
def bring_peft(tmp_path: Path, weights: Path) -> Callable[..., Any]:
    def run(folder: Path, **options: Any) -> Any:
        config = ImportConfig(backbone=NAME, backbone_args=dict(TINY), weights=weights, **options)
        import_adapter(folder, tmp_path / "ln.safetensors", config, force=True)
        return read_adapter(tmp_path / "ln.safetensors")

    return run


@pytest.mark.parametrize("style", ["timm", "layers", "encoder.layer"])
def test_peft_layer_norms(peft, bring_peft, make_vit, style):
    targets = ["layernorm_before", "layernorm_after", "layernorm"]
    folder, tuned = peft(style, **({} if style == "timm" else {"target_modules": targets}))
    adapter = bring_peft(folder)
    if style != "timm":  # transformers' ViT
        assert adapter.backbone.args["norm_eps"] == 1e-12
        with_norm_eps(tuned, {"norm_eps": 1e-12})
    pixels = pixels_of(adapter)
    logits = tuned.forward_features(pixels)[:, 0] @ HEAD["weight"].T + HEAD["bias"]
    require_parity(adapter, logits)
    plain = make_vit().forward_features(pixels)[:, 0] @ HEAD["weight"].T + HEAD["bias"]
    with pytest.raises(AssertionError):
        require_parity(adapter, plain)
    assert (adapter.method, adapter.insert, adapter.pool) == ("ln", "none", "token")
    assert len(adapter.layer_norms()) == 2 * (2 * L + 1)
    assert adapter.preprocess.mean == (0.5, 0.5, 0.5)  # timm's for this model
    file = bring_peft(folder / "adapter_model.safetensors")
    np.testing.assert_array_equal(file.golden()[1], adapter.golden()[1])


@pytest.mark.parametrize(
    ("style", "drop", "config", "message"),
    [
        ("timm", "blocks.1.norm2.", {}, r"missing.*: blocks\.1\.norm2$"),
        ("timm", "norm1.ln_tuning_layers.bias", {"target_modules": []}, "missing: blocks.0.norm1"),
        (
            "layers",
            "layernorm_after",
            {"target_modules": ["layernorm_after"]},
            "missing.*layernorm_after",
        ),
        ("timm", "-", {"peft_type": "LORA"}, "norm1 is neither a linear"),
        ("timm", "-", {"peft_type": "LORANGE"}, "peft_type is 'LORANGE', expected"),
        ("timm", "head.bias", {}, "head's bias is missing"),
        ("timm", "ln_tuning", {}, "names are missing"),
    ],
)
def test_peft_is_taken_strictly(peft, bring_peft, style, drop, config, message):
    folder, _ = peft(style, drop, **config)
    with pytest.raises(AdapterError, match=message):
        bring_peft(folder)


def test_peft_of_some_norms(peft, bring_peft):
    """What the configuration does not target may be absent."""
    only = {"target_modules": ["norm1", "norm2", "norm"], "exclude_modules": ["norm2"]}
    folder, _ = peft("timm", "norm2.", **only)
    assert len(bring_peft(folder).layer_norms()) == 2 * (L + 1)


def test_a_file_of_torch(peft, bring_peft):
    """An older PEFT wrote adapter_model.bin; nothing of it is unpickled."""
    from safetensors.torch import load_file

    folder, _ = peft()
    tensors = folder / "adapter_model.safetensors"
    adapter, state = bring_peft(folder), load_file(tensors)
    tensors.unlink()
    torch.save(state, folder / "adapter_model.bin")
    other = bring_peft(folder)
    assert set(other.tensors) == set(adapter.tensors)
    for name, value in adapter.tensors.items():
        np.testing.assert_array_equal(other.tensors[name], value)


def test_peft_of_another_module(peft, bring_peft):
    from safetensors.torch import load_file, save_file

    folder, _ = peft()
    state = load_file(folder / "adapter_model.safetensors")
    state["base_model.model.blocks.0.mlp.fc1.ln_tuning_layers.weight"] = draw(4, D)
    save_file(state, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"not tensors of LN_TUNING .*blocks\.0\.mlp"):
        bring_peft(folder)


# what every kind shares: made by hand, so that no PEFT is needed --------------------------------------

A = "base_model.model.blocks.{}.attn.qkv.lora_A.weight"
B = "base_model.model.blocks.{}.attn.qkv.lora_B.weight"


@pytest.fixture
def read(make_vit):
    """A function: tensors and a configuration → what they are in ours, on `make_vit()`."""
    model = make_vit()

    def run(state, name=NAME, **config):
        settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["qkv"]}
        state = {key: np.asarray(value) for key, value in state.items()}
        spec = spec_from_model(model, name)
        return from_peft(state, settings | config, spec, weights_from_model(model))

    return run


def lora(**more):
    state = {A.format(i): draw(2, D, seed=i).numpy() for i in range(L)}
    state |= {B.format(i): draw(3 * D, 2, seed=9 + i).numpy() for i in range(L)}
    return state | {name.replace("__", "."): value for name, value in more.items()}


def test_factors(read):
    """alpha / r is multiplied into b, of rsLoRA alpha / sqrt(r); what changes nothing is left out."""
    state = lora()
    found = read(state)
    assert (found.method, found.pool, found.head) == ("lora", None, {})
    np.testing.assert_allclose(found.tensors["delta.blocks.1.attn.qkv.a"], state[A.format(1)])
    b = found.tensors["delta.blocks.1.attn.qkv.b"]
    np.testing.assert_allclose(b, 3 * state[B.format(1)], rtol=1e-6)
    b = read(state, use_rslora=True).tensors["delta.blocks.1.attn.qkv.b"]
    np.testing.assert_allclose(b, 6 / 2**0.5 * state[B.format(1)], rtol=1e-6)
    state[B.format(0)] *= 0
    assert all(name.startswith("delta.blocks.1.attn.qkv.") for name in read(state).tensors)


def test_separate_queries_and_values(read):
    """Stacked ranks; each factor b is zero but in its own rows."""
    head = "base_model.model.vit.encoder.layer.{}.attention.attention.{}.lora_{}.weight"
    state = {
        head.format(i, name, end): draw(*shape, seed=i + n).numpy()
        for i in range(L)
        for n, name in enumerate(("value", "query"))
        for end, shape in (("A", (2, D)), ("B", (D, 2)))
    }
    found = read(state, target_modules=["query", "value"])
    a, b = (found.tensors[f"delta.blocks.0.attn.qkv.{end}"] for end in "ab")
    assert (a.shape, b.shape, found.pool) == ((4, D), (3 * D, 4), "token")
    value = state[head.format(0, "value", "B")] @ state[head.format(0, "value", "A")]
    np.testing.assert_allclose((b @ a)[2 * D :], 3 * value, rtol=1e-5, atol=1e-5)
    assert not (b @ a)[D : 2 * D].any()


def test_junk_of_modules_to_save(read):
    """PEFT leaves the classifier's first and second names in the file of bias="all"."""
    head = "base_model__model__head__"
    junk = {f"{head}modules_to_save__bias": np.ones(3), f"{head}original_module__bias": np.ones(3)}
    assert read(lora(**junk, **{f"{head}bias": np.zeros(3)})).head["bias"].tolist() == [0, 0, 0]
    assert read(lora(**junk)).head["bias"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("more", "config", "message"),
    [
        ({"base_model__model__odd__weight": np.ones(2)}, {}, "not tensors of LORA .*odd.weight"),
        ({A.format(0).replace(".", "__"): np.ones((3, D))}, {}, "qkv.lora_B.weight has the shape"),
        (
            {A.format(0).replace(".", "__"): np.ones((2, 5))},
            {},
            r"has the shape \(2, 5\), expected",
        ),
        ({A.format(0).replace(".", "__"): np.ones((2, D), int)}, {}, "is of int64, expected float"),
        ({A.format(0).replace(".", "__"): np.full((2, D), np.nan)}, {}, "not finite in float32"),
        ({}, {"r": 3}, "is of rank 2, the configuration says 3"),
        ({}, {"rank_pattern": {"qkv": 4}}, "is of rank 2, the configuration says 4"),
        ({}, {"lora_alpha": 1e300}, "lora_alpha .* expected a number"),
        ({}, {"use_dora": True}, "use_dora and lora_magnitude_vector do not go together"),
        (
            {"base_model__model__blocks__0__attn__qkv__lora_magnitude_vector": np.ones(3 * D)},
            {},
            "use_dora and lora_magnitude_vector do not go together",
        ),
        (
            {"base_model__model__head__lora_A__weight": np.ones((2, D))},
            {},
            "its classifier is adapt",
        ),
        ({"base_model__model__distillation_classifier__bias": np.ones(3)}, {}, "second classifier"),
        (
            {"base_model__model__blocks__0__attn__qkv__hada_w1_a": np.ones(2)},
            {},
            "not tensors of LORA",
        ),
        (
            {
                "base_model__model__vit__layers__0__layernorm_before__lora_A__weight": np.ones(
                    (2, D)
                )
            },
            {},
            "layernorm_before is neither a linear nor a convolution here",
        ),
        ({"base_model__model__norm__weight": np.ones(5)}, {}, r"norm.weight has the shape \(5,\)"),
        (
            {"base_model__model__blocks__0__attn__qkv__weight": np.ones((3 * D, D))},
            {},
            "blocks.0.attn.qkv: changed, and replaced by modules_to_save",
        ),
        (
            {
                "base_model__model__blocks__0__attn__qkv__base_layer__bias": np.ones(3 * D),
                "base_model__model__blocks__0__attn__qkv__bias": np.ones(3 * D),
            },
            {},
            "are one tensor of the backbone",
        ),
        ({}, {"target_modules": ["qkv", "proj"]}, r"missing.*: blocks\.0\.attn\.proj"),
    ],
)
def test_a_file_is_taken_strictly(read, more, config, message):
    with pytest.raises(AdapterError, match=message):
        read(lora(**more), **config)


def test_a_block_that_is_lost(read):
    state = {name: value for name, value in lora().items() if "blocks.1" not in name}
    for targets in (["qkv"], r".*\.qkv", "all-linear"):
        with pytest.raises(AdapterError, match=r"missing, which .* means: blocks\.1\.attn\.qkv$"):
            read(state, target_modules=targets)
    assert read(state, target_modules=["blocks.0.attn.qkv"]).tensors
    assert read(state, layers_to_transform=[0], layers_pattern="blocks").tensors


def test_a_backbone_without_that_bias(read, make_vit):
    model = make_vit(qkv_bias=False)
    state = {name: np.asarray(value) for name, value in lora().items()}
    state[A.format(0).replace("A.weight", "B.bias")] = np.ones(3 * D)
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["qkv"]}
    with pytest.raises(AdapterError, match="has no bias in this backbone"):
        from_peft(state, config, spec_from_model(model, NAME), weights_from_model(model))


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("dinov2.encoder.layer.0.norm1", "token+avg"),
        ("beit.encoder.layer.0.layernorm_before", "avg"),
        ("vit.layernorm", "token"),
        ("norm", None),
    ],
)
def test_how_the_models_of_transformers_pool(read, name, pool):
    head = f"base_model.model.{name}.ln_tuning_layers"
    state = {f"{head}.{end}": np.ones(D) for end in ("weight", "bias")}
    assert read(state, peft_type="LN_TUNING", target_modules=[name]).pool == pool


def test_a_head_before_the_final_norm(read):
    """CLIP's classifier of transformers sees no norm."""
    head = "base_model.model.vision_model.post_layernorm.ln_tuning_layers"
    state = {f"{head}.{end}": np.ones(D) for end in ("weight", "bias")}
    state["base_model.model.classifier.weight"] = np.ones((3, D))
    with pytest.raises(AdapterError, match="reads the mean of tokens before the final norm"):
        read(state, peft_type="LN_TUNING", target_modules=["post_layernorm"])
