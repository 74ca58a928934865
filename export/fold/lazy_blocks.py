"""The one lazy thing in the fold: a network's blocks, folded one by one while a graph is written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .folded_network import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LazyBlocks"]


class LazyBlocks(Iterable[Block]):
    """Blocks 0 to L - 1 in order; each is folded when it is asked for, and not kept.

    All of them in float64 may not fit into the memory of a small board: a ViT-L has 24 blocks of
    12 d² numbers, 2.4 GB. The graph is written block by block, in one pass; going through the
    blocks again folds them again.
    """

    def __init__(self, fold_one: Callable[[int], Block], depth: int) -> None:
        self._fold_one, self._depth = fold_one, depth

    def __iter__(self) -> Iterator[Block]:
        return map(self._fold_one, range(self._depth))
