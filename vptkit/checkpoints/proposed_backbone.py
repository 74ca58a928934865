"""The backbone of weights that come with documents, for whoever names none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.backbones.backbone_table import backbones_of
from vptkit.backbones.stored_tensor import shapes_of
from vptkit.backbones.weights_fit import geometry_of
from vptkit.errors import BackboneError
from vptkit.paths.path_advice import advised
from vptkit.shown_text import tell_once

from .read_weights import documents_beside, opened_published
from .weights_files import weights_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["named_backbone"]


def named_backbone(
    backbone: str | None, args: Mapping[str, Any], weights: Path | None
) -> tuple[str, dict[str, Any]]:
    """The backbone that is meant, and its arguments.

    Args:
        backbone: its name, if the user gave one: then all is as it was given.
        args: that the user gave; they hold before what the documents say.
        weights: a folder with a config.json, of transformers or of timm, or a file in one.

    Raises:
        BackboneError: nothing names it; with the backbones that the tensors may be of.
    """
    if backbone is not None:
        return backbone, dict(args)
    if weights is None:
        raise BackboneError("no backbone: pass --backbone NAME, a timm model name")
    with advised(weights, "weights", BackboneError):
        file = weights_file(weights)
    snapshot = documents_beside(weights, file)
    if snapshot is None or snapshot.backbone is None:
        raise BackboneError(f"{weights}: no backbone: pass --backbone NAME{_candidates(weights)}")
    found = {**snapshot.args, **args}
    words = "".join(f", {name} {value}" for name, value in found.items())
    tell_once(
        f"backbone: {snapshot.backbone}{words}, as {file.parent.name}/config.json says; "
        "--backbone takes another",
        file.absolute(),
    )
    return snapshot.backbone, found


def _candidates(weights: Path) -> str:
    """As ": those of vit_tiny_patch16_224?", by width, depth and patches."""
    with opened_published(weights) as published:
        found = geometry_of(shapes_of(published.arrays))
    if found is None:
        return ", a timm model name (no config.json that is known lies beside it)"
    names = backbones_of(**found._asdict())[:4]
    return f", as {' or '.join(names)}" if names else ", a timm model name"
