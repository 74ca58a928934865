"""Weights as they are published: the right value is the publishing library's own features."""

from __future__ import annotations

import collections
import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip(
    "transformers", reason="transformers publishes these weights (pip install vptkit[test])"
)

from safetensors.torch import save_file  # noqa: E402

from vptkit.checkpoints.proposed_backbone import named_backbone  # noqa: E402
from vptkit.errors import BackboneError  # noqa: E402
from vptkit.tune.backbone.published_model import with_norm_eps  # noqa: E402
from vptkit.tune.backbone.reference import features  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import load_backbone, preprocess_of  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
RATIO = {"mlp_ratio": 2.0}


def redrawn(model: Any) -> Any:
    """Every number at random, also those that a new model has at 0 or 1; small, so that eps shows."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        one = value.ndim == 1 and name.endswith("weight")
        value.data = 1 + 0.3 * noise if one else 0.05 * noise
    return model.eval()


def of(kind: str, **settings: Any) -> Any:
    config = {**SMALL, **settings}
    name = {"CLIPVisionModel": "CLIPVisionConfig", "SiglipVisionModel": "SiglipVisionConfig"}
    short = kind.removesuffix("ForImageClassification").removesuffix("Model")
    short = short.removesuffix("ForPreTraining").removesuffix("WithTeacher")
    made = getattr(transformers, name.get(kind, f"{short}Config"))(**config)
    return redrawn(getattr(transformers, kind)(made))


# as published → (backbone, its arguments, pooled features of the publisher)
def _last(model: Any, pixels: Any) -> Any:
    return model(pixel_values=pixels).last_hidden_state[:, 0]


def _inner(name: str) -> Any:
    return lambda model, pixels: _last(getattr(model, name), pixels)


def _mean(model: Any, pixels: Any) -> Any:
    return model.beit(pixel_values=pixels).pooler_output


def _pooled(model: Any, pixels: Any) -> Any:
    return model(pixel_values=pixels).pooler_output


def _mae(model: Any, pixels: Any) -> Any:
    order = torch.arange(16, dtype=torch.float32).expand(len(pixels), -1)
    model.config.mask_ratio = 0.0
    return model.vit(pixel_values=pixels, noise=order).last_hidden_state[:, 0]


VIT = "vit_base_patch16_224"
DINO, DINO_REG = "vit_base_patch14_dinov2", "vit_base_patch14_reg4_dinov2"
NO_RATIO = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
FORMATS = {
    "ViT": ("ViTModel", {}, _last, VIT, RATIO),
    "ViT with a classifier": (
        *("ViTForImageClassification", {"num_labels": 7}, _inner("vit"), VIT, RATIO),
    ),
    "ViT without biases": (
        *("ViTModel", {"qkv_bias": False}, _last, VIT, {**RATIO, "qkv_bias": False}),
    ),
    "DeiT": (
        *("DeiTForImageClassification", {}, _inner("deit")),
        *("deit_base_distilled_patch16_224", RATIO),
    ),
    "DINOv2": ("Dinov2Model", {"mlp_ratio": 2}, _last, DINO, RATIO),
    "DINOv2 with a classifier": (
        *("Dinov2ForImageClassification", {"mlp_ratio": 2}, _inner("dinov2"), DINO, RATIO),
    ),
    "DINOv2 with registers": (
        *("Dinov2WithRegistersModel", {"mlp_ratio": 2}, _last, DINO_REG, RATIO),
    ),
    "DINOv2 with SwiGLU": (
        *("Dinov2Model", {"use_swiglu_ffn": True}, _last),
        *("vit_giant_patch14_dinov2", {"mlp_ratio": 2 * 88 / 32}),
    ),
    "BEiT": (
        *("BeitForImageClassification", {"use_relative_position_bias": True}, _mean),
        *("beit_base_patch16_224", RATIO),
    ),
    "BEiT, shared positions": (
        "BeitForImageClassification",
        {"use_shared_relative_position_bias": True},
        _mean,
        "beit_base_patch16_224",
        {**RATIO, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    ),
    "CLIP": ("CLIPVisionModel", {}, _pooled, "vit_base_patch16_clip_224", RATIO),
    "SigLIP": ("SiglipVisionModel", {}, _pooled, "vit_base_patch16_siglip_224", RATIO),
    "MAE": (
        "ViTMAEForPreTraining",
        {
            "decoder_hidden_size": 16,
            "decoder_num_attention_heads": 2,
            "decoder_num_hidden_layers": 1,
            "decoder_intermediate_size": 16,
        },
        _mae,
        VIT,
        RATIO,
    ),
}


def pixels(size: int = 32) -> Any:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1)) * 0.02


def ours(loaded: Any, images: Any) -> Any:
    spec = spec_from_model(loaded.model)
    norm = "after_pool" if spec.final_norm == "fc_norm" else "before_pool"
    with torch.no_grad():
        return features(loaded.model, images, [], "none", spec.pool, norm)


def require_equal(found: Any, wanted: Any) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("generation", ["of the class", "of the file"])
def test_the_features_are_the_publishers(tmp_path, form, generation):
    """A folder, with the names of the class that is installed and with those that files keep."""
    kind, settings, feature, backbone, args = FORMATS[form]
    model = of(kind, **settings)
    if generation == "of the file":
        model.save_pretrained(tmp_path)
    else:
        save_file(
            {name: value.clone() for name, value in model.state_dict().items()},
            tmp_path / "model.safetensors",
        )
        model.config.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = feature(model, pixels())
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        loaded = load_backbone(backbone, {**TINY, **args}, weights)
        require_equal(ours(loaded, pixels()), wanted)
    again = load_backbone(backbone, loaded.args, tmp_path, follow=False)  # as an adapter says it
    require_equal(ours(again, pixels()), wanted)


# what no tensor tells --------------------------------------------------------------------------------


def test_the_epsilon_of_the_norms_is_followed_and_recorded(tmp_path, capsys):
    """1e-12 of transformers' ViT; timm's 1e-6 gives other answers where features are small."""
    of("ViTModel").save_pretrained(tmp_path)
    loaded = load_backbone(VIT, {**TINY, **RATIO}, tmp_path)
    assert loaded.args["norm_eps"] == 1e-12
    assert spec_from_model(loaded.model).norm_eps == 1e-12
    assert "an epsilon of 1e-12 in its norms" in capsys.readouterr().err
    other = load_backbone(VIT, {**TINY, **RATIO, "norm_eps": 1e-6}, tmp_path)
    wanted, found = ours(loaded, pixels()), ours(other, pixels())
    assert (found - wanted).abs().max() > 1e-5 * wanted.abs().max()


def test_an_epsilon_of_every_norm():
    model = with_norm_eps(timm.create_model(DINO, **TINY), {"norm_eps": 0.25})
    assert spec_from_model(model).norm_eps == 0.25


def test_the_epsilon_that_config_json_says_holds_before_the_familys(tmp_path):
    of("ViTModel", layer_norm_eps=1e-3).save_pretrained(tmp_path)
    assert load_backbone(VIT, {**TINY, **RATIO}, tmp_path).args["norm_eps"] == 1e-3


def test_a_file_alone_has_the_epsilon_of_its_family(tmp_path):
    """Called otherwise than the hub calls it, so that no document belongs to it."""
    of("ViTModel").save_pretrained(tmp_path)
    file = (tmp_path / "model.safetensors").rename(tmp_path / "mine.safetensors")
    (tmp_path / "config.json").write_text("no JSON")
    assert load_backbone(VIT, {**TINY, **RATIO}, file).args["norm_eps"] == 1e-12


def openai_names(model: Any) -> dict[str, Any]:
    """Of a vision tower as OpenAI's code names it."""
    found, parts = {}, {}
    for name, value in model.state_dict().items():
        short = name
        for theirs, openai in (
            ("embeddings.class_embedding", "class_embedding"),
            ("embeddings.patch_embedding", "conv1"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("pre_layrnorm", "ln_pre"),
            ("post_layernorm", "ln_post"),
            ("encoder.layers", "transformer.resblocks"),
            ("layer_norm", "ln_"),
            ("self_attn.out_proj", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            short = short.replace(theirs, openai)
        head, mark, rest = short.partition("self_attn.")
        if mark:
            parts.setdefault(f"{head}attn.in_proj_{rest.split('.')[1]}", {})[rest[0]] = value
        else:
            found[short] = value
    joined = {name: torch.cat([three[k] for k in "qkv"]) for name, three in parts.items()}
    return {f"visual.{name}": value for name, value in (found | joined).items()}


CLIP_ROWS = {
    "input_resolution": torch.tensor(32),
    "context_length": torch.tensor(77),
    "vocab_size": torch.tensor(99),
    "token_embedding.weight": torch.ones(9, 4),
    "transformer.resblocks.0.ln_1.weight": torch.ones(4),
}


@pytest.mark.parametrize(("beside", "activation"), [(CLIP_ROWS, "quick_gelu"), ({}, "gelu")])
def test_openai_clip(tmp_path, beside, activation):
    """OpenAI's own files have its GELU; OpenCLIP's under the same names usually have the plain one."""
    model = of("CLIPVisionModel", hidden_act=activation)
    torch.save({"state_dict": openai_names(model) | beside}, tmp_path / "clip.pt")
    with torch.no_grad():
        wanted = _pooled(model, pixels())
    loaded = load_backbone("vit_base_patch16_clip_224", {**TINY, **RATIO}, tmp_path / "clip.pt")
    require_equal(ours(loaded, pixels()), wanted)
    assert spec_from_model(loaded.model).activation == activation


def test_open_clip_says_which_gelu(tmp_path):
    model = of("CLIPVisionModel", hidden_act="quick_gelu")
    torch.save(openai_names(model), tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    with torch.no_grad():
        wanted = _pooled(model, pixels())
    loaded = load_backbone("vit_base_patch16_clip_224", {**TINY, **RATIO}, tmp_path)
    require_equal(ours(loaded, pixels()), wanted)


def test_a_fine_tuned_mae_pools_the_mean(tmp_path, capsys):
    """Its `fc_norm`, in the place of `norm`, is all that says so."""
    timms = timm.create_model(VIT, num_classes=7, global_pool="avg", **TINY, **RATIO).eval()
    redrawn(timms)
    torch.save({"model": timms.state_dict(), "epoch": 49}, tmp_path / "mae.pth")
    loaded = load_backbone(VIT, {**TINY, **RATIO}, tmp_path / "mae.pth")
    assert loaded.args["global_pool"] == "avg"
    with torch.no_grad():
        wanted = timms.forward_head(timms.forward_features(pixels()), pre_logits=True)
    require_equal(ours(loaded, pixels()), wanted)
    line = capsys.readouterr().err
    assert "under 'model', a classifier of 7 classes left out; followed: the pool avg" in line


# positions of another grid -----------------------------------------------------------------------------


def test_positions_are_resized_as_transformers_does(tmp_path):
    model = of("Dinov2Model", mlp_ratio=2)
    model.save_pretrained(tmp_path)
    args = {**TINY, **RATIO, "img_size": 56}
    with torch.no_grad():
        wanted = _last(model, pixels(56))
    loaded = load_backbone(DINO, args, tmp_path)
    require_equal(ours(loaded, pixels(56)), wanted)
    assert loaded.args["positions"] == "hf"
    assert loaded.origin["positions"] == "hf"
    again = load_backbone(DINO, loaded.args, tmp_path, follow=False)
    require_equal(ours(again, pixels(56)), wanted)
    for way in ("timm", "hub"):
        other = ours(load_backbone(DINO, {**args, "positions": way}, tmp_path), pixels(56))
        assert (other - wanted).abs().max() > 1e-5 * wanted.abs().max()


def hub_positions(weights: Any, size: int, registers: int) -> Any:
    """`interpolate_pos_encoding` of dinov2/models/vision_transformer.py, of patches of 8 pixels."""
    side, new = round((weights.shape[1] - 1) ** 0.5), size // 8
    grid = weights[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if registers:
        options: Any = {"size": (new, new), "antialias": True}
    else:
        factor = float(new + 0.1) / side
        options = {"scale_factor": (factor, factor), "antialias": False}
    found = torch.nn.functional.interpolate(grid, mode="bicubic", **options)
    return torch.cat([weights[:, :1], found.permute(0, 2, 3, 1).reshape(1, new * new, -1)], dim=1)


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("size", [24, 56])
def test_positions_are_resized_as_the_hub_does(tmp_path, registers, size):
    name = DINO_REG if registers else DINO
    timms = redrawn(timm.create_model(name, num_classes=0, **TINY, **RATIO))
    state = {k: v.clone() for k, v in timms.state_dict().items()}
    whole = torch.randn(1, 17, 32, generator=torch.Generator().manual_seed(3))
    state |= {"pos_embed": whole, "mask_token": torch.zeros(1, 32)}
    if registers:
        state["register_tokens"] = state.pop("reg_token")
    torch.save(state, tmp_path / "dinov2.pth")
    loaded = load_backbone(name, {**TINY, **RATIO, "img_size": size}, tmp_path / "dinov2.pth")
    wanted = hub_positions(whole, size, registers)
    found = loaded.model.pos_embed
    assert torch.allclose(found, wanted[:, 1:] if registers else wanted, atol=1e-6)
    first = state["cls_token"] + (whole[:, :1] if registers else 0)
    assert torch.allclose(loaded.model.cls_token, first, atol=1e-6)
    assert loaded.args["positions"] == "hub"


# folders ---------------------------------------------------------------------------------------------


def documents(folder: Any, **changes: Any) -> None:
    pixels = {
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.5, 0.5],
        "resample": 2,
        "size": {"height": 32, "width": 32},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels | changes))


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_names_its_backbone_and_its_pixels(tmp_path, form, capsys):
    kind, settings, feature, _, _ = FORMATS[form]
    model = of(kind, **settings)
    model.save_pretrained(tmp_path)
    documents(tmp_path)
    name, args = named_backbone(None, {}, tmp_path)
    loaded = load_backbone(name, args, tmp_path)
    with torch.no_grad():
        require_equal(ours(loaded, pixels()), feature(model, pixels()))
    found = preprocess_of(loaded.model)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 0.5))
    assert (found.interpolation, found.crop_pct, found.size) == ("bilinear", 1.0, (32, 32))
    line = capsys.readouterr().err
    assert f"backbone: {name}" in line
    assert "pixels with mean 0.5 0.5 0.5 and deviation 0.25 0.5 0.5" in line


@pytest.mark.parametrize("torch_files", [False, True], ids=["safetensors", "bin"])
def test_shards_by_their_index(tmp_path, torch_files):
    model = of("ViTModel")
    model.config.save_pretrained(tmp_path)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    stem, ending = ("pytorch_model", "bin") if torch_files else ("model", "safetensors")
    places = {}
    for number, names in enumerate(np.array_split(sorted(state), 3)):
        file = f"{stem}-{number + 1:05}-of-00003.{ending}"
        part = {str(name): state[name] for name in names}
        if torch_files:
            torch.save(collections.OrderedDict(part), tmp_path / file)
        else:
            save_file(part, tmp_path / file)
        places |= dict.fromkeys(map(str, names), file)
    index = tmp_path / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    with torch.no_grad():
        wanted = _last(model, pixels())
    require_equal(
        ours(load_backbone(*named_backbone(None, {}, tmp_path), tmp_path), pixels()), wanted
    )
    require_equal(ours(load_backbone(VIT, {**TINY, **RATIO}, index), pixels()), wanted)


def test_what_does_not_fit_is_refused_with_names_of_both_sides(tmp_path):
    state = dict(of("ViTModel").state_dict())
    state["layers.0.attention.z_proj.weight"] = state.pop("layers.0.attention.o_proj.weight")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError) as caught:
        load_backbone(VIT, {**TINY, **RATIO}, tmp_path / "w.safetensors")
    assert "missing blocks.0.attn.proj.weight, which the backbone has" in str(caught.value)
    assert "layers.0.attention.z_proj.weight" in str(caught.value)
