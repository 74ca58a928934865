"""Weights as they are published: the right value is the publishing library's own features."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip(
    "transformers", reason="transformers publishes these weights (pip install vptkit[test])"
)

from safetensors.torch import save_file  # noqa: E402

from vptkit.tune.backbone.reference import features  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import load_backbone  # noqa: E402

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
