"""The same network with nothing folded: the graph that others would export.

Prompts are tokens, LayerNorm keeps its affine, query, key and value are one fused linear, the last
block computes every row. It is the yardstick for speed, and a second way to the same answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .builder import Builder
from .graph import GraphOptions, input_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from vptkit.adapter import Adapter
    from vptkit.backbone import BackboneSpec

__all__ = ["unfolded_graph"]


def unfolded_graph(
    spec: BackboneSpec,
    weights: Mapping[str, NDArray[Any]],
    adapter: Adapter,
    options: GraphOptions,
) -> onnx.ModelProto:
    """Write the graph.

    Args:
        spec: of the backbone.
        weights: its tensors by timm name.
        adapter: prompts, tuned LayerNorm parameters and head.
        options: input, batch and type; `last_block` has no meaning here.

    Returns:
        A model with the input and output of `folded_graph`.
    """
    writer = _Writer(spec, {**weights, **adapter.layer_norms()}, adapter, options)
    writer.logits()
    signature = input_signature(spec, options)
    return writer.b.model(
        "vptkit-unfolded", [signature], ("logits", (signature[2][0], len(adapter.labels)))
    )


class _Writer:
    def __init__(
        self,
        spec: BackboneSpec,
        tensors: Mapping[str, NDArray[Any]],
        adapter: Adapter,
        options: GraphOptions,
    ) -> None:
        self.spec, self.tensors, self.adapter, self.options = spec, tensors, adapter, options
        self.b = Builder(options.dtype)
        self.source = "images" if options.input == "uint8" else "pixels"

    def logits(self) -> str:
        spec, adapter, b = self.spec, self.adapter, self.b
        m, k = adapter.prompt_length, spec.prefix
        z, length = self.embed(), spec.tokens
        for i in range(spec.depth):
            if adapter.insert == "deep" or (adapter.insert == "shallow" and i == 0):
                z = self.insert(z, i, behind=k, rest=k + m if i else k, length=length)
                length = spec.tokens + m
            z = self.block(z, i, length)
        first = {"token": 0, "avg": length - spec.patches, "avg_prompts": int(spec.class_token)}
        stop = 1 if adapter.pool == "token" else length
        if adapter.norm == "before_pool":
            z = self.norm(z, spec.final_norm)
        z = b.slice(z, 1, first[adapter.pool], stop, "pool/rows")
        f = (
            b.reshape(z, (0, spec.width), "pool")
            if adapter.pool == "token"
            else b.op("ReduceMean", [z], "pool", axes=[1], keepdims=0)
        )
        if adapter.norm == "after_pool":
            f = self.norm(f, spec.final_norm)
        weight, bias = adapter.tensors["head.weight"], adapter.tensors["head.bias"]
        return b.linear(f, weight.T, bias, "logits")

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
        return self.norm(z, "norm_pre") if spec.norm_pre else z

    def insert(self, z: str, i: int, *, behind: int, rest: int, length: int) -> str:
        """Overwrite (or, before block 0, insert) the prompt rows."""
        b = self.b
        prompt = b.const(f"prompt.{i}", self.adapter.prompts(i)[None])
        parts = [self.batched(prompt, f"prompt.{i}")]
        parts.append(b.slice(z, 1, rest, length, f"blocks.{i}/behind"))
        if behind:
            parts.insert(0, b.slice(z, 1, 0, behind, f"blocks.{i}/before"))
        return b.op("Concat", parts, f"blocks.{i}/tokens", axis=1)

    def block(self, z: str, i: int, length: int) -> str:
        """A pre-norm block over all rows."""
        b, spec, name = self.b, self.spec, f"blocks.{i}"
        x = self.linear(self.norm(z, f"{name}.norm1"), f"{name}.attn.qkv")
        x = b.reshape(x, (0, length, 3, spec.heads, spec.head_width), f"{name}.attn/split")
        x = b.transpose(x, (2, 0, 3, 1, 4), f"{name}.attn/bhte")
        q, k, v = (
            b.op("Gather", [x, b.const(f"index/{n}", np.asarray(n))], f"{name}.attn/{c}", axis=0)
            for n, c in enumerate("qkv")
        )
        scale = b.const("scale", np.asarray(spec.head_width**-0.5))
        q = b.op("Mul", [q, scale], f"{name}.attn/q/scaled")
        k = b.transpose(k, (0, 1, 3, 2), f"{name}.attn/k_t")
        p = b.op("Softmax", [b.op("MatMul", [q, k], f"{name}.attn/qk")], f"{name}.attn/p", axis=-1)
        a = b.transpose(b.op("MatMul", [p, v], f"{name}.attn/mix"), (0, 2, 1, 3), f"{name}.attn/t")
        a = b.reshape(a, (0, length, spec.width), f"{name}.attn/rows")
        a = self.layer_scale(self.linear(a, f"{name}.attn.proj"), f"{name}.ls1")
        z = b.op("Add", [z, a], f"{name}/add1")
        x = self.linear(self.norm(z, f"{name}.norm2"), f"{name}.mlp.fc1")
        x = b.activation(spec.activation, x, f"{name}.mlp.act")
        x = self.layer_scale(self.linear(x, f"{name}.mlp.fc2"), f"{name}.ls2")
        return b.op("Add", [z, x], f"{name}/add2")

    def layer_scale(self, x: str, name: str) -> str:
        if not self.spec.layer_scale:
            return x
        return self.b.op("Mul", [x, self.tensor(f"{name}.gamma")], name)

    def norm(self, x: str, name: str | None) -> str:
        if name is None:
            return x
        gamma, beta = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return self.b.layer_norm(x, gamma, beta, self.spec.norm_eps, name)

    def linear(self, x: str, name: str) -> str:
        return self.b.linear(
            x, self.tensors[f"{name}.weight"].T, self.tensors.get(f"{name}.bias"), name
        )

    def tensor(self, name: str) -> str:
        return self.b.const(name, self.tensors[name])

    def batched(self, constant: str, name: str) -> str:
        return self.b.batched(constant, name, 3, self.options.batch, self.source)
