"""Attention in the folded graph: queries, prefixed keys and values, positions, the one-query forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.export.fold.last_block import absorb_keys_values, absorbable

from .merge_writer import TokenMerger
from .onnx_builder import Builder
from .rotation_writer import RotationWriter

if TYPE_CHECKING:
    from vptkit.export.fold.block_tensors import Array, Norm
    from vptkit.export.fold.folded_network import Attention, Folded
    from vptkit.export.fold.last_block import Absorbed
    from vptkit.formats.backbone_spec import BackboneSpec

    from .constants_file import ConstantsFile
    from .graph_options import GraphOptions, Rows

__all__ = ["AttentionWriter"]


class AttentionWriter:
    """Writes attentions; z, x, q, k, v are names of graph values."""

    def __init__(
        self,
        spec: BackboneSpec,
        folded: Folded,
        options: GraphOptions,
        constants: ConstantsFile | None = None,
    ) -> None:
        self.spec, self.folded, self.options = spec, folded, options
        self.b = Builder(options.dtype, constants)
        self.eps = spec.norm_eps
        self.merger: TokenMerger | None = None
        if options.merging is not None:
            self.merger = TokenMerger(self.b, spec.tokens, spec.prefix, options.merging)
        self.rotations = RotationWriter(self.b, spec, self.merger)
        # of each attention of the last block: [B, h, T or more, e], the image's rows first
        self.image_keys: list[str] = []
        self._biases: set[str] = set()

    def attend(self, x: str, xq: str, a: Attention, length: int, rows: Rows, name: str) -> str:
        """What one attention adds.

        Args:
            x: rows of keys and values [B, length, d].
            xq: rows of queries: x, or its first row.
            a: its constants.
            length: number of rows of x.
            rows: which rows are read behind the block.
            name: of the branch.

        Returns:
            [B, length, d], [B, 1, d] or [B, length + m, d].
        """
        if rows == "joined":
            y = self.joined_attention(x, a, length, name)
        elif rows == "first" and self.options.last_block == "absorbed" and absorbable(self.spec):
            q = self.heads(self.linear(xq, a.q.w, a.q.b, f"{name}.q"), 1)  # [B, h, 1, e]
            absorbed = absorb_keys_values(a.k, a.v, self.spec.heads)
            y = self.absorbed_attention(q, x, absorbed, a, length, name)
        else:
            count = 1 if rows == "first" else length
            if rows == "all" and self.options.qkv == "fused" and a.kv_heads == self.spec.heads:
                q, k, v = self.fused(x, a, length, name)
            else:
                q = self.heads(self.linear(xq, a.q.w, a.q.b, f"{name}.q"), count)
                q = self.placed(q, a.q_norm, a, count, f"{name}.q")
                k, v = self.keys_values(x, a, length, name)
            m = len(a.prefix.keys)
            y = self.attention(q, k, v, a, (count, length + m, m), name)
        if a.out_norm:
            y = self.normalized(y, f"{name}.norm")
        y = self.linear(y, a.proj.w, a.proj.b, f"{name}.proj")
        return y if a.post is None else self.affine_norm(y, a.post, f"{name}.post")

    def linear(self, x: str, w: Array, bias: Array | None, name: str) -> str:
        """One linear of a block; a bank adds to it what each image's adapter changes."""
        return self.b.linear(x, w, bias, name)

    def fused(self, x: str, a: Attention, length: int, name: str) -> tuple[str, str, str]:
        """Queries, and prefixed keys and values, of one linear: TensorRT's favourite form."""
        b, spec = self.b, self.spec
        none = np.zeros(spec.width)
        w = np.concatenate([a.q.w, a.k, a.v], axis=1)
        biases = [a.q.b, *(none if bias is None else bias for bias in (a.k_bias, a.v_bias))]
        y = self.linear(x, w, np.concatenate(biases), f"{name}.qkv")
        y = b.reshape(y, (0, length, 3, spec.heads, spec.head_width), f"{name}.qkv/heads")
        y = b.transpose(y, (2, 0, 3, 1, 4), f"{name}.qkv/3bhte")
        q, k, v = (
            b.op("Gather", [y, b.const(f"index/{n}", np.asarray(n))], f"{name}.{letter}", axis=0)
            for n, letter in enumerate("qkv")
        )
        q = self.placed(q, a.q_norm, a, length, f"{name}.q")
        k = self.placed(k, a.k_norm, a, length, f"{name}.k")
        self.image_keys.append(k)
        return q, *self.prefixed(k, v, a, name)

    def keys_values(self, x: str, a: Attention, length: int, name: str) -> tuple[str, str]:
        """Keys and values of x [B, length, d], the prompts' before them: [B, h, m + length, e]."""
        k, v = f"{name}.k", f"{name}.v"
        keys = self.heads(self.linear(x, a.k, a.k_bias, k), length, a.kv_heads)
        keys = self.placed(keys, a.k_norm, a, length, k)
        self.image_keys.append(keys)
        values = self.heads(self.linear(x, a.v, a.v_bias, v), length, a.kv_heads)
        return self.prefixed(keys, values, a, name)

    def prefixed(self, k: str, v: str, a: Attention, name: str) -> tuple[str, str]:
        """Keys and values of the image behind those of the prompts: [B, h, m + length, e]."""
        if not len(a.prefix.keys):
            return k, v
        k = self.with_prefix(a.prefix.keys, k, a, f"{name}.k")
        return k, self.with_prefix(a.prefix.values, v, a, f"{name}.v")

    def placed(self, x: str, norm: Norm | None, a: Attention, length: int, name: str) -> str:
        """Queries or keys [B, h, length, e] of the first `length` rows: normalised and rotated."""
        b = self.b
        if norm is not None:
            x = self.affine_norm(x, norm, f"{name}_norm")
        if a.rotation is None or length == 1:  # the first row is no patch
            return x
        cos, sin = self.rotations.factors(a.rotation, length)
        return b.rotate(x, cos, sin, self.spec.head_width, name)

    def absorbed_attention(
        self, q: str, x: str, absorbed: Absorbed, a: Attention, length: int, name: str
    ) -> str:
        """One query [B, h, 1, e] against x̂ itself [B, T, d] (see `Absorbed`): → [B, 1, d]."""
        b, spec, prefix = self.b, self.spec, a.prefix
        m = len(prefix.keys)
        u = b.op("MatMul", [q, b.const(f"{name}.k.weight", absorbed.k)], f"{name}/q_wk")
        u = b.reshape(u, (0, spec.heads, spec.width), f"{name}/q_wk/rows")  # [B, h, d]
        x_t = b.transpose(x, (0, 2, 1), f"{name}/x_t")
        s = b.op("MatMul", [u, x_t], f"{name}/scores/image")  # [B, h, T]
        if m:
            keys = self._by_head(prefix.keys, spec.heads).transpose(0, 2, 1)  # [h, e, m]
            s_p = b.op("MatMul", [q, b.const(f"{name}.k.prefix", keys)], f"{name}/scores/prompt4")
            s_p = b.reshape(s_p, (0, spec.heads, m), f"{name}/scores/prompt")
            s = b.op("Concat", [s_p, s], f"{name}/scores", axis=2)
        size = self.size_bias(length + m, m, name)
        if size is not None:
            size = b.reshape(size, (0, 1, length + m), f"{name}/size/keys")
            s = b.op("Add", [s, size], f"{name}/sized")
        p = b.op("Softmax", [s], f"{name}/softmax", axis=-1)
        p_x = b.slice(p, 2, m, m + length, f"{name}/softmax/image") if m else p
        r = b.op("MatMul", [p_x, x], f"{name}/mix")  # [B, h, d]
        r = b.reshape(r, (0, spec.heads, 1, spec.width), f"{name}/mix4")
        y = b.op("MatMul", [r, b.const(f"{name}.v.weight", absorbed.v)], f"{name}/mix_wv")
        if m:
            p_p = b.slice(p, 2, 0, m, f"{name}/softmax/prompt")
            p_p = b.reshape(p_p, (0, spec.heads, 1, m), f"{name}/softmax/prompt4")
            by_head = self._by_head(prefix.values, spec.heads)  # [h, m, e]
            values = b.const(f"{name}.v.prefix", by_head)
            y = b.op("Add", [y, b.op("MatMul", [p_p, values], f"{name}/prompt")], f"{name}/sum")
        return b.reshape(y, (0, 1, spec.width), f"{name}/rows")

    def joined_attention(self, x: str, a: Attention, length: int, name: str) -> str:
        """Attention of image and prompt rows; those of the prompts are constants: [B, T + m, d]."""
        b, heads = self.b, self.spec.heads
        queries, total = length + len(a.prefix.queries), length + len(a.prefix.keys)
        parts = []
        for letter, w, bias, norm, rows, count in (
            ("q", a.q.w, a.q.b, a.q_norm, a.prefix.queries, heads),
            ("k", a.k, a.k_bias, a.k_norm, a.prefix.keys, a.kv_heads),
            ("v", a.v, a.v_bias, None, a.prefix.values, a.kv_heads),
        ):
            label = f"{name}.{letter}"
            part = self.heads(self.linear(x, w, bias, label), length, count)
            if letter != "v":
                part = self.placed(part, norm, a, length, label)
            if letter == "k":
                self.image_keys.append(part)
            constant = self.batched(f"{label}.prefix", self._by_head(rows, count)[None])
            parts.append(b.op("Concat", [part, constant], f"{label}/joined", axis=2))
        q, k, v = parts
        return self.attention(q, k, v, a, (queries, total, 0), name)

    def attention(
        self, q: str, k: str, v: str, a: Attention, counts: tuple[int, int, int], name: str
    ) -> str:
        """Attention itself.

        Args:
            q, k, v: [B, h, queries, e] and [B, h, keys, e].
            a: its constants.
            counts: queries, keys, and how many of the keys are prompts before the image's.
            name: of the branch.

        Returns:
            [B, queries, d]
        """
        length, keys, before = counts
        b, spec = self.b, self.spec
        grouped = a.kv_heads != spec.heads
        if grouped:  # the query heads of a group stand below one another
            group = spec.heads // a.kv_heads * length
            q = b.reshape(q, (0, a.kv_heads, group, spec.head_width), f"{name}/groups")
        s = b.op("MatMul", [q, b.transpose(k, (0, 1, 3, 2), f"{name}/k_t")], f"{name}/scores")
        if a.bias is not None:
            s = b.op("Add", [s, self.relative(a, length, keys, before, name)], f"{name}/biased")
        s = self.masked(s, keys, before, name)
        p = b.op("Softmax", [s], f"{name}/softmax", axis=-1)
        y = b.op("MatMul", [p, v], f"{name}/mix")
        if grouped:
            y = b.reshape(y, (0, spec.heads, length, spec.head_width), f"{name}/mix/heads")
        y = b.transpose(y, (0, 2, 1, 3), f"{name}/mix/rows")
        return b.reshape(y, (0, length, spec.width), f"{name}/rows")

    def masked(self, scores: str, keys: int, before: int, name: str) -> str:
        """Attention logits [B, h, queries, keys] and what each key has of its own.

        That is the size of merged tokens; a bank also masks keys that only pad its table. `before` of
        the keys are prompts that stand before the image's; others stand behind.
        """
        size = self.size_bias(keys, before, name)
        return scores if size is None else self.b.op("Add", [scores, size], f"{name}/sized")

    def size_bias(self, keys: int, before: int, name: str) -> str | None:
        """See `TokenMerger.size_bias`."""
        return None if self.merger is None else self.merger.size_bias(keys, before, name)

    def relative(self, a: Attention, queries: int, keys: int, before: int, name: str) -> str:
        """The bias of the first `queries` rows; prompts, as queries and as keys, take none.

        `before` of the keys are prompts that stand before the image's; others stand behind.
        """
        b, bias = self.b, a.bias
        if bias is None:
            raise ValueError(f"{name} has no bias")
        label = f"{bias.name}.{queries}.{before}.{keys}"
        if label not in self._biases:
            self._biases.add(label)
            zero, tokens = bias.table.shape[1] - 1, len(bias.columns)
            index = np.full((max(queries, tokens), keys), zero)
            index[:tokens, before : before + tokens] = bias.columns
            table = b.const(f"{bias.name}.table", bias.table)
            index_name = b.const(f"{label}.index", index[:queries])
            b.op("Gather", [table, index_name], label, axis=1)
        return label

    # small parts -------------------------------------------------------------------------------

    def normalized(self, z: str, name: str, width: int = 0) -> str:
        """x̂ over the last axis, which is d wide unless given."""
        if self.spec.norm == "rms":
            return self.b.rms_normalize(z, self.eps, name)
        return self.b.normalize(z, width or self.spec.width, self.eps, name)

    def affine_norm(self, x: str, norm: Norm, name: str) -> str:
        """x̂ γ + β; β may differ from row to row [rows, d]."""
        b = self.b
        if self.spec.norm == "layer" and norm.beta.ndim == 1:
            return b.layer_norm(x, *norm, self.eps, name)
        x = self.normalized(x, f"{name}/normalized", len(norm.gamma))
        if not norm.beta.any():
            return b.op("Mul", [x, b.const(f"{name}.weight", norm.gamma)], name)
        x = b.op("Mul", [x, b.const(f"{name}.weight", norm.gamma)], f"{name}/scaled")
        return b.op("Add", [x, b.const(f"{name}.bias", norm.beta)], name)

    def total(self, values: list[str], name: str) -> str:
        """The sum of some values; of one, itself."""
        total = values[0]
        for n, value in enumerate(values[1:], start=2):
            label = name if n == len(values) else f"{name}/{n}"
            total = self.b.op("Add", [total, value], label)
        return total

    def batched(self, name: str, value: Array) -> str:
        """A constant [1, …], repeated for every image of the batch."""
        constant = self.b.const(name, value)
        source = "images" if self.options.input == "uint8" else "pixels"
        return self.b.batched(constant, name, value.ndim, self.options.batch, source)

    def heads(self, x: str, length: int, heads: int | None = None) -> str:
        """[B, length, h e] → [B, h, length, e]."""
        shape = (0, length, heads or self.spec.heads, self.spec.head_width)
        return self.b.transpose(self.b.reshape(x, shape, f"{x}/heads"), (0, 2, 1, 3), f"{x}/bhte")

    def with_prefix(self, rows: Array, x: str, a: Attention, name: str) -> str:
        """Constant keys or values [m, kv] before those of the image: [B, h, m + T, e]."""
        prefix = self.batched(f"{name}.prefix", self._by_head(rows, a.kv_heads)[None])
        return self.b.op("Concat", [prefix, x], f"{name}/prefixed", axis=2)

    def with_rows(self, x: str, rows: Array, constant: str, name: str) -> str:
        """Constant rows [m, d] behind those of the image: [B, T + m, d]."""
        return self.b.op("Concat", [x, self.batched(constant, rows[None])], name, axis=1)

    def _by_head(self, rows: Array, heads: int) -> Array:
        """[m, h e] → [h, m, e]."""
        return np.asarray(rows.reshape(len(rows), heads, -1).transpose(1, 0, 2))
