"""A folder's documents: which backbone, which pixels; what they must not say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from vptkit.checkpoints.snapshot import Pixels, read_open_clip, read_snapshot
from vptkit.errors import BackboneError

if TYPE_CHECKING:
    from pathlib import Path


def folder(path: Path, config: Any, preprocessor: Any = None) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    if preprocessor is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return path


def vit(**changes: Any) -> dict[str, Any]:
    return {"model_type": "vit", **changes}


SMALL = {
    "hidden_size": 384,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}


@pytest.mark.parametrize(
    ("config", "name", "args"),
    [
        (vit(), "vit_base_patch16_224", {}),  # what config.json leaves out is transformers' default
        (vit(image_size=384), "vit_base_patch16_384", {}),
        (vit(image_size=256), "vit_base_patch16_224", {"img_size": 256}),
        (vit(**LARGE, patch_size=32, image_size=384), "vit_large_patch32_384", {}),
        (vit(qkv_bias=False), "vit_base_patch16_224", {"qkv_bias": False}),
        ({"model_type": "vit_mae", **LARGE}, "vit_large_patch16_224", {}),
        ({"model_type": "deit", **SMALL}, "deit_small_distilled_patch16_224", {}),
        (
            {"model_type": "dinov2", **SMALL, "image_size": 518, "mlp_ratio": 4},
            *("vit_small_patch14_dinov2", {}),
        ),
        (
            {"model_type": "dinov2_with_registers", "image_size": 518, "patch_size": 14},
            *("vit_base_patch14_reg4_dinov2", {}),
        ),
        (
            {
                "model_type": "dinov2",
                "hidden_size": 1536,
                "num_hidden_layers": 40,
                "num_attention_heads": 24,
                "image_size": 518,
                "use_swiglu_ffn": True,
            },
            *("vit_giant_patch14_dinov2", {}),
        ),
        (
            {"model_type": "beit", "use_relative_position_bias": True},
            *("beit_base_patch16_224", {}),
        ),
        ({"model_type": "clip", "vision_config": {}}, "vit_base_patch32_clip_224", {}),
        (
            {"model_type": "clip_vision_model", **LARGE, "patch_size": 14, "image_size": 336},
            *("vit_large_patch14_clip_336", {}),
        ),
        ({"model_type": "siglip", "vision_config": {}}, "vit_base_patch16_siglip_224", {}),
        (
            {"architecture": "vit_small_patch16_224", "pretrained_cfg": {}},
            *("vit_small_patch16_224", {}),
        ),
        (
            {"architecture": "vit_tiny_patch16_224", "model_args": {"img_size": 112}},
            *("vit_tiny_patch16_224", {"img_size": 112}),
        ),
    ],
)
def test_the_backbone(tmp_path, config, name, args):
    found = read_snapshot(folder(tmp_path, config))
    assert (found.backbone, found.args) == (name, args)


def test_dinov2_is_seen_at_the_size_of_its_images(tmp_path):
    """Its positions go with any size, and transformers cuts out 224 pixels."""
    config = {"model_type": "dinov2", "image_size": 518}
    images = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    images |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    found = read_snapshot(folder(tmp_path, config, {**images, "resample": 3}))
    assert found.args == {"img_size": 224}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert found.pixels == Pixels(mean, std, "bicubic", 224 / 256, (224, 224))


def test_pixels_of_timm(tmp_path):
    own = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.9}
    own |= {"interpolation": "bilinear", "input_size": [3, 384, 384]}
    config = {"architecture": "vit_small_patch16_224", "pretrained_cfg": own}
    found = read_snapshot(folder(tmp_path, config))
    assert found.pixels == Pixels((0.5,) * 3, (0.5,) * 3, "bilinear", 0.9, (384, 384))
    assert found.args == {"img_size": [384, 384]}


@pytest.mark.parametrize(("quick", "activation"), [(True, "quick_gelu"), (None, "gelu")])
def test_open_clip(tmp_path, quick, activation):
    config = {"model_cfg": {"quick_gelu": quick}, "preprocess_cfg": {"mean": [0.5] * 3}}
    config["preprocess_cfg"]["std"] = [0.25] * 3
    assert read_open_clip(tmp_path) is None
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    found = read_open_clip(tmp_path)
    assert found.activation == activation
    assert found.pixels == Pixels((0.5,) * 3, (0.25,) * 3, "bicubic", 1.0, None)


def test_what_is_not_known_says_nothing(tmp_path):
    assert read_snapshot(tmp_path) is None
    assert read_snapshot(folder(tmp_path, {"model_type": "swin"})) is None
    assert read_snapshot(folder(tmp_path, vit(), {"resample": 2})).pixels is None


@pytest.mark.parametrize(
    ("config", "preprocessor", "words"),
    [
        (vit(hidden_size=10**9), None, "hidden_size"),
        (vit(hidden_size="768"), None, "hidden_size"),
        (vit(image_size=[224, 224]), None, "image_size"),
        (vit(layer_norm_eps=-1), None, "layer_norm_eps"),
        (vit(hidden_act="os.system"), None, "hidden_act is 'os.system', expected one of gelu"),
        (vit(num_hidden_layers=8000, hidden_size=8000), None, "depth is 8000"),
        (vit(num_hidden_layers=256, hidden_size=8192), None, "the most is 1e"),
        ({"architecture": "hf-hub:somebody/evil"}, None, "Repositories, folders and URLs"),
        (
            {"architecture": "vit_tiny_patch16_224", "model_args": {"checkpoint_path": "x"}},
            None,
            "no",
        ),
        (vit(), {"do_rescale": False}, "not scaled to 0..1"),
        (vit(), {"rescale_factor": "1"}, "rescale_factor"),
        (vit(), {"image_mean": [0.5], "image_std": [0.5]}, "image_mean"),
        (vit(), {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 5}, "resample is 5"),
    ],
)
def test_what_a_stranger_says(tmp_path, config, preprocessor, words):
    with pytest.raises(BackboneError, match=words) as caught:
        read_snapshot(folder(tmp_path, config, preprocessor))
    assert "config.json" in str(caught.value)


def test_documents_stay_in_their_folder(tmp_path):
    (tmp_path / "elsewhere.json").write_text(json.dumps(vit()))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BackboneError, match="expected it in"):
        read_snapshot(tmp_path / "here")


def test_the_hubs_cache_is_all_links(tmp_path):
    """snapshots/REVISION/config.json → ../../blobs/DIGEST, and nowhere else."""
    place = tmp_path / "models--google--vit" / "snapshots" / "abc"
    blobs = tmp_path / "models--google--vit" / "blobs"
    place.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "0123").write_text(json.dumps(vit()))
    (place / "config.json").symlink_to("../../blobs/0123")
    assert read_snapshot(place).backbone == "vit_base_patch16_224"
    (place / "config.json").unlink()
    (tmp_path / "secret.json").write_text(json.dumps(vit()))
    (place / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BackboneError, match="expected it in"):
        read_snapshot(place)
