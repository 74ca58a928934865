"""A frozen backbone from timm: by name with its hub weights, or with a weights file."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import timm
import torch
from timm.data.config import resolve_data_config

from vptkit.backbones.backbone_names import near_names
from vptkit.backbones.timm_arguments import (
    MOST_PARAMETERS,
    of_timm,
    require_timm_arguments,
    require_timm_name,
)
from vptkit.backbones.weights_fit import other_model
from vptkit.backbones.weights_places import remember_weights, remembered_weights
from vptkit.checkpoints.read_weights import read_published
from vptkit.checkpoints.weights_files import weights_file
from vptkit.errors import BackboneError
from vptkit.formats.adapter import require_backbone, with_spec
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.images.preprocess import Preprocess
from vptkit.paths.path_advice import advised
from vptkit.shown_text import tell_once

from .filled_model import UNBUILDABLE, fill, shapes_of
from .hub_weights import model_of_hub, weights_origin
from .published_model import followed, line_of, take_pixels, way_of_positions, with_norm_eps
from .spec_from_timm import spec_from_model, weights_from_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter, BackboneRef
    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = [
    "Loaded",
    "checked_weights",
    "create_backbone",
    "described_weights",
    "load_backbone",
    "preprocess_of",
    "require_whole_patches",
]


class Loaded(NamedTuple):
    """A backbone, and what was decided while it was loaded.

    Attributes:
        model: of timm, without classifier, in evaluation mode, every parameter frozen.
        args: those that were asked for, and what its weights' publisher does otherwise than timm
            (`published_model.followed`): with these an adapter's backbone is the same again.
        origin: of the weights, for an adapter's notes (no path, that is private).
    """

    model: Any
    args: dict[str, Any]
    origin: dict[str, Any]


def create_backbone(name: str, args: Mapping[str, Any], weights: Path | None) -> Any:
    """The model of `load_backbone`."""
    return load_backbone(name, args, weights).model


def load_backbone(
    name: str, args: Mapping[str, Any], weights: Path | None, *, follow: bool = True
) -> Loaded:
    """A timm model by its name, with weights from timm's hub or from anybody's file.

    Args:
        name: timm model name.
        args: keyword arguments of `timm.create_model` that describe the architecture, e.g.
            {"img_size": 112}; see `vptkit.backbones.timm_arguments`.
        weights: a file or a folder in any form that `vptkit.checkpoints` reads; None fetches timm's
            own weights of this name from the hub.
        follow: take from the weights' publisher what timm does otherwise; not for an adapter, whose
            arguments are complete.

    Raises:
        BackboneError: unknown name, unusable arguments, a size that is no whole number of patches, a
            feature that is not supported, no network, or a file that does not fit.
    """
    args = dict(args)
    _require_name(name)
    require_timm_arguments(args)
    if weights is not None:
        with advised(weights, "weights", BackboneError):
            weights_file(weights)  # it is there: before timm is asked, which takes its time
    model = _blueprint(name, args)
    spec = spec_from_model(model, name)  # an unknown feature is named before anything is loaded
    require_whole_patches(spec, args)
    if weights is None:
        _require_parameters(model, name)
        model = with_norm_eps(model_of_hub(name, of_timm(args)), args)
        return Loaded(_frozen(model), args, weights_origin(name, None))
    published = read_published(weights)
    more = followed(published, model, spec, args) if follow else {}
    if more:
        args |= more
        model = _blueprint(name, args)
        spec_from_model(model, name)
    state = {
        name: torch.from_numpy(value.astype("float32")) for name, value in published.arrays.items()
    }
    _require_model(model, state, weights, patch="patch_size" not in args)
    _require_parameters(model, name)
    _require_numbers(model, state, weights)
    model = _built(name, args)
    args |= fill(model, state, weights, way_of_positions(published, args, follow=follow))
    if published.snapshot is not None and published.snapshot.pixels is not None:
        take_pixels(model, published.snapshot.pixels)
    if not published.plain or more:
        tell_once(line_of(published, more, args), published.file.absolute())
    origin = weights_origin(name, weights) | published.noted() | _positions_of(args)
    return Loaded(_frozen(model), args, origin)


def _frozen(model: Any) -> Any:
    return model.eval().requires_grad_(requires_grad=False)


def _positions_of(args: Mapping[str, Any]) -> dict[str, str]:
    return {"positions": args["positions"]} if "positions" in args else {}


def _require_name(name: str) -> None:
    """Refuse what timm has no model for, and name those that are meant.

    Raises:
        BackboneError: the name is not known; with those that export and fit its words.
    """
    try:
        require_timm_name(name)
        reason = "" if timm.is_model(name) else f"{name}: timm has no model of this name."
    except BackboneError as error:
        reason = str(error)
    if reason:
        near = near_names(str(name))
        meant = f" Did you mean {', '.join(near)}?" if near else ""
        raise BackboneError(f"{reason}{meant} vptkit backbones lists all that export.")


def _built(name: str, args: Mapping[str, Any]) -> Any:
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **of_timm(args))
        return with_norm_eps(model, args)
    except UNBUILDABLE as error:
        raise BackboneError(f"{name}: timm cannot build it with {dict(args)}: {error}") from error


def _blueprint(name: str, args: Mapping[str, Any]) -> Any:
    """The model without memory for its numbers; an older timm's, which needs some, with them."""
    try:
        with torch.device("meta"):
            return _built(name, args)
    except BackboneError as error:
        if "meta tensors" not in str(error):
            raise
    return _built(name, args)


