"""The spec of a plain ViT of any size, which exists on paper only."""

from __future__ import annotations

from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["plain_vit"]


def plain_vit(
    image: tuple[int, int], patch: int, *, width: int, depth: int, heads: int
) -> BackboneSpec:
    """As timm's `vit_*`: a class token, exact GELU, MLPs of four times the width, no LayerScale."""
    return BackboneSpec(
        image_size=image,
        patch_size=(patch, patch),
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=4 * width,
        activation="gelu",
        qkv_bias=True,
        proj_bias=True,
        patch_bias=True,
        norm_eps=1e-6,
        class_token=True,
        dist_token=False,
        registers=0,
        pos_embed="all",
        norm_pre=False,
        layer_scale=False,
        final_norm="norm",
        pool="token",
    )
