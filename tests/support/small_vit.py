"""A small ViT of 64 x 64 pixels whose engines are built."""

from __future__ import annotations

from tests.support.strategies import Setup

SMALL_VIT = Setup(
    image=(64, 64),
    depth=3,
    heads=2,
    mlp_ratio=4.0,
    registers=0,
    norm_pre=False,
    layer_scale=False,
    prompts=8,
    prompt_scale=0.3,
    tuned_norms=False,
)
