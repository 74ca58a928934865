"""An input size that somebody asks for is a whole number of patches: else its edge would not be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["require_whole_patches"]


def require_whole_patches(spec: BackboneSpec, args: Mapping[str, Any]) -> None:
    """Refuse a size that was asked for and is no multiple of the patch.

    Some models are such by themselves (SigLIP's of 384 pixels): they stay as their authors trained them.

    Args:
        spec: of the backbone, with its patches.
        args: of the backbone; nothing is asked without `img_size`.

    Raises:
        BackboneError: pixels at the edge would be in no patch; names the sizes below and above.
    """
    if "img_size" not in args:
        return
    for size, patch in zip(spec.image_size, spec.patch_size, strict=True):
        if size % patch:
            below = size // patch * patch
            sizes = " or ".join(str(one) for one in (below, below + patch) if one)
            raise BackboneError(f"image size: {size} is no multiple of the patch, {patch}: {sizes}")
