"""The folded network as an ONNX graph: what ships.

Deep prompts are constant key/value prefixes, so every GEMM sees the T image tokens only; with token
pooling the last block computes one query. Tokens stand in the order prefix, patches, prompts
(attention knows no order once positions are added).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .builder import FLOAT, UINT8, Builder
from .fold import absorb_keys_values

if TYPE_CHECKING:
    import onnx

    from vptkit.backbone import BackboneSpec

    from .fold import Array, Block, Folded

__all__ = ["GraphOptions", "LastBlock", "folded_graph", "input_signature"]

LastBlock = Literal["absorbed", "query", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """How a graph is written.

    Attributes:
        input: "uint8" pixels [B, H, W, 3], or "float32" normalised [B, 3, H, W].
        batch: a fixed batch size, or None for any.
        last_block: with token pooling: "absorbed" (fewest multiply-accumulates), "query" (one
            query, ordinary keys and values: keeps fused attention on a GPU), "full".
        dtype: type of all floating-point numbers.
    """

    input: Literal["uint8", "float32"] = "uint8"
    batch: int | None = None
    last_block: LastBlock = "absorbed"
    dtype: type[np.floating[Any]] = np.float32


def input_signature(
    spec: BackboneSpec, options: GraphOptions
) -> tuple[str, int, tuple[int | str, ...]]:
    """(name, element type, shape) of the graph's input."""
    height, width = spec.image_size
    batch = options.batch or "batch"
    if options.input == "uint8":
        return "images", UINT8, (batch, height, width, 3)
    elem = Builder(options.dtype).elem if options.dtype is not np.float32 else FLOAT
    return "pixels", elem, (batch, 3, height, width)


def folded_graph(
    spec: BackboneSpec, folded: Folded, insert: str, pool: str, norm: str, options: GraphOptions
) -> onnx.ModelProto:
    """Write the graph.

    Args:
        spec: of the backbone.
        folded: its folded constants, prompts included.
        insert, pool, norm: of the adapter.
        options: input, batch, form of the last block, type.

    Returns:
        A model with one input (`input_signature`) and the output `logits` [B, C].
    """
    writer = _Writer(spec, folded, options)
    f = writer.features(insert, pool, norm)
    b = writer.b
    b.linear(f, folded.head.w, folded.head.b, "logits")
    signature = input_signature(spec, options)
    return b.model("vptkit", [signature], ("logits", (signature[2][0], len(folded.head.b))))


