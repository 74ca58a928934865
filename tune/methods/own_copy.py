"""A copy of a frozen backbone that shares all its tensors but those that are to be learned."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["own_copy"]


def own_copy(backbone: Any, own: Iterable[str] = ()) -> Any:
    """Modules of its own, on the same memory.

    Args:
        backbone: a timm model; not changed.
        own: names of the parameters that are copied, too.
    """
    kept = {id(backbone.get_parameter(name)) for name in own}
    shared = [*backbone.parameters(), *backbone.buffers()]
    return copy.deepcopy(backbone, {id(value): value for value in shared if id(value) not in kept})
