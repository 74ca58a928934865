"""What an adapter's head looks at: the pools by name, and how many numbers each gives it."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["POOLS", "Pool", "head_inputs", "reads_class_token"]

Pool = Literal["token", "avg", "token+avg", "avg_prompts", "map"]
POOLS: tuple[str, ...] = get_args(Pool)
_BOTH = "token+avg"  # side by side, as DINOv2's linear heads take them (dinov2/hub/classifiers.py)


def head_inputs(pool: str, width: int) -> int:
    """How many numbers a head takes: 2 d of class token beside mean patch, d of any other pool.

    Args:
        pool: of the adapter.
        width: d of the backbone.
    """
    return 2 * width if pool == _BOTH else width


def reads_class_token(pool: str) -> bool:
    """Whether the pool needs a backbone that has a class token."""
    return pool in ("token", _BOTH)