class _Writer:
    """Writes one network; z, x, q, k, v are names of graph values."""

    def __init__(self, spec: BackboneSpec, folded: Folded, options: GraphOptions) -> None:
        self.spec, self.folded, self.options = spec, folded, options
        self.b = Builder(options.dtype)
        self.eps = spec.norm_eps

    def features(self, insert: str, pool: str, norm: str) -> str:
        """The vector that the head sees: name of [B, d]."""
        spec, blocks = self.spec, self.folded.blocks
        z, length = self.embed(), spec.tokens
        for i, block in enumerate(blocks[:-1]):
            if insert == "shallow" and i == 0:
                z = self.joined_block(z, block, i)
                length += len(block.prompt_rows())
            else:
                z = self.block(z, block, i, length)
        i, last = spec.depth - 1, blocks[-1]
        joins = last.prompt is not None and (insert == "shallow" or pool == "avg_prompts")
        if joins and pool == "avg_prompts" and norm == "after_pool":
            return self.normalized(self.joined_mean(z, last, i), "norm")
        if joins:
            z = self.joined_block(z, last, i)
            length += len(last.prompt_rows())
        elif pool == "token" and self.options.last_block != "full":
            z, length = self.one_query_block(z, last, i, length), 1
        else:
            z = self.block(z, last, i, length)
        return self.pool(z, length, pool, norm)

    # tokens ------------------------------------------------------------------------------------

    def embed(self) -> str:
        """Pixels → z [B, T, d]."""
        b, spec, folded = self.b, self.spec, self.folded
        if self.options.input == "uint8":
            rows = self._patch_rows()
            z = b.op(
                "MatMul", [rows, b.const("patch_embed.weight", folded.patch.w)], "patch/MatMul"
            )
            z = b.op("Add", [z, b.const("patch_embed.bias", folded.patch.b[None])], "patch_embed")
        else:
            kernel, bias = folded.patch_float
            z = b.op(
                "Conv",
                ["pixels", b.const("patch_embed.weight", kernel)],
                "patch/Conv",
                strides=list(spec.patch_size),
                kernel_shape=list(spec.patch_size),
            )
            z = b.reshape(z, (0, spec.width, spec.patches), "patch/flat")
            z = b.transpose(z, (0, 2, 1), "patch/rows")
            z = b.op("Add", [z, b.const("patch_embed.bias", bias[None])], "patch_embed")
        if folded.norm_pre is not None:
            z = b.layer_norm(z, *folded.norm_pre, self.eps, "norm_pre")
        if spec.prefix:
            rows = self.batched("tokens.prefix", folded.prefix_rows[None])
            z = b.op("Concat", [rows, z], "tokens", axis=1)
        return z

    def _patch_rows(self) -> str:
        """uint8 images → [B, N, ph * pw * 3]; pixels beyond the last whole patch are cut off."""
        b, spec = self.b, self.spec
        (gh, gw), (ph, pw) = spec.grid, spec.patch_size
        x = "images"
        if spec.image_size[0] != gh * ph:
            x = b.slice(x, 1, 0, gh * ph, "images/rows")
        if spec.image_size[1] != gw * pw:
            x = b.slice(x, 2, 0, gw * pw, "images/columns")
        x = b.cast(x, "images/float")
        x = b.reshape(x, (-1, gh, ph, gw, pw * 3), "images/grid")
        x = b.transpose(x, (0, 1, 3, 2, 4), "images/patches")
        return b.reshape(x, (-1, gh * gw, ph * pw * 3), "images/patch_rows")

    def batched(self, name: str, value: Array) -> str:
        """A constant [1, …], repeated for every image of the batch."""
        constant = self.b.const(name, value)
        source = "images" if self.options.input == "uint8" else "pixels"
        return self.b.batched(constant, name, value.ndim, self.options.batch, source)

    # blocks ------------------------------------------------------------------------------------

    def block(self, z: str, block: Block, i: int, length: int) -> str:
        """An ordinary block; its prompts, if any, are constant keys and values."""
        name = f"blocks.{i}"
        x = self.normalized(z, f"{name}.norm1")
        q = self.heads(self.b.linear(x, block.q.w, block.q.b, f"{name}.attn.q"), length)
        k, v = self.keys_values(x, block, length, name)
        return self.after_attention(z, self.attention(q, k, v, length, name), block, name)

    def one_query_block(self, z: str, block: Block, i: int, length: int) -> str:
        """The last block where only the class row is read: [B, T, d] → [B, 1, d]."""
        b, name = self.b, f"blocks.{i}"
        x = self.normalized(z, f"{name}.norm1")
        z_0 = b.slice(z, 1, 0, 1, f"{name}/class")
        q = b.linear(
            b.slice(x, 1, 0, 1, f"{name}.norm1/class"), block.q.w, block.q.b, f"{name}.attn.q"
        )
        q = self.heads(q, 1)  # [B, h, 1, e]
        if self.options.last_block == "absorbed":
            a = self.absorbed_attention(q, x, block, length, name)
        else:
            k, v = self.keys_values(x, block, length, name)
            a = self.attention(q, k, v, 1, name)
        return self.after_attention(z_0, a, block, name)

    def keys_values(self, x: str, block: Block, length: int, name: str) -> tuple[str, str]:
        """Keys and values of x [B, length, d], the prompts' before them: [B, h, m + length, e]."""
        k = self.heads(self.b.linear(x, block.k, None, f"{name}.attn.k"), length)
        v = self.heads(self.b.linear(x, block.v, None, f"{name}.attn.v"), length)
        if block.prompt is not None:
            k_p, v_p = block.prefix(self.eps)
            k = self.with_prefix(k_p, k, f"{name}.attn.k")
            v = self.with_prefix(v_p, v, f"{name}.attn.v")
        return k, v

    def absorbed_attention(self, q: str, x: str, block: Block, length: int, name: str) -> str:
        """One query against x̂ itself (see `fold.Absorbed`): [B, h, 1, e], [B, T, d] → [B, 1, d]."""
        b, spec = self.b, self.spec
        absorbed = absorb_keys_values(block, spec.heads)
        name = f"{name}.attn"
        u = b.op("MatMul", [q, b.const(f"{name}.k.weight", absorbed.k)], f"{name}/q_wk")
        u = b.reshape(u, (0, spec.heads, spec.width), f"{name}/q_wk/rows")  # [B, h, d]
        x_t = b.transpose(x, (0, 2, 1), f"{name}/x_t")
        s = b.op("MatMul", [u, x_t], f"{name}/scores/image")  # [B, h, T]
        m = 0
        if block.prompt is not None:
            k_p, v_p = block.prefix(self.eps)
            m = len(k_p)
            keys = self._by_head(k_p).transpose(0, 2, 1)  # [h, e, m]
            s_p = b.op("MatMul", [q, b.const(f"{name}.k.prefix", keys)], f"{name}/scores/prompt4")
            s_p = b.reshape(s_p, (0, spec.heads, m), f"{name}/scores/prompt")
            s = b.op("Concat", [s_p, s], f"{name}/scores", axis=2)
        p = b.op("Softmax", [s], f"{name}/softmax", axis=-1)
        p_x = b.slice(p, 2, m, m + length, f"{name}/softmax/image") if m else p
        r = b.op("MatMul", [p_x, x], f"{name}/mix")  # [B, h, d]
        r = b.reshape(r, (0, spec.heads, 1, spec.width), f"{name}/mix4")
        a = b.op("MatMul", [r, b.const(f"{name}.v.weight", absorbed.v)], f"{name}/mix_wv")
        if block.prompt is not None:
            p_p = b.slice(p, 2, 0, m, f"{name}/softmax/prompt")
            p_p = b.reshape(p_p, (0, spec.heads, 1, m), f"{name}/softmax/prompt4")
            values = b.const(f"{name}.v.prefix", self._by_head(v_p))  # [h, m, e]
            a = b.op("Add", [a, b.op("MatMul", [p_p, values], f"{name}/prompt")], f"{name}/sum")
        return b.reshape(a, (0, 1, spec.width), f"{name}/rows")

    def joined_block(self, z: str, block: Block, i: int) -> str:
        """A block whose prompt rows are read behind it: [B, T, d] → [B, T + m, d]."""
        name = f"blocks.{i}"
        a = self.joined_attention(z, block, name)
        rows = self.batched(f"{name}.prompt", block.prompt_rows()[None])
        z = self.b.op("Concat", [z, rows], f"{name}/tokens", axis=1)
        return self.after_attention(z, a, block, name)

    def joined_mean(self, z: str, block: Block, i: int) -> str:
        """The last block and the mean over all rows but the class row: [B, d].

        Prompt rows may be hundreds of times larger than what the block adds to them, so their sum
        is one constant and only the additions are summed with the image: Σ P + Σ (a + mlp).
        """
        b, spec, name = self.b, self.spec, f"blocks.{i}"
        prompt = block.prompt_rows()
        a = self.joined_attention(z, block, name)
        a = b.linear(a, block.proj.w, block.proj.b, f"{name}.attn.proj")
        rows = self.batched(f"{name}.prompt", prompt[None])
        joined = b.op("Concat", [z, rows], f"{name}/tokens", axis=1)
        z_1 = b.op("Add", [joined, a], f"{name}/add1")
        added = b.op("Add", [a, self.mlp(z_1, block, name)], f"{name}/added")
        first, count = int(spec.class_token), spec.tokens + len(prompt)

        def total(rows: str, stop: int, label: str) -> str:
            kept = b.slice(rows, 1, first, stop, f"{label}/kept") if first else rows
            return b.op("ReduceSum", [kept, b.ints([1])], label, keepdims=0)

        image = total(z, spec.tokens, f"{name}/sum/image")
        new = total(added, count, f"{name}/sum/added")
        both = b.op("Add", [image, new], f"{name}/sum/both")
        constant = b.const(f"{name}.prompt.sum", prompt.sum(axis=0))
        both = b.op("Add", [both, constant], f"{name}/sum")
        share = b.const(f"{name}.share", np.asarray(1.0 / (count - first)))
        return b.op("Mul", [both, share], "pool")

    def joined_attention(self, z: str, block: Block, name: str) -> str:
        """Attention of image and prompt rows; those of the prompts are constants: [B, T + m, d]."""
        b, length = self.b, self.spec.tokens
        x = self.normalized(z, f"{name}.norm1")
        k_p, v_p = block.prefix(self.eps)
        parts = []
        for letter, w, bias, rows in (
            ("q", block.q.w, block.q.b, block.prompt_queries(self.eps)),
            ("k", block.k, None, k_p),
            ("v", block.v, None, v_p),
        ):
            label = f"{name}.attn.{letter}"
            part = b.linear(x, w, bias, label)
            constant = self.batched(f"{label}.prefix", rows[None])
            part = b.op("Concat", [part, constant], f"{label}/joined", axis=1)
            parts.append(self.heads(part, length + len(rows)))
        q, k, v = parts
        return self.attention(q, k, v, length + len(k_p), name)

    def attention(self, q: str, k: str, v: str, length: int, name: str) -> str:
        """[B, h, length, e] queries; keys and values of any length → [B, length, d]."""
        b, name = self.b, f"{name}.attn"
        k_t = b.transpose(k, (0, 1, 3, 2), f"{name}/k_t")
        p = b.op(
            "Softmax", [b.op("MatMul", [q, k_t], f"{name}/scores")], f"{name}/softmax", axis=-1
        )
        a = b.op("MatMul", [p, v], f"{name}/mix")
        a = b.transpose(a, (0, 2, 1, 3), f"{name}/mix/rows")
        return b.reshape(a, (0, length, self.spec.width), f"{name}/rows")

    def after_attention(self, z: str, a: str, block: Block, name: str) -> str:
        """Projection, residual, MLP, residual."""
        b = self.b
        a = b.linear(a, block.proj.w, block.proj.b, f"{name}.attn.proj")
        z = b.op("Add", [z, a], f"{name}/add1")
        return b.op("Add", [z, self.mlp(z, block, name)], f"{name}/add2")

    def mlp(self, z: str, block: Block, name: str) -> str:
        """norm2, fc1, activation, fc2."""
        b = self.b
        x = self.normalized(z, f"{name}.norm2")
        x = b.linear(x, block.fc1.w, block.fc1.b, f"{name}.mlp.fc1")
        x = b.activation(self.spec.activation, x, f"{name}.mlp.act")
        return b.linear(x, block.fc2.w, block.fc2.b, f"{name}.mlp.fc2")

    def pool(self, z: str, length: int, pool: str, norm: str) -> str:
        """[B, length, d] → [B, d], normalised (the affine is in the head)."""
        b, spec = self.b, self.spec
        first = {"token": 0, "avg": spec.prefix, "avg_prompts": int(spec.class_token)}[pool]
        stop = {"token": 1, "avg": spec.tokens, "avg_prompts": length}[pool]
        if (first, stop) != (0, length):
            z = b.slice(z, 1, first, stop, "pool/rows")
        if norm == "before_pool":
            z = self.normalized(z, "norm")
        if pool == "token":
            f = b.reshape(z, (0, spec.width), "pool")
        else:
            f = b.op("ReduceMean", [z], "pool", axes=[1], keepdims=0)
        return self.normalized(f, "norm") if norm == "after_pool" else f

    # small parts -------------------------------------------------------------------------------

    def normalized(self, z: str, name: str) -> str:
        """x̂, or z itself for a final norm that the backbone does not have."""
        if name == "norm" and self.spec.final_norm is None:
            return z
        return self.b.normalize(z, self.spec.width, self.eps, name)

    def heads(self, x: str, length: int) -> str:
        """[B, length, d] → [B, h, length, e]."""
        shape = (0, length, self.spec.heads, self.spec.head_width)
        return self.b.transpose(self.b.reshape(x, shape, f"{x}/heads"), (0, 2, 1, 3), f"{x}/bhte")

    def with_prefix(self, rows: Array, x: str, name: str) -> str:
        """Constant keys or values [m, d] before those of the image: [B, h, m + T, e]."""
        prefix = self.batched(f"{name}.prefix", self._by_head(rows)[None])
        return self.b.op("Concat", [prefix, x], f"{name}/prefixed", axis=2)

    def _by_head(self, rows: Array) -> Array:
        """[m, d] → [h, m, e]."""
        return np.asarray(rows.reshape(len(rows), self.spec.heads, -1).transpose(1, 0, 2))
