"""The folded network as one graph for many adapters, looked up in `formats.bank_tables`.

Prompt rows join x̂ before keys and values are formed, behind the image's rows; rows that only pad
the table are masked. What differs from `graph` is where constants become look-ups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from vptkit.export.graph.folded_graph import Writer
from vptkit.export.graph.graph_options import GraphOptions, feature_output, input_signature
from vptkit.formats.bank_tables import LinearRoom, norm_slots
from vptkit.formats.manifest_schema import FEATURES, LOGITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from vptkit.export.fold.block_tensors import Array, Norm
    from vptkit.export.fold.folded_network import Attention, Folded
    from vptkit.export.fold.last_block import Absorbed
    from vptkit.export.graph.constants_file import ConstantsFile
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.bank_tables import BankShape

__all__ = ["bank_graph"]


def bank_graph(
    spec: BackboneSpec,
    folded: Folded,
    shape: BankShape,
    pool: str,
    norm: str,
    options: GraphOptions,
    *,
    affines: Mapping[str, Norm] | None = None,
    constant: Mapping[str, NDArray[Any]] | None = None,
    constants: ConstantsFile | None = None,
) -> onnx.ModelProto:
    """Write the graph.

    Args:
        spec: of the backbone.
        folded: its constants without prompts; with LayerNorms in the bank, folded with γ = 1, β = 0.
        shape: what the tables have room for.
        pool, norm: of all adapters.
        options: as of `folded_graph`.
        affines: of norms that the fold was given with γ = 1, β = 0 and no table has: name in the
            graph → what stands behind x̂, for linears that an adapter can change.
        constant: the tables, if they shall be constants instead of inputs.
        constants: as of `folded_graph`.

    Returns:
        A model with the inputs images (or pixels), `adapter` int32 [B] and the tables, and the
        output `logits` [B, C]; columns beyond an adapter's own classes are 0. With `options.features`
        also `features` [B, f], each image's behind its own adapter's final norm.
    """
    # prompt rows make keys and values but no queries, so there is no linear for all three
    options = replace(options, qkv="separate")
    writer = _BankWriter(spec, folded, options, shape, affines or {}, constants)
    for name, table in (constant or {}).items():
        writer.b.const(name, table)
    f = writer.own_features(writer.features("none", pool, norm))
    writer.head(f)
    signature = input_signature(spec, options)
    batch = signature[2][0]
    signatures = {} if constant else shape.signature()
    tables = [(name, writer.b.elem, dims) for name, dims in signatures.items()]
    inputs = [signature, ("adapter", TensorProto.INT32, (batch,)), *tables]
    outputs = [(LOGITS, (batch, shape.classes))]
    if options.features:
        feature_output(writer.b, f, options)
        outputs.append((FEATURES, (batch, shape.features)))
    return writer.b.model("vptkit-bank", inputs, *outputs)


class _BankWriter(Writer):
    """Writes the network of a bank."""

    def __init__(
        self,
        spec: BackboneSpec,
        folded: Folded,
        options: GraphOptions,
        shape: BankShape,
        affines: Mapping[str, Norm],
        constants: ConstantsFile | None,
    ) -> None:
        super().__init__(spec, folded, options, constants)
        self.shape, self.affines = shape, affines
        self.slots = {name: i for i, name in enumerate(norm_slots(spec))} if shape.norms else {}
        self._done: set[str] = set()

    def own_features(self, f: str) -> str:
        """[B, f] γ + β of each image's adapter, where the heads have not taken them."""
        if not self.shape.feature_norm:
            return f
        f = self.b.op("Mul", [f, self.row("bank.feature_weight")], "features/scaled")
        return self.b.op("Add", [f, self.row("bank.feature_bias")], "features/own")

    def head(self, f: str) -> str:
        """Features [B, f] → logits [B, C]: each image has a head of its own."""
        b = self.b
        f = b.reshape(f, (0, 1, self.shape.features), "head/row")
        f = b.op("MatMul", [f, self.row("bank.head_weight")], "head/MatMul")
        f = b.reshape(f, (0, self.shape.classes), "head/flat")
        return b.op("Add", [f, self.row("bank.head_bias")], "logits")

    def row(self, table: str, i: int = 0) -> str:
        """Row i of each image's adapter in a table: [B, …]."""
        label, rows = f"{table}/{i}", self.shape.rows()[table][0]
        if label in self._done:
            return label
        index = "adapter"
        if rows > 1:
            base = self._once("Mul", ["adapter", self._int32(rows)], f"adapter/{rows}")
            index = self._once("Add", [base, self._int32(i)], f"adapter/{rows}/{i}") if i else base
        self._done.add(label)
        return self.b.op("Gather", [table, index], label, axis=0)

    def _once(self, kind: str, inputs: list[str], name: str) -> str:
        if name not in self._done:
            self._done.add(name)
            self.b.op(kind, inputs, name)
        return name

    def _int32(self, value: int) -> str:
        return self.b.const(f"int32/{value}", np.asarray(value, dtype=np.int32))

    # what became a look-up ----------------------------------------------------------------------

    def embed(self) -> str:
        """Pixels → z; norm_pre's affine is the adapter's own."""
        z = super().embed()
        return self.tuned(z, "norm_pre", "norm_pre") if "norm_pre" in self.slots else z

    def normalized(self, z: str, name: str, width: int = 0) -> str:
        """x̂, or x̂ γ + β with the adapter's own, or with the backbone's before changed linears."""
        if name in self.affines:
            return self.affine_norm(z, self.affines[name], name)
        if name not in self.slots:
            return super().normalized(z, name, width)
        return self.tuned(super().normalized(z, f"{name}/normalized", width), name, name)

    def tuned(self, x: str, slot: str, name: str) -> str:
        """[B, T, d] γ + β, each image's own."""
        b, i = self.b, self.slots[slot]
        gamma, beta = (
            b.reshape(self.row(f"bank.{kind}", i), (0, 1, self.spec.width), f"{name}/{kind}")
            for kind in ("norm_weight", "norm_bias")
        )
        x = b.op("Mul", [x, gamma], f"{name}/tuned/scaled")
        return b.op("Add", [x, beta], f"{name}/tuned")

    def linear(self, x: str, w: Array, bias: Array | None, name: str) -> str:
        """((x · in) W + ((x · in) a) b) · out + bias, of each image's own adapter."""
        room, b = self.shape.linears.get(name), self.b
        if room is None:
            return super().linear(x, w, bias, name)
        if room.in_scale:
            x = b.op("Mul", [x, self._by_image(name, "in", (0, 1, room.inputs))], f"{name}/x")
        y = b.linear(x, w, None, f"{name}/own")
        if room.rank:
            few = b.op("MatMul", [x, self.row(f"bank.{name}.a")], f"{name}/few")  # [B, T, r]
            change = b.op("MatMul", [few, self.row(f"bank.{name}.b")], f"{name}/change")
            y = b.op("Add", [y, change], f"{name}/changed")
        if room.out_scale:
            y = b.op(
                "Mul", [y, self._by_image(name, "out", (0, 1, room.outputs))], f"{name}/scaled"
            )
        return self._shifted(y, bias, name)

    def keys_values(self, x: str, a: Attention, length: int, name: str) -> tuple[str, str]:
        """Keys and values of image and prompts: [B, h, T + m, e]."""
        return super().keys_values(self.joined(x, name), a, length + self.shape.prompts, name)

    def joined(self, x: str, name: str) -> str:
        """x̂ [B, T, d] and behind it the prompt rows of this block [B, m, d]."""
        if not self.shape.prompts:
            return x
        parts = [x, self.row("bank.prompts", _number(name))]
        return self.b.op("Concat", parts, f"{name}/joined", axis=1)

    def attention(
        self, q: str, k: str, v: str, a: Attention, counts: tuple[int, int, int], name: str
    ) -> str:
        """As in `attention`, with m more keys than counts say, behind the image's."""
        queries, keys, before = counts
        counts = queries, keys + self.shape.prompts, before
        return super().attention(q, k, v, a, counts, name)

    def masked(self, scores: str, keys: int, before: int, name: str) -> str:
        """Attention logits [B, h, …, keys] with the padding of the prompts masked."""
        b, scores = self.b, super().masked(scores, keys, before, name)
        if not self.shape.prompts:
            return scores
        mask, whole = self.row("bank.mask"), self.spec.tokens + self.shape.prompts
        if keys < whole:  # of tokens that are merged, and take no mask
            mask = b.slice(mask, 3, whole - keys, whole, f"{name}/mask")
        return b.op("Add", [scores, mask], f"{name}/masked")

    def absorbed_attention(
        self, q: str, x: str, absorbed: Absorbed, a: Attention, length: int, name: str
    ) -> str:
        """One query against x̂ and the prompt rows, which are looked up: → [B, 1, d].

        With changed keys and values ((x · in) W + ((x · in) a) b) · out they are not formed either:
        q (x W)ᵀ = (q Wᵀ) xᵀ for each head, and so for the factors.
        """
        b, heads, width = self.b, self.spec.heads, self.spec.width
        keys = length + self.shape.prompts
        x = self.joined(x, name)
        u = self._absorbed_keys(q, absorbed, f"{name}.k", f"{name}/q_wk")  # [B, h, d]
        s = b.op("MatMul", [u, b.transpose(x, (0, 2, 1), f"{name}/x_t")], f"{name}/scores")
        s = b.reshape(s, (0, heads, 1, keys), f"{name}/scores4")
        s = self.masked(s, keys, 0, name)
        p = b.op("Softmax", [s], f"{name}/softmax", axis=-1)
        p = b.reshape(p, (0, heads, keys), f"{name}/softmax3")
        r = b.op("MatMul", [p, x], f"{name}/mix")  # [B, h, d]
        y = self._absorbed_values(r, absorbed, f"{name}.v", f"{name}/mix_wv")
        y = b.reshape(y, (0, 1, width), f"{name}/rows")
        return self._shifted(y, a.v_bias, f"{name}.v")  # the weights of a mix sum to one

    def _absorbed_keys(self, q: str, absorbed: Absorbed, name: str, label: str) -> str:
        """What meets x in the place of queries [B, h, 1, e] and keys: [B, h, d]."""
        b, heads, width = self.b, self.spec.heads, self.spec.width
        room = self.shape.linears.get(name, LinearRoom(width, width))
        if room.out_scale:
            q = b.op("Mul", [q, self._by_image(name, "out", (0, heads, 1, -1))], f"{label}/q")
        u = b.op("MatMul", [q, b.const(f"{name}.weight", absorbed.k)], label)
        u = b.reshape(u, (0, heads, width), f"{label}/rows")  # [B, h, d]
        if room.rank:
            few = b.op("MatMul", [q, self._factor_by_head(name, (0, 2, 3, 1))], f"{name}/few")
            few = b.reshape(few, (0, heads, room.rank), f"{name}/few/rows")
            a_t = b.transpose(self.row(f"bank.{name}.a"), (0, 2, 1), f"{name}/a_t")
            u = b.op("Add", [u, b.op("MatMul", [few, a_t], f"{name}/change")], f"{name}/changed")
        if room.in_scale:
            u = b.op("Mul", [u, self._by_image(name, "in", (0, 1, width))], f"{name}/x")
        return u

    def _absorbed_values(self, r: str, absorbed: Absorbed, name: str, label: str) -> str:
        """Mixed rows [B, h, d] → mixed values [B, h, 1, e], their bias left out."""
        b, heads, width = self.b, self.spec.heads, self.spec.width
        room = self.shape.linears.get(name, LinearRoom(width, width))
        if room.in_scale:
            r = b.op("Mul", [r, self._by_image(name, "in", (0, 1, width))], f"{name}/x")
        r4 = b.reshape(r, (0, heads, 1, width), f"{label}/mix4")
        y = b.op("MatMul", [r4, b.const(f"{name}.weight", absorbed.v)], label)
        if room.rank:
            few = b.op("MatMul", [r, self.row(f"bank.{name}.a")], f"{name}/few")  # [B, h, r]
            few = b.reshape(few, (0, heads, 1, room.rank), f"{name}/few/rows")
            factor = self._factor_by_head(name, (0, 2, 1, 3))
            y = b.op("Add", [y, b.op("MatMul", [few, factor], f"{name}/change")], f"{name}/changed")
        if room.out_scale:
            y = b.op("Mul", [y, self._by_image(name, "out", (0, heads, 1, -1))], f"{name}/scaled")
        return y

    def _factor_by_head(self, name: str, order: tuple[int, ...]) -> str:
        """Factor b [B, r, h e] of each image's adapter as [B, r, h, e], its axes in another order."""
        b, room, heads = self.b, self.shape.linears[name], self.spec.heads
        factor = self.row(f"bank.{name}.b")
        factor = b.reshape(factor, (0, room.rank, heads, -1), f"{name}/b/heads")
        return b.transpose(factor, order, f"{name}/b/by_head")

    def _by_image(self, name: str, part: str, shape: tuple[int, ...]) -> str:
        """A row of a linear's table for each image, in a shape that all its tokens share."""
        return self.b.reshape(self.row(f"bank.{name}.{part}"), shape, f"{name}/{part}")

    def _shifted(self, y: str, bias: Array | None, name: str) -> str:
        """[B, T, width] and behind it the linear's own bias, and that of each image's adapter."""
        b, room = self.b, self.shape.linears.get(name)
        added = [] if bias is None else [b.const(f"{name}.bias", bias)]
        if room is not None and room.bias:
            added.append(self._by_image(name, "bias", (0, 1, room.outputs)))
        if len(added) == 2:
            added = [b.op("Add", added, f"{name}/bias/total")]
        return b.op("Add", [y, *added], f"{name}/shifted") if added else y


def _number(name: str) -> int:
    """Of the block in a name such as blocks.3.attn."""
    return int(name.split(".")[1])
