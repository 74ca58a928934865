"""The folded network as an ONNX graph: what ships.

Deep prompts are constant key/value prefixes, so every GEMM sees the T image tokens only; with token
pooling the last block computes one query. Tokens stand in the order prefix, patches, prompts
(attention knows no order once positions are added).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vptkit.formats.manifest_schema import FEATURES, LOGITS

from .attention_writer import AttentionWriter
from .graph_options import feature_output, input_signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from vptkit.export.fold.folded_network import Block, Folded, Mlp
    from vptkit.formats.backbone_spec import BackboneSpec

    from .constants_file import ConstantsFile
    from .graph_options import GraphOptions, Rows

__all__ = ["Writer", "folded_graph"]


def folded_graph(
    spec: BackboneSpec,
    folded: Folded,
    insert: str,
    pool: str,
    norm: str,
    options: GraphOptions,
    *,
    constants: ConstantsFile | None = None,
) -> onnx.ModelProto:
    """Write the graph.

    Args:
        spec: of the backbone.
        folded: its folded constants, prompts included.
        insert, pool, norm: of the adapter.
        options: input, batch, form of the last block, type.
        constants: where large ones go; in the graph itself unless given.

    Returns:
        A model with one input (`input_signature`) and the output `logits` [B, C]; with
        `options.features` also `features` [B, f].
    """
    writer = Writer(spec, folded, options, constants)
    f = writer.features(insert, pool, norm)
    b = writer.b
    b.linear(f, folded.head.w, folded.head.b, "logits")
    signature = input_signature(spec, options)
    sizes = {LOGITS: len(folded.head.b)}
    if options.features:
        feature_output(b, f, options)
        sizes[FEATURES] = len(folded.head.w)
    batch = signature[2][0]
    outputs = [(name, (batch, size)) for name, size in sizes.items()]
    return b.model("vptkit", [signature], *outputs)


class Writer(AttentionWriter):
    """Writes one network."""

    def features(self, insert: str, pool: str, norm: str) -> str:
        """The vector that the head sees: name of [B, d], or [B, 2 d] (`head_inputs`).

        One pass over the blocks, which are folded as it goes (`LazyBlocks`).
        """
        z, length = self.embed(), self.spec.tokens  # rows of z
        for i, block in enumerate(self.folded.blocks):
            rows = self._rows_read(i, insert, pool)
            last = i == self.spec.depth - 1
            if last and rows == "joined" and (pool, norm) == ("avg_prompts", "after_pool"):
                return self.final_norm(self.joined_mean(z, block, i))
            z = self.block(z, block, i, length, rows)
            length = {"all": length, "first": 1, "joined": length + len(block.prompt)}[rows]
            length -= self.options.merging.schedule[i] if self.options.merging else 0
        return self.pool(z, length, pool, norm)

    def _rows_read(self, i: int, insert: str, pool: str) -> Rows:
        """Which rows of block i are read behind it."""
        if insert == "shallow" and i == 0:
            return "joined"  # its prompts are tokens of all further blocks
        if i == self.spec.depth - 1:
            if insert == "deep" and pool == "avg_prompts":
                return "joined"
            if pool == "token" and self.options.last_block != "full":
                return "first"
        return "all"

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
        if folded.patch_norm is not None:
            z = self.affine_norm(z, folded.patch_norm, "patch_embed.norm")
        if folded.norm_pre is not None:
            z = self.affine_norm(z, folded.norm_pre, "norm_pre")
        if spec.prefix:
            rows = self.batched("tokens.prefix", folded.prefix_rows[None])
            z = b.op("Concat", [rows, z], "tokens", axis=1)
        return z

    def _patch_rows(self) -> str:
        """uint8 images → [B, N, ph * pw * 3]; pixels beyond the last whole patch are cut off."""
        b, spec = self.b, self.spec
        (gh, gw), (ph, pw) = spec.grid, spec.patch_size
        x = b.cast("images", "images/float")  # TensorRT slices no uint8
        if spec.image_size[0] != gh * ph:
            x = b.slice(x, 1, 0, gh * ph, "images/rows")
        if spec.image_size[1] != gw * pw:
            x = b.slice(x, 2, 0, gw * pw, "images/columns")
        x = b.reshape(x, (-1, gh, ph, gw, pw * 3), "images/grid")
        x = b.transpose(x, (0, 1, 3, 2, 4), "images/patches")
        return b.reshape(x, (-1, gh * gw, ph * pw * 3), "images/patch_rows")

    # blocks ------------------------------------------------------------------------------------

    def block(self, z: str, block: Block, i: int, length: int, rows: Rows = "all") -> str:
        """A whole block: [B, length, d] → [B, length, d], [B, 1, d] or [B, length + m, d]."""
        middle, _, added = self.additions(z, block, i, length, rows)
        z = self.b.op("Add", [middle, added], f"blocks.{i}/add2")
        return (
            self.merged(z, block, i, self.rows_left(block, length, rows)) if block.parallel else z
        )

    def rows_left(self, block: Block, length: int, rows: Rows) -> int:
        """Rows behind a block's attention: its own, and with "joined" those of its prompts."""
        return length + (len(block.prompt) if rows == "joined" else 0)

    def additions(
        self, z: str, block: Block, i: int, length: int, rows: Rows
    ) -> tuple[str, str | None, str]:
        """The residual stream between attention and MLP, and what each of them adds.

        A parallel block adds both behind the unchanged stream; then the first addition is None.
        """
        b, name = self.b, f"blocks.{i}"
        self.image_keys = []
        x = self.normalized(z, f"{name}.norm1") if block.normed else z
        kept, queries = z, x
        if rows == "first":
            kept = b.slice(z, 1, 0, 1, f"{name}/class")
            queries = b.slice(x, 1, 0, 1, f"{name}.norm1/class") if block.normed else kept
        elif rows == "joined":
            kept = self.with_rows(z, block.prompt, f"{name}.prompt", f"{name}/tokens")
        attended = [
            self.attend(x, queries, a, length, rows, _branch(block.attentions, name, "attn", j))
            for j, a in enumerate(block.attentions)
        ]
        if not block.parallel:
            attention = self.total(attended, f"{name}/attentions")
            middle = b.op("Add", [kept, attention], f"{name}/add1")
            middle = self.merged(middle, block, i, self.rows_left(block, length, rows))
            x = self.normalized(middle, f"{name}.norm2") if block.normed else middle
            mlps = [
                self.mlp(x, mlp, _branch(block.mlps, name, "mlp", j))
                for j, mlp in enumerate(block.mlps)
            ]
            return middle, attention, self.total(mlps, f"{name}/mlps")
        if rows == "joined":
            constant = f"{name}.norm1.prompt"
            queries = self.with_rows(x, block.prompt_seen, constant, f"{name}.norm1/tokens")
        mlp = self.mlp(queries, block.mlps[0], f"{name}.mlp")
        return kept, None, self.total([*attended, mlp], f"{name}/both")

    def merged(self, z: str, block: Block, i: int, count: int) -> str:
        """The residual stream [B, count, d] behind the attention, fewer rows if i merges."""
        if self.merger is None or not self.merger.merges(i):
            return z
        rotation = block.attentions[0].rotation
        if rotation is not None and self.merger.carried is None:
            rows = self.rotations.first_rows(rotation)
            self.merger.carried = self.batched(f"blocks.{i}.merge/rotation/first", rows)
        lost = np.concatenate([a.k_lost.reshape(a.kv_heads, -1) for a in block.attentions])
        shift, keys = lost.mean(axis=0), self.image_keys[0]
        if len(self.image_keys) > 1:
            keys = self.b.op("Concat", self.image_keys, f"blocks.{i}.merge/keys", axis=1)
        behind = count - self.merger.tokens
        return self.merger.merge(z, keys, shift if shift.any() else None, i, behind)

    def joined_mean(self, z: str, block: Block, i: int) -> str:
        """The last block and the mean over all rows but the class row: [B, d].

        Prompt rows may be hundreds of times larger than what the block adds to them, so their sum
        is one constant and only the additions are summed with the image: Σ P + Σ (a + mlp).
        """
        b, spec, name = self.b, self.spec, f"blocks.{i}"
        prompt, length = block.prompt, self.image_rows
        _, attention, added = self.additions(z, block, i, length, "joined")
        if attention is not None:
            added = b.op("Add", [attention, added], f"{name}/added")
        first, count = int(spec.class_token), spec.tokens + len(prompt)

        def total(rows: str, behind: int, label: str) -> str:
            stop = length + behind
            kept = b.slice(rows, 1, first, stop, f"{label}/kept") if first else rows
            kept = self.shared(kept, (first, stop), count - first, label) or kept
            return b.op("ReduceSum", [kept, b.ints([1])], label, keepdims=0)

        image = total(z, 0, f"{name}/sum/image")
        new = total(added, len(prompt), f"{name}/sum/added")
        both = b.op("Add", [image, new], f"{name}/sum/both")
        sized = self.merger is not None and self.merger.sizes is not None
        once = count - first if sized else 1  # shares are taken before the sum where sizes are
        constant = b.const(f"{name}.prompt.sum", prompt.sum(axis=0) / once)
        both = b.op("Add", [both, constant], f"{name}/sum")
        share = b.const(f"{name}.share", np.asarray(once / (count - first)))
        return b.op("Mul", [both, share], "pool")

    # the rest ----------------------------------------------------------------------------------

    def mlp(self, x: str, mlp: Mlp, name: str) -> str:
        """What one MLP adds: fc1, activation (and gate), fc2."""
        b, kind = self.b, self.spec.activation
        y = self.linear(x, mlp.fc1.w, mlp.fc1.b, f"{name}.fc1")
        if mlp.gate is None:
            y = b.activation(kind, y, f"{name}.act")
        else:
            gate = self.linear(x, mlp.gate.w, mlp.gate.b, f"{name}.gate")
            y = b.op("Mul", [b.activation(kind, gate, f"{name}.act"), y], f"{name}.gated")
        if mlp.out_norm:
            y = self.normalized(y, f"{name}.norm", self.spec.mlp_width)
        y = self.linear(y, mlp.fc2.w, mlp.fc2.b, f"{name}.fc2")
        return y if mlp.post is None else self.affine_norm(y, mlp.post, f"{name}.post")

    def pool(self, z: str, length: int, pool: str, norm: str) -> str:
        """[B, length, d] → [B, d] or [B, 2 d], normalised (the affine is in the head)."""
        b, spec = self.b, self.spec
        first, stop = rows = self._pooled_rows(length, pool)
        if (first, stop) != (0, length):
            z = b.slice(z, 1, first, stop, "pool/rows")
        if norm == "before_pool":
            z = self.final_norm(z)
        if pool == "token":
            f = b.reshape(z, (0, spec.width), "pool")
        elif pool == "map":
            f = self.latent_pool(z, rows)
        elif pool == "token+avg":
            f = self.class_and_mean(z)
        else:
            prompts = length - self.image_rows if pool == "avg_prompts" else 0
            f = self.mean(z, rows, prompts, "pool", keepdims=0)
        if norm == "after_pool":
            f = self.final_norm(f)
        return b.reshape(f, (0, 2 * spec.width), "pool") if pool == "token+avg" else f

    def class_and_mean(self, z: str) -> str:
        """The class row and the mean of the patches, which stand last: [B, T, d] → [B, 2, d]."""
        b, rows = self.b, (self.spec.prefix, self.image_rows)
        patches = b.slice(z, 1, *rows, "pool/patches")
        mean = self.mean(patches, rows, 0, "pool/mean", keepdims=1)
        return b.op("Concat", [b.slice(z, 1, 0, 1, "pool/class"), mean], "pool/both", axis=1)

    def mean(self, z: str, rows: tuple[int, int], prompts: int, name: str, *, keepdims: int) -> str:
        """The mean of some rows [B, rows, d], those from first to stop, `prompts` of them prompts.

        A merged token counts as often as it has patches in it, so the count is that before merging.
        """
        first, _ = rows
        shared = self.shared(z, rows, self.spec.tokens + prompts - first, name)
        if shared is None:
            return self.b.op("ReduceMean", [z], name, axes=[1], keepdims=keepdims)
        return self.b.op("ReduceSum", [shared, self.b.ints([1])], name, keepdims=keepdims)

    def shared(self, z: str, rows: tuple[int, int], count: int, name: str) -> str | None:
        """Rows from first to stop, each times its size / count; None while all sizes are 1."""
        first, stop = rows
        if self.merger is None or self.merger.sizes is None:
            return None
        b, sizes = self.b, self.merger.sizes_with(stop - self.image_rows, f"{name}/sizes")
        sizes = b.slice(sizes, 1, first, stop, f"{name}/sizes/kept")
        share = b.op(
            "Mul", [sizes, b.const(f"{name}/one", np.asarray(1.0 / count))], f"{name}/share"
        )
        return b.op("Mul", [z, share], f"{name}/shared")

    @property
    def image_rows(self) -> int:
        """How many tokens of the image are left."""
        return self.spec.tokens if self.merger is None else self.merger.tokens

    def _pooled_rows(self, length: int, pool: str) -> tuple[int, int]:
        spec = self.spec
        if pool == "map":
            whole = spec.attention_pool is not None and spec.attention_pool.prefix
            return (0 if whole else spec.prefix), self.image_rows
        return {
            "token": (0, 1),
            "avg": (spec.prefix, self.image_rows),
            "token+avg": (0, self.image_rows),
            "avg_prompts": (int(spec.class_token), length),
        }[pool]

    def latent_pool(self, x: str, rows: tuple[int, int]) -> str:
        """Attention pooling (see `Pool`) of the rows from first to stop: [B, rows, d] → [B, d]."""
        b, spec, pool, name = self.b, self.spec, self.folded.attention_pool, "attn_pool"
        if pool is None or spec.attention_pool is None:
            raise ValueError("this backbone has no attention pooling")
        heads = spec.attention_pool.heads
        s = b.op("MatMul", [x, b.const(f"{name}.k.weight", pool.keys)], f"{name}/scores/rows")
        s = b.transpose(s, (0, 2, 1), f"{name}/scores")  # [B, h, rows]
        if self.merger is not None and self.merger.sizes is not None:
            size = b.slice(self.merger.sizes, 1, *rows, f"{name}/sizes")
            size = b.reshape(b.op("Log", [size], f"{name}/size/log"), (0, 1, -1), f"{name}/size")
            s = b.op("Add", [s, size], f"{name}/sized")
        p = b.op("Softmax", [s], f"{name}/softmax", axis=-1)
        r = b.op("MatMul", [p, x], f"{name}/mix")  # [B, h, d]
        r = b.reshape(r, (0, heads, 1, spec.width), f"{name}/mix4")
        y = b.op("MatMul", [r, b.const(f"{name}.v.weight", pool.values)], f"{name}/mix_wv")
        y = b.reshape(y, (0, spec.width), f"{name}/rows")
        y = b.linear(y, pool.proj.w, pool.proj.b, f"{name}.proj")
        x = b.linear(self.normalized(y, f"{name}.norm"), pool.fc1.w, pool.fc1.b, f"{name}.mlp.fc1")
        x = b.activation(spec.attention_pool.activation, x, f"{name}.mlp.act")
        x = b.linear(x, pool.fc2.w, pool.fc2.b, f"{name}.mlp.fc2")
        return b.op("Add", [y, x], "pool")

    def final_norm(self, z: str) -> str:
        """x̂ (x̂ γ + β where the head has not taken them), or z itself without a final norm."""
        if self.spec.final_norm is None:
            return z
        affine = self.folded.final_norm
        return self.normalized(z, "norm") if affine is None else self.affine_norm(z, affine, "norm")


def _branch(branches: Sequence[object], block: str, kind: str, j: int) -> str:
    """Name of one branch; timm's where there are several."""
    if len(branches) == 1:
        return f"{block}.{kind}"
    several = {"attn": "attns", "mlp": "ffns"}[kind]
    return f"{block}.{several}.{j}.{kind}"
