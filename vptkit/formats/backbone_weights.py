"""A backbone's tensors by timm name: which there are, and their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .backbone_spec import BackboneSpec

__all__ = [
    "Branch",
    "attention_branches",
    "digest_of_weights",
    "is_head",
    "mlp_branches",
    "norm_shapes",
    "tensor_shapes",
]

Shapes = dict[str, tuple[int, ...]]


class Branch(NamedTuple):
    """Names of one residual branch: its norm, its module, and its LayerScale (or None)."""

    norm: str
    module: str
    scale: str | None


def attention_branches(spec: BackboneSpec, i: int) -> tuple[Branch, ...]:
    """The attentions of block i (not of a "parallel" block, whose linears are fused)."""
    return _branches(spec, i, ("attn", "attns", "1"), scaled=spec.layer_scale)


def mlp_branches(spec: BackboneSpec, i: int) -> tuple[Branch, ...]:
    """The MLPs of block i (not of a "parallel" block)."""
    scaled = spec.layer_scale and spec.mlp_scale
    return _branches(spec, i, ("mlp", "ffns", "2"), scaled=scaled)


def _branches(
    spec: BackboneSpec, i: int, names: tuple[str, str, str], *, scaled: bool
) -> tuple[Branch, ...]:
    kind, several, number = names
    if spec.block == "branches":
        heads = [f"blocks.{i}.{several}.{j}" for j in range(spec.branches)]
        return tuple(
            Branch(f"{h}.norm", f"{h}.{kind}", f"{h}.ls.gamma" if scaled else None) for h in heads
        )
    scale = f"gamma_{number}" if spec.scale_names == "gamma" else f"ls{number}.gamma"
    head = f"blocks.{i}"
    return (
        Branch(f"{head}.norm{number}", f"{head}.{kind}", f"{head}.{scale}" if scaled else None),
    )


def tensor_shapes(spec: BackboneSpec) -> Shapes:
    """Every tensor of a backbone but the classifier: timm name → shape."""
    shapes = dict(_embedding(spec))
    for i in range(spec.depth):
        shapes |= dict(_parallel_block(spec, i) if spec.block == "parallel" else _block(spec, i))
        if spec.relative is not None and not spec.relative.shared:
            shapes |= dict(_relative(spec, f"blocks.{i}.attn."))
    if spec.relative is not None and spec.relative.shared:
        shapes |= dict(_relative(spec, ""))
    if spec.final_norm is not None:
        shapes |= dict(_norm(spec, spec.final_norm, spec.width))
    shapes |= dict(_attention_pool(spec))
    return shapes


def norm_shapes(spec: BackboneSpec) -> Shapes:
    """The tensors of every norm (weight, and bias unless it is an RMS norm): timm name → shape."""
    return {
        name: shape
        for name, shape in tensor_shapes(spec).items()
        if "norm" in name.rsplit(".", 1)[0].rsplit(".", 1)[-1]
    }


_Items = Iterator[tuple[str, tuple[int, ...]]]


def _embedding(spec: BackboneSpec) -> _Items:
    d, position = spec.width, {"all": spec.tokens, "patches": spec.patches, "none": 0}
    rows = {  # name → number of rows, 0 where the backbone has none
        "cls_token": int(spec.class_token),
        "dist_token": int(spec.dist_token),
        "reg_token": spec.registers,
        "pos_embed": position[spec.pos_embed],
    }
    yield from ((name, (1, n, d)) for name, n in rows.items() if n)
    yield "patch_embed.proj.weight", (d, 3, *spec.patch_size)
    if spec.patch_bias:
        yield "patch_embed.proj.bias", (d,)
    if spec.patch_norm:
        yield from _norm(spec, "patch_embed.norm", d)
    if spec.norm_pre:
        yield from _norm(spec, "norm_pre", d)
    if spec.rotary is not None and spec.rotary.kind == "mixed":
        yield "rope.freqs", (2, spec.depth, spec.heads, spec.head_width // 2)


def _norm(spec: BackboneSpec, name: str, size: int) -> _Items:
    yield f"{name}.weight", (size,)
    if spec.norm == "layer":
        yield f"{name}.bias", (size,)


def _linear(name: str, out: int, inner: int, *, bias: bool) -> _Items:
    yield f"{name}.weight", (out, inner)
    if bias:
        yield f"{name}.bias", (out,)


def _block(spec: BackboneSpec, i: int) -> _Items:
    for branch in attention_branches(spec, i):
        yield from _norm(spec, branch.norm, spec.width)
        yield from _attention(spec, branch.module, spec.key_heads(i) * spec.head_width)
        if branch.scale is not None:
            yield branch.scale, (spec.width,)
    for branch in mlp_branches(spec, i):
        yield from _norm(spec, branch.norm, spec.width)
        yield from _mlp(spec, branch.module)
        if branch.scale is not None:
            yield branch.scale, (spec.width,)


def _attention(spec: BackboneSpec, name: str, kv: int) -> _Items:
    d, bias = spec.width, spec.qkv_bias
    if spec.qkv == "separate":
        yield from _linear(f"{name}.q_proj", d, d, bias=bias)
        yield from _linear(f"{name}.k_proj", kv, d, bias=bias and spec.key_bias)
        yield from _linear(f"{name}.v_proj", kv, d, bias=bias)
    else:
        yield from _linear(f"{name}.qkv", d + 2 * kv, d, bias=bias and spec.qkv == "fused")
        if bias and spec.qkv == "fused_no_key_bias":
            yield f"{name}.q_bias", (d,)
            yield f"{name}.v_bias", (kv,)
    yield from _qk_norms(spec, name)
    if spec.attention_norm:
        yield from _norm(spec, f"{name}.norm", d)
    yield from _linear(f"{name}.proj", d, d, bias=spec.proj_bias)


def _qk_norms(spec: BackboneSpec, name: str) -> _Items:
    if spec.qk_norm:
        yield from _norm(spec, f"{name}.q_norm", spec.head_width)
        yield from _norm(spec, f"{name}.k_norm", spec.head_width)


def _mlp(spec: BackboneSpec, name: str) -> _Items:
    d, hidden, bias = spec.width, spec.mlp_width, spec.proj_bias
    if spec.mlp == "swiglu":
        yield from _linear(f"{name}.fc1_g", hidden, d, bias=bias)
        yield from _linear(f"{name}.fc1_x", hidden, d, bias=bias)
    else:
        rows = 2 * hidden if spec.mlp == "glu" else hidden
        yield from _linear(f"{name}.fc1", rows, d, bias=bias)
    if spec.mlp_norm:
        yield from _norm(spec, f"{name}.norm", hidden)
    yield from _linear(f"{name}.fc2", d, hidden, bias=bias)


def _parallel_block(spec: BackboneSpec, i: int) -> _Items:
    name, d, hidden = f"blocks.{i}", spec.width, spec.mlp_width
    yield from _norm(spec, f"{name}.in_norm", d)
    yield from _linear(f"{name}.in_proj", hidden + 3 * d, d, bias=spec.qkv_bias)
    if not spec.qkv_bias:
        yield f"{name}.mlp_bias", (hidden,)
    yield from _qk_norms(spec, name)
    yield from _linear(f"{name}.attn_out_proj", d, d, bias=spec.proj_bias)
    yield from _linear(f"{name}.mlp_out_proj", d, hidden, bias=spec.proj_bias)
    if spec.layer_scale:
        yield f"{name}.ls.gamma", (d,)


def _relative(spec: BackboneSpec, head: str) -> _Items:
    relative, (rows, columns) = spec.relative, spec.grid
    if relative is None:
        return
    if relative.kind == "table":
        name = f"{head}relative_position_bias_table"
        name = name if head else f"rel_pos_bias.{name}"
        yield name, ((2 * rows - 1) * (2 * columns - 1) + 3, spec.heads)
        return
    mlp = f"{head}rel_pos.mlp" if head else "shared_rel_pos.mlp"
    yield from _linear(f"{mlp}.fc1", relative.hidden, 2, bias=True)
    yield from _linear(f"{mlp}.fc2", spec.heads, relative.hidden, bias=relative.mode == "cr")


def _attention_pool(spec: BackboneSpec) -> _Items:
    pool, d, name = spec.attention_pool, spec.width, "attn_pool"
    if pool is None:
        return
    yield f"{name}.latent", (1, 1, d)
    yield from _linear(f"{name}.q", d, d, bias=True)
    yield from _linear(f"{name}.kv", 2 * d, d, bias=True)
    yield from _linear(f"{name}.proj", d, d, bias=True)
    yield from _norm(spec, f"{name}.norm", d)
    yield from _linear(f"{name}.mlp.fc1", pool.mlp_width, d, bias=True)
    yield from _linear(f"{name}.mlp.fc2", d, pool.mlp_width, bias=True)


def is_head(name: str) -> bool:
    """Whether a tensor belongs to the classifier (`head*`), which no adapter uses."""
    return name.startswith("head")


def digest_of_weights(weights: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the tensors other than the classifier.

    In the order of their names, each as `name`, a zero byte, its shape as a JSON list, a zero byte,
    and its values as little-endian float32.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in weights if not is_head(name)):
        value = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(name.encode() + b"\0" + json.dumps(list(value.shape)).encode() + b"\0")
        digest.update(value.reshape(-1).data)
    return digest.hexdigest()
