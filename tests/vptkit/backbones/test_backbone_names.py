"""Names as people write them lead to timm's."""

from __future__ import annotations

import pytest

from vptkit.backbones.backbone_names import matching, near_names
from vptkit.backbones.backbone_table import all_backbones


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ViT-B/16", "vit_base_patch16_224"),
        ("ViT-L-14", "vit_large_patch14_dinov2"),
        ("vitb16", "vit_base_patch16_224"),
        ("vit_b_16", "vit_base_patch16_224"),
        ("google/vit-base-patch16-224", "vit_base_patch16_224"),
        ("google/vit-base-patch16-224-in21k", "vit_base_patch16_224"),
        ("facebook/dinov2-small", "vit_small_patch14_dinov2"),
        ("facebook/dinov2-with-registers-base", "vit_base_patch14_reg4_dinov2"),
        ("dinov2_vits14", "vit_small_patch14_dinov2"),
        ("dinov2", "vit_small_patch14_dinov2"),
        ("DINOv3", "vit_small_patch16_dinov3"),
        ("facebook/dino-vits16", "vit_small_patch16_224.dino"),
        ("facebook/vit-mae-base", "vit_base_patch16_224.mae"),
        ("vit_small", "vit_small_patch16_224"),
        ("deit tiny", "deit_tiny_patch16_224"),
        ("openai/clip-vit-base-patch32", "vit_base_patch32_clip_224.openai"),
        ("siglip", "vit_base_patch16_siglip_224"),
        ("google/siglip2-base-patch16-224", "vit_base_patch16_siglip_224"),
        ("microsoft/beit-base-patch16-224", "beit_base_patch16_224"),
        ("vit_smal_patch16_224", "vit_small_patch16_224"),
        ("hf-hub:timm/vit_tiny_patch16_224", "vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224"),
    ],
)
def test_the_first_suggestion_is_what_is_meant(typed, meant):
    assert near_names(typed)[0] == meant


def test_clip_is_among_those_of_clip():
    assert all("clip" in name for name in near_names("clip"))


@pytest.mark.parametrize("typed", ["resnet50", "xyzzy", "", "/", "a" * 5000])
def test_what_means_nothing_leads_nowhere(typed):
    assert near_names(typed) == [] or typed == ""


def test_no_word_means_all():
    assert len(matching("")) == len(all_backbones())
    assert matching("resnet50") == []


def test_every_name_finds_itself():
    assert all(near_names(one.name, 1) == [one.name] for one in all_backbones()[::9])
