"""Token merging in the folded graph: static shapes, operators of opset 17 that TensorRT 8.6 parses.

What is computed is defined in `vptkit.tune.backbone.token_merging`. Here a TopK chooses, a GatherND
moves rows, and a product with a one-hot matrix stands for the scatter: it holds the shares by which
a merged token is the mean of its parts, so that no sum is larger than its terms (fp16).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vptkit.backbones.merge_schedule import ROTARY_STEPS

from .onnx_builder import INT64

if TYPE_CHECKING:
    from vptkit.backbones.merge_schedule import TokenMerging
    from vptkit.export.fold.block_tensors import Array

    from .onnx_builder import Builder

__all__ = ["TokenMerger"]

_SHORTEST = 1e-12  # a key is taken to be at least this long, as torch.nn.functional.normalize does


class TokenMerger:
    """Merges tokens block by block, and knows how many are left.

    Attributes:
        tokens: T of the block that is being written, protected ones included, prompts not.
        sizes: name of [B, T, 1], how many patches each token stands for; None while all are 1.
        carried: name of [B, T, n], numbers of each token that are merged as it is (its rotation:
            `rotation_writer`), or None.
    """

    def __init__(self, b: Builder, tokens: int, protected: int, merging: TokenMerging) -> None:
        """Start before block 0.

        Args:
            b: writes the nodes.
            tokens: of the image, with those before the patches.
            protected: how many stand before the patches.
            merging: how many are merged in each block, and how attention sees it.
        """
        self.b, self.tokens, self.protected, self.merging = b, tokens, protected, merging
        self.sizes: str | None = None
        self.carried: str | None = None

    def merges(self, i: int) -> bool:
        """Whether block i merges tokens."""
        return self.merging.schedule[i] > 0

    def size_bias(self, keys: int, before: int, name: str) -> str | None:
        """Log(size), for the attention logits: [B, 1, 1, keys], 0 of prompts.

        Args:
            keys: of the attention, prompts included.
            before: how many prompts stand before the image's tokens; the rest stands behind.
            name: of the branch.

        Returns:
            None where there is nothing to add.
        """
        if self.sizes is None or not self.merging.proportional:
            return None
        b, label = self.b, f"{name}/size"
        log = b.op("Log", [b.reshape(self.sizes, (0, 1, 1, -1), f"{label}/row")], f"{label}/log")
        behind = keys - before - self.tokens
        if not before and not behind:
            return log
        return b.op("Pad", [log, b.ints([0, 0, 0, before, 0, 0, 0, behind])], f"{label}/bias")

    def sizes_with(self, behind: int, name: str) -> str:
        """Sizes, and 1 of each prompt behind the image's tokens: [B, T + behind, 1].

        Raises:
            ValueError: nothing has been merged.
        """
        if self.sizes is None:
            raise ValueError("all sizes are 1")
        if not behind:
            return self.sizes
        one = self.b.const("scalar/1.0", np.asarray(1.0))
        return self.b.op("Pad", [self.sizes, self.b.ints([0, 0, 0, 0, behind, 0]), one], name)

    def merge(self, z: str, keys: str, shift: Array | None, i: int, behind: int) -> str:
        """Merge the r most similar pairs of block i.

        Args:
            z: the residual stream [B, T + behind, d], between attention and MLP.
            keys: of the block [B, h, at least T, e], those of the image's tokens first.
            shift: [e], the mean over heads of what the folds took off all keys, or None.
            i: which block.
            behind: prompts behind the image's tokens, which take no part.

        Returns:
            [B, T - r + behind, d]
        """
        b, name = self.b, f"blocks.{i}.merge"
        halves = _Halves.of(self.tokens, self.protected, self.merging.schedule[i])
        merged, rest, into = self._match(self._metric(keys, shift, f"{name}/metric"), halves, name)
        kept, shares = self._shares(self._one_hot(into, halves, name), merged, rest, halves, name)
        moves = _Moves(merged, rest, kept, shares, halves.b_from)
        parts = self._means(z, moves, name)
        if behind:
            stop = self.tokens + behind
            parts.append(b.slice(z, 1, self.tokens, stop, f"{name}/prompts"))
        if self.carried is not None:
            label = f"{name}/rotation"
            self.carried = b.op("Concat", self._means(self.carried, moves, label), label, axis=1)
        self.tokens -= halves.r
        return b.op("Concat", parts, name, axis=1)

    def _means(self, x: str, moves: _Moves, name: str) -> list[str]:
        """Rows [B, T or more, n] behind the merging, in parts: those that stay, and those of B."""
        b = self.b
        own = self._every_other(x, moves.b_from, f"{name}/b")
        own = b.op("Mul", [own, moves.kept], f"{name}/b/share")
        added = b.op("GatherND", [x, moves.merged], f"{name}/a", batch_dims=1)
        added = b.op("MatMul", [moves.shares, added], f"{name}/a/share")
        parts = self._unmerged(x, moves.rest, name)
        parts.append(b.op("Add", [own, added], f"{name}/mean"))
        return parts

    def _metric(self, keys: str, shift: Array | None, name: str) -> str:
        """Keys [B, h, rows, e] → their mean over heads, of length 1: [B, rows, e]."""
        b = self.b
        mean = b.op("ReduceMean", [keys], f"{name}/heads", axes=[1], keepdims=0)
        if shift is not None:
            mean = b.op("Add", [mean, b.const(f"{name}/shift", shift)], f"{name}/shifted")
        length = b.op("ReduceL2", [mean], f"{name}/length", axes=[-1], keepdims=1)
        least = b.const(f"scalar/{_SHORTEST!r}", np.asarray(_SHORTEST))
        return b.op("Div", [mean, b.op("Max", [length, least], f"{name}/divisor")], name)

    def _match(self, metric: str, halves: _Halves, name: str) -> tuple[str, str | None, str]:
        """What is merged into what; of equals TopK takes the first, by the operator's definition.

        Returns:
            Positions among all tokens of A's merged rows [B, r, 1]; of its other rows [B, A - r, 1],
            ascending, or None if there are none; and numbers within B of what the merged rows become
            part of [B, r, 1].
        """
        b, a, r = self.b, halves.a, halves.r
        m_a = self._every_other(metric, halves.a_from, f"{name}/metric/a")
        m_b = self._every_other(metric, halves.b_from, f"{name}/metric/b")
        m_b = b.transpose(m_b, (0, 2, 1), f"{name}/metric/b_t")
        similar = b.op("MatMul", [m_a, m_b], f"{name}/similar")  # [B, A, B]
        if self.carried is not None:  # keys are rotated
            steps = b.const(f"scalar/{ROTARY_STEPS}", np.asarray(float(ROTARY_STEPS)))
            similar = b.op("Mul", [similar, steps], f"{name}/similar/steps")
            similar = b.op("Round", [similar], f"{name}/similar/rounded")
        best, nearest = b.top_k(similar, 1, f"{name}/nearest")
        _, order = b.top_k(b.reshape(best, (0, a), f"{name}/best"), a, f"{name}/order")
        merged = b.slice(order, 1, 0, r, f"{name}/merged")
        column = b.reshape(merged, (0, r, 1), f"{name}/merged/column")
        into = b.op("GatherND", [nearest, column], f"{name}/into", batch_dims=1)
        merged = self._positions(merged, halves.a_from, r, f"{name}/merged")
        if a == r:
            return merged, None, into
        rest = b.cast(b.slice(order, 1, r, a, f"{name}/rest"), f"{name}/rest/float")
        rest, _ = b.top_k(rest, a - r, f"{name}/rest/ascending", largest=False)
        rest = b.op("Cast", [rest], f"{name}/rest/a", to=INT64)
        return merged, self._positions(rest, halves.a_from, a - r, f"{name}/rest"), into

    def _unmerged(self, x: str, rest: str | None, name: str) -> list[str]:
        """Protected rows and those of A that stay, of tokens or sizes [B, T or more, n]."""
        b, parts = self.b, []
        if self.protected:
            parts.append(b.slice(x, 1, 0, self.protected, f"{name}/protected"))
        if rest is not None:
            parts.append(b.op("GatherND", [x, rest], f"{name}/a/rest", batch_dims=1))
        return parts

    def _every_other(self, x: str, first: int, name: str) -> str:
        """Rows first, first + 2, … of the image's tokens: [B, T or more, n] → [B, …, n]."""
        b = self.b
        ends = [b.ints([first]), b.ints([self.tokens]), b.ints([1]), b.ints([2])]
        return b.op("Slice", [x, *ends], name)

    def _positions(self, rows: str, first: int, count: int, name: str) -> str:
        """Numbers within A [B, count] → positions among all tokens [B, count, 1]."""
        b = self.b
        twice = b.op("Mul", [rows, b.ints([2])], f"{name}/twice")
        position = b.op("Add", [twice, b.ints([first])], f"{name}/position")
        return b.reshape(position, (0, count, 1), f"{name}/positions")

    def _one_hot(self, into: str, halves: _Halves, name: str) -> str:
        """[B, r, 1] → [B, rows of B, r]: 1 where a row of A becomes part of one of B."""
        b = self.b
        row = b.reshape(into, (0, 1, halves.r), f"{name}/into/row")
        column = b.const(f"{name}/numbers", np.arange(halves.b, dtype=np.int64)[:, None])
        return b.cast(b.op("Equal", [row, column], f"{name}/equal"), f"{name}/one_hot")

    def _shares(
        self, hits: str, merged: str, rest: str | None, halves: _Halves, name: str
    ) -> tuple[str, str]:
        """By what B's own rows [B, rows of B, 1] and the merged ones [B, rows of B, r] are multiplied.

        Sizes become those of the tokens afterwards.
        """
        b, sizes, label = self.b, self.sizes, f"{name}/size"
        ones = halves.tokens - halves.r - halves.b  # rows before those of B, afterwards
        one = b.const("scalar/1.0", np.asarray(1.0))
        if sizes is None:
            added = b.op("ReduceSum", [hits, b.ints([2])], f"{label}/added", keepdims=1)
            total = b.op("Add", [added, one], f"{label}/total")  # [B, rows of B, 1]
            self.sizes = b.op("Pad", [total, b.ints([0, ones, 0, 0, 0, 0]), one], label)
            return b.op("Div", [one, total], f"{label}/kept"), self._divided(hits, total, label)
        own = self._every_other(sizes, halves.b_from, f"{label}/b")
        picked = b.op("GatherND", [sizes, merged], f"{label}/a", batch_dims=1)  # [B, r, 1]
        total = b.op("MatMul", [hits, picked], f"{label}/added")
        total = b.op("Add", [total, own], f"{label}/total")
        parts = self._unmerged(sizes, rest, label)
        self.sizes = b.op("Concat", [*parts, total], label, axis=1)
        row = b.transpose(picked, (0, 2, 1), f"{label}/a_t")
        weighted = b.op("Mul", [hits, row], f"{label}/weighted")
        return b.op("Div", [own, total], f"{label}/kept"), self._divided(weighted, total, label)

    def _divided(self, weighted: str, total: str, label: str) -> str:
        return self.b.op("Div", [weighted, total], f"{label}/shares")


class _Moves(NamedTuple):
    """Names of what says how rows are merged (see `TokenMerger._match` and `_shares`)."""

    merged: str
    rest: str | None
    kept: str
    shares: str
    b_from: int


class _Halves(NamedTuple):
    """A and B of one block: T tokens; where each begins, and how many rows it has; r of A merge."""

    tokens: int
    a_from: int
    b_from: int
    a: int
    b: int
    r: int

    @classmethod
    def of(cls, tokens: int, protected: int, r: int) -> _Halves:
        """Even positions behind the protected ones are A, odd ones B."""
        a_from, b_from = protected + protected % 2, protected + 1 - protected % 2
        a, b = (len(range(first, tokens, 2)) for first in (a_from, b_from))
        return cls(tokens, a_from, b_from, a, b, r)
