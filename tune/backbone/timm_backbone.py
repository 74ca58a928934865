"""A frozen backbone from timm: by name with its hub weights, or with a weights file."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.data.config import resolve_data_config

from vptkit.backbones.backbone_names import near_names
from vptkit.backbones.timm_arguments import (
    MOST_PARAMETERS,
    require_timm_arguments,
    require_timm_name,
)
from vptkit.backbones.weights_fit import other_model, why_not
from vptkit.backbones.weights_places import remember_weights, remembered_weights
from vptkit.errors import BackboneError
from vptkit.formats.adapter import require_backbone, with_spec
from vptkit.formats.backbone_weights import (
    digest_of_weights,
    is_head,
    read_backbone_tensors,
    weights_file,
)
from vptkit.images.preprocess import Preprocess

from .hub_weights import model_of_hub
from .patch_grid import require_whole_patches
from .spec_from_timm import spec_from_model, weights_from_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter, BackboneRef
    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["checked_weights", "create_backbone", "described_weights", "preprocess_of"]

# what timm and torch raise for arguments that do not go together
_UNBUILDABLE = (
    *(TypeError, AssertionError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, RuntimeError, MemoryError),
)


def create_backbone(name: str, args: Mapping[str, Any], weights: Path | None) -> Any:
    """A timm model without classifier, in evaluation mode, every parameter frozen.

    Args:
        name: timm model name.
        args: keyword arguments of `timm.create_model` that describe the architecture, e.g.
            {"img_size": 112}; see `vptkit.backbones.timm_arguments`.
        weights: a safetensors file in timm's names (or a form that timm converts, such as another
            position grid); None fetches timm's own weights of this name from the hub.

    Raises:
        BackboneError: unknown name, unusable arguments, a size that is no whole number of patches, a
            feature that is not supported, no network, or a file that does not fit.
    """
    args = dict(args)
    _require_name(name)
    require_timm_arguments(args)
    weights = None if weights is None else weights_file(weights)
    model = _blueprint(name, args)
    spec = spec_from_model(model, name)  # an unknown feature is named before anything is loaded
    require_whole_patches(spec, args)
    if weights is None:
        _require_parameters(model, name, None)
        model = model_of_hub(name, args)
    else:
        state = _state(weights)
        _require_model(model, state, weights, patch="patch_size" not in args)
        _require_parameters(model, name, weights)
        model = _built(name, args)
        _load(model, state, weights)
    return model.eval().requires_grad_(requires_grad=False)


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
        return timm.create_model(name, pretrained=False, num_classes=0, **args)
    except _UNBUILDABLE as error:
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


def _require_parameters(model: Any, name: str, weights: Path | None) -> None:
    """Refuse what is larger than any ViT, or than the file that it is to be filled from."""
    parameters = sum(value.numel() for value in (*model.parameters(), *model.buffers()))
    if parameters > MOST_PARAMETERS:
        raise BackboneError(
            f"{name}: {parameters:.2g} numbers with these arguments; the most is "
            f"{MOST_PARAMETERS:.2g}"
        )
    # only positions may be fewer in the file; a number takes two bytes at least
    blocks = sum(value.numel() for value in model.blocks.parameters())
    if weights is not None and weights.is_file() and weights.stat().st_size < 2 * blocks:
        raise BackboneError(
            f"{weights}: not the weights of this model: {weights.stat().st_size} bytes for "
            f"{blocks} numbers"
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
    model = create_backbone(reference.name, reference.args, weights)
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


State = dict[str, torch.Tensor]


def _state(path: Path) -> State:
    # a copy: the file's bytes are read-only memory
    tensors = read_backbone_tensors(path).items()
    return {key: torch.from_numpy(value.astype("float32")) for key, value in tensors}


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items() if not is_head(key)}


def _require_model(model: Any, state: State, path: Path, *, patch: bool) -> None:
    """Refuse weights of another width, depth or patch, before timm resamples or complains."""
    reason = other_model(_shapes(state), _shapes(model.state_dict()), patch=patch)
    if reason is not None:
        raise BackboneError(f"{path}: {reason}")


def _load(model: Any, state: State, path: Path) -> None:
    expected, given = _shapes(model.state_dict()), _shapes(state)
    if given != expected:
        state = _converted(model, state, path)
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise BackboneError(f"{path}: {broken[0]} holds NaN or Inf; the file is damaged")
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BackboneError(f"{path}: {why_not(_shapes(state), expected)}") from error
    missing = [key for key in result.missing_keys if not is_head(key)]
    if missing or result.unexpected_keys:
        reason = why_not(_shapes(state), expected)
        foreign = why_not(given, expected)  # timm may have renamed a part of what was there
        raise BackboneError(f"{path}: {foreign if 'names' in foreign else reason}")


def _converted(model: Any, state: State, path: Path) -> State:
    """Timm's own conversion of foreign names and position grids, of the model's architecture."""
    module = inspect.getmodule(type(model))
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted = convert(state, model)
    except _UNBUILDABLE as error:  # torch's own words are of no use to whoever named the file
        reason = why_not(_shapes(state), _shapes(model.state_dict()))
        raise BackboneError(f"{path}: timm cannot convert these weights: {reason}") from error
    return {key: value for key, value in converted.items() if not is_head(key)}
