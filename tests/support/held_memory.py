"""How much memory an object holds."""

from __future__ import annotations

import sys

import numpy as np


def held_bytes(found: object) -> int:
    """Bytes of an object and of what its attributes and containers hold; views cost nothing."""
    if isinstance(found, np.ndarray):
        return found.nbytes if found.base is None else 0
    size = sys.getsizeof(found)
    if isinstance(found, dict):
        return size + sum(held_bytes(one) for pair in found.items() for one in pair)
    if isinstance(found, list | tuple | set):
        return size + sum(map(held_bytes, found))
    return size + (held_bytes(vars(found)) if hasattr(found, "__dict__") else 0)
