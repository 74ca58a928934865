"""What a stranger's file holds under vptkit's names, and checks that its layouts share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.errors import AdapterError, BackboneError
from vptkit.formats.backbone_weights import is_head

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vptkit.formats.pooling import Pool


__all__ = ["Foreign", "renamed", "require_same_backbone", "require_shape", "some"]

State = dict[str, "NDArray[Any]"]


@dataclass(slots=True)
class Foreign:
    """A file's content under vptkit's names.

    Attributes:
        method: "vpt", "bpt", "ln", "linear", or PEFT's name of a kind.
        insert: where prompts stand.
        prompt_length: m, 0 without prompts.
        tensors: `prompt.*`, `ln.*`, `delta.*` and `scale.*`, as in an adapter, float32.
        head: `weight` [C, d] and `bias` [C], as far as the file has them.
        frozen: the backbone's tensors under timm's names, as far as the file has them.
        pool: how the file's model pools, where the file tells.
        norm_eps: the epsilon of its norms, where the file's names tell whose model it is.
    """

    method: str
    insert: Literal["deep", "shallow", "none"] = "none"
    prompt_length: int = 0
    tensors: State = field(default_factory=dict)
    head: State = field(default_factory=dict)
    frozen: State = field(default_factory=dict)
    pool: Pool | None = None
    norm_eps: float | None = None


def require_same_backbone(foreign: Foreign, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """A file that holds the whole model holds this backbone, number by number.

    Raises:
        AdapterError: names that are missing or not known.
        BackboneError: other shapes or numbers.
    """
    frozen = foreign.frozen
    if not frozen:
        return
    replaced = {name[3:] for name in foreign.tensors if name.startswith("ln.")}
    ours = {name for name in weights if not is_head(name)} - replaced
    if unknown := sorted(set(frozen) - ours):
        raise AdapterError(f"names that this backbone does not have: {', '.join(unknown[:8])}")
    if missing := sorted(ours - set(frozen)):
        raise AdapterError(f"names of this backbone are missing: {', '.join(missing[:8])}")
    for name in sorted(ours):  # all shapes first: they tell another model or size
        if frozen[name].shape != weights[name].shape:
            raise BackboneError(
                f"{name} is {frozen[name].shape} in the file, {weights[name].shape} in the "
                "backbone: another model or image size. Pass --image-size as it was trained."
            )
    for name in sorted(ours):
        if not np.array_equal(frozen[name].astype(np.float32), weights[name]):
            raise BackboneError(
                f"{name} differs between the file and the backbone: the prompts were trained on "
                "other weights. Pass --weights with those."
            )


def renamed(name: str, table: Sequence[tuple[str, str]]) -> str:
    """The name that the first fitting pattern of a table makes of it, or itself."""
    for pattern, ours in table:
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return name


def require_shape(name: str, value: NDArray[Any], expected: tuple[int | None, ...]) -> None:
    """Refuse another shape, no numbers at all, or whole ones; None stands for any size but 0.

    Raises:
        AdapterError: it differs.
    """
    if value.dtype.kind != "f":
        raise AdapterError(f"{name} is of {value.dtype.name}, expected floating point")
    if not value.size:
        raise AdapterError(f"{name} has the shape {value.shape}, which holds no number")
    fits = value.ndim == len(expected) and all(
        n in (None, size) for n, size in zip(expected, value.shape, strict=True)
    )
    if not fits:
        shape = tuple("any" if n is None else n for n in expected)
        raise AdapterError(f"{name} has the shape {value.shape}, expected {shape}")


def missing_names(names: Sequence[str], layout: str, state: Mapping[str, Any]) -> AdapterError:
    return AdapterError(
        f"names of the layout {layout} are missing: {some(names)}; the file has "
        f"{some(sorted(state))}"
    )


def some(names: Sequence[str]) -> str:
    """The first names of a list, for a message."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
