"""Tiny models of transformers and timm, adapters that PEFT puts on them, and their answers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.support.timms import create_model  # noqa: E402
from vptkit.checkpoints.hugging_face_names import timm_tensor  # noqa: E402
from vptkit.images.preprocess import normalize  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
TIMM_NAMES = {"vit": "vit_tiny_patch16_224", "dinov2": "vit_small_patch14_dinov2"}
TIMM_NAMES |= {"timm": TIMM_NAMES["vit"]}
CLASSES = 3
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": CLASSES,
}
# what a kind is put on: names in the ViT and the DINOv2 of transformers 5 and in timm's ViT
QV = {"vit": ["q_proj", "v_proj"], "dinov2": ["q_proj", "v_proj"], "timm": ["qkv"]}
MLP = {"vit": ["fc1", "fc2"], "dinov2": ["fc1", "fc2"], "timm": ["fc1", "fc2"]}
PATCH = {"vit": "projection", "dinov2": "projection", "timm": "patch_embed.proj"}
HEADS = {"vit": "classifier", "dinov2": "classifier", "timm": "head"}


def randomized(model: Any, seed: int = 0) -> Any:
    """Every parameter random, none of them a zero or a one by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            norm = "norm" in name and name.endswith("weight")
            value.copy_(1 + 0.3 * noise if norm else 0.2 * noise)
    return model.eval()


def make_base(kind: str) -> Any:
    """A tiny classifier: "vit" or "dinov2" of transformers, or "timm"."""
    if kind == "timm":
        return randomized(create_model(TIMM_NAMES[kind], num_classes=CLASSES, **SIZES))
    transformers = pytest.importorskip("transformers")
    if kind == "vit":
        config = transformers.ViTConfig(intermediate_size=128, **SHAPE)
        return randomized(transformers.ViTForImageClassification(config))
    config = transformers.Dinov2Config(mlp_ratio=4, **SHAPE)
    return randomized(transformers.Dinov2ForImageClassification(config))


def timm_state(base: Any) -> dict[str, Any]:
    """A model's tensors under timm's names, without its classifier."""
    found: dict[str, dict[int, Any]] = {}
    for name, value in base.state_dict().items():
        if not hasattr(base, "config"):
            found[name] = {0: value}
        elif (part := timm_tensor(name)) is not None:
            found.setdefault(part.name, {})[part.index] = value
    joined = {name: torch.cat([parts[i] for i in sorted(parts)]) for name, parts in found.items()}
    return {k: v.clone() for k, v in joined.items() if not k.startswith("head")}


def adapted(base: Any, config: Any, seed: int = 5) -> Any:
    """A PEFT model with this adapter, all that is trained random; the base as it was."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.requires_grad:
                continue
            noise = torch.randn(value.shape, generator=generator)
            scale = 0.02 if value.ndim > 2 or "boft" in name or "oft_R" in name else 0.2
            value.add_(scale * noise)
    return model


def saved(model: Any, folder: Path) -> Path:
    """The folder that `save_pretrained` writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return folder


def answers(model: Any, pixels: Any) -> Any:
    """Logits of a model of transformers or timm, float32 [B, C]."""
    with torch.no_grad():
        out = model(pixels)
    return getattr(out, "logits", out)


def require_close(found: Any, expected: Any) -> None:
    """Equal to 1e-5 of the largest logit."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def pixels_of(adapter: Any) -> Any:
    """The golden images of an adapter as its models take them, float32 [B, 3, H, W]."""
    return torch.from_numpy(normalize(adapter.golden()[0], adapter.preprocess))