def _require_parameters(model: Any, name: str) -> None:
    """Refuse what is larger than any ViT."""
    parameters = sum(value.numel() for value in (*model.parameters(), *model.buffers()))
    if parameters > MOST_PARAMETERS:
        raise BackboneError(
            f"{name}: {parameters:.2g} numbers with these arguments; the most is "
            f"{MOST_PARAMETERS:.2g}"
        )


def _require_numbers(model: Any, state: Mapping[str, torch.Tensor], weights: Path) -> None:
    """Refuse weights of fewer numbers than the blocks have, before these take memory."""
    blocks = sum(value.numel() for value in model.blocks.parameters())
    given = sum(value.numel() for value in state.values())
    if given < blocks:
        raise BackboneError(
            f"{weights}: not the weights of this model: {given} numbers for {blocks}"
        )


def checked_weights(
    adapter: Adapter, weights: Path | None
) -> tuple[Any, dict[str, NDArray[np.float32]]]:
    """The backbone an adapter names, and its tensors, with the digest compared.

    Args:
        adapter: names backbone and digest.
        weights: their file; None takes the file that this user's cache remembers for the digest, or
            asks timm's hub.

    Raises:
        BackboneError: it cannot be built, or its digest is not the adapter's.
    """
    known = None if weights is not None else remembered_weights(adapter.backbone.sha256)
    if known is not None:
        with contextlib.suppress(BackboneError):  # a hint: the file may be another by now
            return _checked(adapter.backbone, known)
    try:
        return _checked(adapter.backbone, weights)
    except BackboneError as error:
        origin = adapter.weights_origin()
        if weights is not None or origin is None:
            raise
        raise BackboneError(f"{error}. The adapter was tuned with {origin}") from error


def _checked(
    reference: BackboneRef, weights: Path | None
) -> tuple[Any, dict[str, NDArray[np.float32]]]:
    model = load_backbone(reference.name, reference.args, weights, follow=False).model
    tensors = weights_from_model(model)
    digest = digest_of_weights(tensors)
    require_backbone(reference, digest, weights or reference.name)
    if weights is not None:
        remember_weights(digest, weights_file(weights))
    return model, tensors


def described_weights(
    adapter: Adapter, weights: Path | None
) -> tuple[BackboneSpec, dict[str, NDArray[np.float32]]]:
    """Spec and tensors of an adapter's backbone, by way of timm; for `vptkit.export`.

    Raises:
        AdapterError: the adapter does not fit it.
        BackboneError: timm cannot build it, it is not supported, or its digest differs.
    """
    model, tensors = checked_weights(adapter, weights)
    spec = spec_from_model(model, adapter.backbone.name)
    with_spec(adapter, spec)
    return spec, tensors


def preprocess_of(model: Any) -> Preprocess:
    """Timm's evaluation preprocessing of a model, at the size it was built for."""
    config = resolve_data_config({}, model=model)
    height, width = spec_from_model(model).image_size
    return Preprocess(
        input_size=(3, height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
    )


def _require_model(
    model: Any, state: Mapping[str, torch.Tensor], path: Path, *, patch: bool
) -> None:
    """Refuse weights of another width, depth or patch, before timm resamples or complains."""
    reason = other_model(shapes_of(state), shapes_of(model.state_dict()), patch=patch)
    if reason is not None:
        raise BackboneError(f"{path}: {reason}")


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
