"""The same network with nothing folded: the graph that others would export.

Prompts are tokens, LayerNorm keeps its affine, query, key and value are one fused linear, the last
block computes every row. It is the yardstick for speed, and a second way to the same answer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import AdapterError
from vptkit.export.fold.block_tensors import Linear, Tensors, block_parts
from vptkit.export.fold.position_encoding import half_layout, relative_bias, rotation
from vptkit.formats.backbone_weights import attention_branches, mlp_branches
from vptkit.formats.manifest_schema import FEATURES, LOGITS
from vptkit.formats.pooling import head_inputs

from .graph_options import GraphOptions, feature_output, input_signature
from .onnx_builder import Builder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
    from numpy.typing import NDArray

    from vptkit.export.fold.block_tensors import AttentionParts, MlpParts, Norm
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec

    from .constants_file import ConstantsFile

__all__ = ["unfolded_graph"]


def unfolded_graph(
    spec: BackboneSpec,
    weights: Mapping[str, NDArray[Any]],
    adapter: Adapter,
    options: GraphOptions,
    *,
    constants: ConstantsFile | None = None,
) -> onnx.ModelProto:
    """Write the graph.

    Args:
        spec: of the backbone.
        weights: its tensors by timm name.
        adapter: prompts, learned keys and values, tuned LayerNorm parameters, weight deltas and head.
        options: input, batch and type; `last_block` has no meaning here.
        constants: where large ones go; in the graph itself unless given.

    Returns:
        A model with the input and outputs of `folded_graph`.
    """
    writer = _Writer(spec, Tensors(weights, adapter), adapter, options, constants)
    f = writer.features()
    weight, bias = adapter.tensors["head.weight"], adapter.tensors["head.bias"]
    writer.b.linear(f, weight.T, bias, LOGITS)
    signature = input_signature(spec, options)
    sizes = {LOGITS: len(adapter.labels)}
    if options.features:
        feature_output(writer.b, f, options)
        sizes[FEATURES] = head_inputs(adapter.pool, spec.width)
    outputs = [(name, (signature[2][0], size)) for name, size in sizes.items()]
    return writer.b.model("vptkit-unfolded", [signature], *outputs)


class _Writer:
    """Writes one network; tokens stand in the order prefix, prompts, patches, as timm has them."""

    def __init__(
        self,
        spec: BackboneSpec,
        tensors: Tensors,
        adapter: Adapter,
        options: GraphOptions,
        constants: ConstantsFile | None,
    ) -> None:
        self.spec, self.parts, self.adapter, self.options = spec, tensors, adapter, options
        self.b = Builder(options.dtype, constants)
        self.source = "images" if options.input == "uint8" else "pixels"

    def features(self) -> str:
        """The vector that the head reads: name of [B, d], or [B, 2 d] (`head_inputs`)."""
        spec, adapter, b = self.spec, self.adapter, self.b
        m, k = adapter.prompt_length, spec.prefix
        z, length = self.embed(), spec.tokens
        for i in range(spec.depth):
            if adapter.insert == "deep" or (adapter.insert == "shallow" and i == 0):
                z = self.insert(z, i, behind=k, rest=k + m if i else k, length=length)
                length = spec.tokens + m
            z = self.block(z, i, length)
        final = None if spec.final_norm is None else self.parts.norm(spec.final_norm)
        if adapter.norm == "before_pool" and final is not None:
            z = self.norm(z, final, "norm")
        f = self.pool(z, length)
        if adapter.norm == "after_pool" and final is not None:
            f = self.norm(f, final, "norm")
        if adapter.pool == "token+avg":
            return b.reshape(f, (0, 2 * spec.width), "pool")
        return f

    # tokens ------------------------------------------------------------------------------------

    def embed(self) -> str:
        """Normalise, convolve, join class and register tokens, add positions."""
        b, spec = self.b, self.spec
        x = self.source
        if self.options.input == "uint8":
            x = b.transpose(b.cast(x, "images/float"), (0, 3, 1, 2), "images/nchw")
            x = b.op("Div", [x, b.const("images/255", np.asarray(255.0))], "images/scaled")
            for kind, values in (
                ("Sub", self.adapter.preprocess.mean),
                ("Div", self.adapter.preprocess.std),
            ):
                constant = b.const(f"images/{kind}/value", np.asarray(values).reshape(1, 3, 1, 1))
                x = b.op(kind, [x, constant], f"images/{kind}")
        kernel = [x, self.tensor("patch_embed.proj.weight")]
        if spec.patch_bias:
            kernel.append(self.tensor("patch_embed.proj.bias"))
        size = list(spec.patch_size)
        z = b.op("Conv", kernel, "patch_embed", strides=size, kernel_shape=size)
        z = b.reshape(z, (0, spec.width, spec.patches), "patch_embed/flat")
        z = b.transpose(z, (0, 2, 1), "patch_embed/rows")
        if spec.patch_norm:
            z = self.norm(z, self.parts.norm("patch_embed.norm"), "patch_embed.norm")
        if spec.pos_embed == "patches":
            z = b.op("Add", [z, self.tensor("pos_embed")], "position")
        tokens = [
            *(["cls_token"] if spec.class_token else []),
            *(["dist_token"] if spec.dist_token else []),
            *(["reg_token"] if spec.registers else []),
        ]
        if tokens:
            rows = [self.batched(self.tensor(name), name) for name in tokens]
            z = b.op("Concat", [*rows, z], "tokens", axis=1)
        if spec.pos_embed == "all":
            z = b.op("Add", [z, self.tensor("pos_embed")], "position")
        return self.norm(z, self.parts.norm("norm_pre"), "norm_pre") if spec.norm_pre else z

    def insert(self, z: str, i: int, *, behind: int, rest: int, length: int) -> str:
        """Overwrite (or, before block 0, insert) the prompt rows."""
        b = self.b
        prompt = b.const(f"prompt.{i}", self.adapter.prompts(i)[None])
        parts = [self.batched(prompt, f"prompt.{i}")]
        parts.append(b.slice(z, 1, rest, length, f"blocks.{i}/behind"))
        if behind:
            parts.insert(0, b.slice(z, 1, 0, behind, f"blocks.{i}/before"))
        return b.op("Concat", parts, f"blocks.{i}/tokens", axis=1)

    # blocks ------------------------------------------------------------------------------------

    def block(self, z: str, i: int, length: int) -> str:
        """A block over all rows."""
        spec = self.spec
        attentions, mlps = block_parts(spec, self.parts, i)
        if spec.block == "parallel":
            name = f"blocks.{i}"
            x = self.norm(z, attentions[0].norm, f"{name}.in_norm")
            added = [self.attention(x, attentions[0], i, length, f"{name}.attn")]
            added.append(self.mlp(x, mlps[0], f"{name}.mlp"))
            return self.plus(z, added, f"{name}/add")
        branches = attention_branches(spec, i)
        added = [
            self.branch(
                z, a, b.norm, partial(self.attention, a=a, i=i, length=length, name=b.module)
            )
            for a, b in zip(attentions, branches, strict=True)
        ]
        z = self.plus(z, added, f"blocks.{i}/add1")
        added = [
            self.branch(z, m, b.norm, partial(self.mlp, m=m, name=b.module))
            for m, b in zip(mlps, mlp_branches(spec, i), strict=True)
        ]
        return self.plus(z, added, f"blocks.{i}/add2")

    def branch(
        self, z: str, part: AttentionParts | MlpParts, name: str, run: Callable[[str], str]
    ) -> str:
        """What a branch adds, its norm before or behind it."""
        if self.spec.block == "post":
            return self.norm(run(z), part.norm, name)
        return run(self.norm(z, part.norm, name))

    def plus(self, z: str, added: list[str], name: str) -> str:
        """Z and all that is added to it."""
        for n, value in enumerate(added):
            z = self.b.op("Add", [z, value], name if n == len(added) - 1 else f"{name}/{n}")
        return z

    def attention(self, x: str, a: AttentionParts, i: int, length: int, name: str) -> str:
        """One attention with a fused linear for queries, keys and values."""
        b, spec, kv = self.b, self.spec, self.spec.key_heads(i)
        q, k, v = self.queries_keys_values(x, a, kv, length, name)
        if a.q_norm is not None and a.k_norm is not None:
            q, k = (
                self.norm(q, a.q_norm, f"{name}.q_norm"),
                self.norm(k, a.k_norm, f"{name}.k_norm"),
            )
        q, k = self.rotated(q, i, length, f"{name}/q"), self.rotated(k, i, length, f"{name}/k")
        k, v, keys = self.learned(k, v, i, length)
        if kv != spec.heads:
            k, v = (self.repeated(y, kv, keys, f"{name}/{c}") for y, c in ((k, "k"), (v, "v")))
        scale = b.const("scale", np.asarray(spec.head_width**-0.5))
        q = b.op("Mul", [q, scale], f"{name}/q/scaled")
        s = b.op("MatMul", [q, b.transpose(k, (0, 1, 3, 2), f"{name}/k_t")], f"{name}/qk")
        s = self.biased(s, i, length, keys, name)
        p = b.op("Softmax", [s], f"{name}/p", axis=-1)
        y = b.transpose(b.op("MatMul", [p, v], f"{name}/mix"), (0, 2, 1, 3), f"{name}/t")
        y = b.reshape(y, (0, length, spec.width), f"{name}/rows")
        if a.out_norm is not None:
            y = self.norm(y, a.out_norm, f"{name}.norm")
        y = self.linear(y, a.proj, f"{name}.proj", bias=spec.proj_bias)
        return self.scaled(y, a.scale, f"{name}.ls")

    def queries_keys_values(
        self, x: str, a: AttentionParts, kv: int, length: int, name: str
    ) -> tuple[str, ...]:
        """[B, T, d] → [B, h, T, e] each."""
        b, spec = self.b, self.spec
        fused = Linear(*(np.concatenate(part, axis=-1) for part in zip(a.q, a.k, a.v, strict=True)))
        x = self.linear(x, fused, f"{name}.qkv", bias=spec.qkv_bias)
        if kv == spec.heads:
            x = b.reshape(x, (0, length, 3, spec.heads, spec.head_width), f"{name}/split")
            x = b.transpose(x, (2, 0, 3, 1, 4), f"{name}/bhte")
            return tuple(
                b.op("Gather", [x, b.const(f"index/{n}", np.asarray(n))], f"{name}/{c}", axis=0)
                for n, c in enumerate("qkv")
            )
        parts, start = [], 0
        for letter, heads in (("q", spec.heads), ("k", kv), ("v", kv)):
            stop = start + heads * spec.head_width
            y = b.slice(x, 2, start, stop, f"{name}/{letter}/columns")
            y = b.reshape(y, (0, length, heads, spec.head_width), f"{name}/{letter}/heads")
            parts.append(b.transpose(y, (0, 2, 1, 3), f"{name}/{letter}"))
            start = stop
        return tuple(parts)

    def repeated(self, x: str, kv: int, length: int, name: str) -> str:
        """Key or value heads, once for each query head of their group."""
        b, spec = self.b, self.spec
        group = spec.heads // kv
        x = b.reshape(x, (0, kv, 1, length, spec.head_width), f"{name}/single")
        x = b.op("Concat", [x] * group, f"{name}/groups", axis=2)
        return b.reshape(x, (0, spec.heads, length, spec.head_width), f"{name}/repeated")

    def rotated(self, x: str, i: int, length: int, name: str) -> str:
        """Rotary embedding of the patches' rows, which stand last."""
        b, spec = self.b, self.spec
        found = rotation(spec, self.parts, i)
        if found is None or spec.rotary is None:
            return x
        if not spec.rotary.rotate_half:
            order = b.const("rope.order", half_layout(spec.head_width))
            x = b.op("Gather", [x, order], f"{name}/pairs", axis=3)
        before = ((0, 0), (length - spec.patches, 0), (0, 0))
        cos, sin = (
            b.const(
                f"{found.name}.{kind}.{length}", np.pad(table, before, constant_values=fill)[None]
            )
            for kind, table, fill in (("cos", found.cos, 1.0), ("sin", found.sin, 0.0))
        )
        return b.rotate(x, cos, sin, spec.head_width, name)

    def learned(self, k: str, v: str, i: int, length: int) -> tuple[str, str, int]:
        """Learned keys and values behind those of the rows, [B, h, T + n, e], and T + n."""
        pair = self.adapter.learned_prefix(i)
        if pair is None:
            return k, v, length
        rows = []
        for own, value, kind in zip((k, v), pair, ("keys", "values"), strict=True):
            heads = value.reshape(len(value), -1, self.spec.head_width)
            if kind == "keys" and self.spec.rotary and not self.spec.rotary.rotate_half:
                heads = heads[:, :, half_layout(self.spec.head_width)]
            name = f"prefix.{i}.{kind}"
            constant = self.b.const(name, heads.transpose(1, 0, 2)[None])
            batched = self.b.batched(constant, name, 4, self.options.batch, self.source)
            rows.append(self.b.op("Concat", [own, batched], f"{name}/joined", axis=2))
        return rows[0], rows[1], length + len(pair[0])

    def biased(self, s: str, i: int, length: int, keys: int, name: str) -> str:
        """Relative position bias; prompts, behind the prefix tokens, and learned keys take none."""
        b, spec = self.b, self.spec
        found = relative_bias(spec, self.parts, i)
        if found is None:
            return s
        rows = np.r_[0 : spec.prefix, length - spec.patches : length]
        index = np.full((length, keys), found.table.shape[1] - 1)
        index[np.ix_(rows, rows)] = found.columns
        table = b.const(f"{found.name}.table", found.table)
        columns = b.const(f"relative.index.{length}.{keys}", index)
        bias = b.op("Gather", [table, columns], f"{name}/bias", axis=1)
        return b.op("Add", [s, bias], f"{name}/biased")

    def mlp(self, x: str, m: MlpParts, name: str) -> str:
        """fc1, activation (and gate), norm, fc2, LayerScale."""
        b, kind, bias = self.b, self.spec.activation, self.spec.proj_bias
        y = self.linear(x, m.fc1, f"{name}.fc1", bias=bias or self.spec.block == "parallel")
        if m.gate is None:
            y = b.activation(kind, y, f"{name}.act")
        else:
            gate = self.linear(x, m.gate, f"{name}.gate", bias=bias)
            gate = b.activation(kind, gate, f"{name}.act")
            y = b.op("Mul", [gate, y], f"{name}.gated")
        if m.out_norm is not None:
            y = self.norm(y, m.out_norm, f"{name}.norm")
        y = self.linear(y, m.fc2, f"{name}.fc2", bias=bias)
        return self.scaled(y, m.scale, f"{name}.ls")

    # pooling -----------------------------------------------------------------------------------

    def pool(self, z: str, length: int) -> str:
        """[B, length, d] → [B, d]; [B, 2, d] of the class row and the mean of the patches."""
        b, spec, pool = self.b, self.spec, self.adapter.pool
        if pool == "map":
            rows = b.slice(z, 1, length - spec.patches, length, "pool/rows")
            if spec.attention_pool is not None and spec.attention_pool.prefix and spec.prefix:
                before = b.slice(z, 1, 0, spec.prefix, "pool/before")
                rows = b.op("Concat", [before, rows], "pool/tokens", axis=1)
            return self.latent_pool(rows)
        if pool == "token+avg":
            rows = b.slice(z, 1, length - spec.patches, length, "pool/rows")
            mean = b.op("ReduceMean", [rows], "pool/mean", axes=[1], keepdims=1)
            return b.op("Concat", [b.slice(z, 1, 0, 1, "pool/class"), mean], "pool/both", axis=1)
        first = {"token": 0, "avg": length - spec.patches, "avg_prompts": int(spec.class_token)}
        z = b.slice(z, 1, first[pool], 1 if pool == "token" else length, "pool/rows")
        if pool == "token":
            return b.reshape(z, (0, spec.width), "pool")
        return b.op("ReduceMean", [z], "pool", axes=[1], keepdims=0)

    def latent_pool(self, x: str) -> str:
        """A latent query against the tokens, then an MLP (timm's AttentionPoolLatent)."""
        b, d, pool, name = self.b, self.spec.width, self.spec.attention_pool, "attn_pool"
        if pool is None:
            raise AdapterError("pool is 'map', but the backbone has no attention pooling")
        e = d // pool.heads
        query = self.parts.linear(f"{name}.q")
        q = (self.parts(f"{name}.latent")[0, 0] @ query.w + query.b).reshape(1, pool.heads, 1, e)
        kv = self.linear(x, self.parts.linear(f"{name}.kv"), f"{name}.kv")
        kv = b.reshape(kv, (0, -1, 2, pool.heads, e), f"{name}/split")
        kv = b.transpose(kv, (2, 0, 3, 1, 4), f"{name}/bhte")
        k, v = (
            b.op("Gather", [kv, b.const(f"index/{n}", np.asarray(n))], f"{name}/{c}", axis=0)
            for n, c in enumerate("kv")
        )
        k = b.transpose(k, (0, 1, 3, 2), f"{name}/k_t")
        s = b.op("MatMul", [b.const(f"{name}.query", q / np.sqrt(e)), k], f"{name}/qk")
        p = b.op("Softmax", [s], f"{name}/p", axis=-1)
        y = b.reshape(b.op("MatMul", [p, v], f"{name}/mix"), (0, d), f"{name}/rows")
        y = self.linear(y, self.parts.linear(f"{name}.proj"), f"{name}.proj")
        x = self.norm(y, self.parts.norm(f"{name}.norm"), f"{name}.norm")
        x = self.linear(x, self.parts.linear(f"{name}.mlp.fc1"), f"{name}.mlp.fc1")
        x = b.activation(pool.activation, x, f"{name}.mlp.act")
        x = self.linear(x, self.parts.linear(f"{name}.mlp.fc2"), f"{name}.mlp.fc2")
        return b.op("Add", [y, x], "pool")

    # small parts -------------------------------------------------------------------------------

    def scaled(self, x: str, gamma: Any, name: str) -> str:
        """LayerScale, where there is one."""
        return x if gamma is None else self.b.op("Mul", [x, self.b.const(name, gamma)], f"{name}/y")

    def norm(self, x: str, norm: Norm, name: str) -> str:
        """A norm with its affine."""
        b, eps = self.b, self.spec.norm_eps
        if self.spec.norm == "layer":
            return b.layer_norm(x, *norm, eps, name)
        x = b.rms_normalize(x, eps, f"{name}/normalized")
        return b.op("Mul", [x, b.const(f"{name}.weight", norm.gamma)], name)

    def linear(self, x: str, linear: Linear, name: str, *, bias: bool = True) -> str:
        """A linear, with a bias where the backbone has one."""
        return self.b.linear(x, linear.w, linear.b if bias else None, name)

    def tensor(self, name: str) -> str:
        return self.b.const(name, self.parts(name))

    def batched(self, constant: str, name: str) -> str:
        return self.b.batched(constant, name, 3, self.options.batch, self.source)
