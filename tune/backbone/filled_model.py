"""A timm model filled from tensors in its names, or in names and grids that timm converts."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from vptkit.backbones.weights_fit import why_not
from vptkit.errors import BackboneError
from vptkit.formats.backbone_weights import is_head

from .positions import resized

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["UNBUILDABLE", "State", "fill", "shapes_of"]

# what timm and torch raise for arguments or tensors that do not go together
UNBUILDABLE = (
    *(TypeError, AssertionError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, RuntimeError, MemoryError),
)
_POSITIONS = "pos_embed"
State = dict[str, torch.Tensor]


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Name → shape, the classifier left out."""
    return {key: tuple(value.shape) for key, value in state.items() if not is_head(key)}


def fill(model: Any, state: State, path: Path, positions: str) -> dict[str, str]:
    """Put tensors into a model; all that it has, and nothing else.

    Args:
        model: of timm.
        state: name → numbers, float32.
        path: where they are from, for messages.
        positions: whose way of resizing positions is taken if the grid is another: "timm", "hf", "hub".

    Returns:
        The argument that repeats it: {"positions": …} where another way than timm's was taken.

    Raises:
        BackboneError: tensors are missing, unknown or of another shape, or hold NaN.
    """
    expected, given = shapes_of(model.state_dict()), shapes_of(state)
    taken = {}
    if given.get(_POSITIONS) != expected.get(_POSITIONS) and positions != "timm":
        other = resized(state, model, positions)
        if other is not None:
            state = {**state, _POSITIONS: other}
            taken = {"positions": positions}
    if shapes_of(state) != expected:
        state = _converted(model, state, path)
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise BackboneError(f"{path}: {broken[0]} holds NaN or Inf; the file is damaged")
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BackboneError(f"{path}: {why_not(shapes_of(state), expected)}") from error
    missing = [key for key in result.missing_keys if not is_head(key)]
    if missing or result.unexpected_keys:
        reason = why_not(shapes_of(state), expected)
        foreign = why_not(given, expected)  # timm may have renamed a part of what was there
        raise BackboneError(f"{path}: {foreign if 'names' in foreign else reason}")
    return taken


def _converted(model: Any, state: State, path: Path) -> State:
    """Timm's own conversion of foreign names and position grids, of the model's architecture."""
    module = inspect.getmodule(type(model))
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted = convert(dict(state), model)
    except UNBUILDABLE as error:  # torch's own words are of no use to whoever named the file
        reason = why_not(shapes_of(state), shapes_of(model.state_dict()))
        raise BackboneError(f"{path}: timm cannot convert these weights: {reason}") from error
    return {key: value for key, value in converted.items() if not is_head(key)}
