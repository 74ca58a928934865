"""A block's tensors under one set of names, whatever timm's class calls and fuses them.

float64 throughout; linears act on the right, y = x W + b with W [in, out].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vptkit.backbones.stored_tensor import Overlaid
from vptkit.formats.backbone_weights import attention_branches, mlp_branches
from vptkit.formats.weight_deltas import changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.backbone_weights import Branch

    Array = NDArray[np.float64]

__all__ = ["AttentionParts", "Linear", "MlpParts", "Norm", "Tensors", "block_parts"]


class Linear(NamedTuple):
    """y = x w + b."""

    w: Array  # [in, out]
    b: Array  # [out]


class Norm(NamedTuple):
    """x̂ γ + β; β is zero where the norm has none."""

    gamma: Array  # [d]
    beta: Array  # [d]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionParts:
    """One attention branch.

    Attributes:
        norm: before it (or behind it, in a post-norm block).
        q, k, v: apart, with a bias of zeros where there is none.
        q_norm, k_norm: for each head, or None.
        out_norm: before proj, or None.
        proj: the last linear.
        scale: LayerScale [d], or None.
    """

    norm: Norm
    q: Linear
    k: Linear
    v: Linear
    q_norm: Norm | None
    k_norm: Norm | None
    out_norm: Norm | None
    proj: Linear
    scale: Array | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpParts:
    """One MLP branch: fc2(out_norm(act(fc1 x))), or with a gate fc2(out_norm(act(gate x) · fc1 x)).

    Attributes:
        norm: before it (or behind it, in a post-norm block).
        fc1, gate, fc2: gate is None in a plain MLP.
        out_norm: before fc2, or None.
        scale: LayerScale [d], or None.
    """

    norm: Norm
    fc1: Linear
    gate: Linear | None
    out_norm: Norm | None
    fc2: Linear
    scale: Array | None


class Tensors:
    """A backbone's tensors by timm name as float64, as an adapter has them."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], adapter: Adapter | None = None) -> None:
        """Hold the tensors; nothing is read or converted before it is asked for.

        Args:
            tensors: the backbone's own.
            adapter: its tuned LayerNorms stand in their place, its weight deltas are applied.
        """
        norms = {} if adapter is None else adapter.layer_norms()
        self._tensors = Overlaid(norms, tensors)
        self._deltas = {} if adapter is None else adapter.weight_deltas()

    def __call__(self, name: str) -> Array:
        """One tensor."""
        return changed(self._tensors[name], name, self._deltas)

    def linear(self, name: str) -> Linear:
        """A linear of torch's layout [out, in], transposed."""
        w = self(f"{name}.weight").T
        return Linear(w, self.optional(f"{name}.bias", w.shape[1]))

    def norm(self, name: str) -> Norm:
        """Weight and bias of a norm."""
        gamma = self(f"{name}.weight")
        return Norm(gamma, self.optional(f"{name}.bias", len(gamma)))

    def optional(self, name: str, size: int) -> Array:
        """One tensor, or zeros."""
        return self(name) if name in self._tensors else np.zeros(size)


def block_parts(
    spec: BackboneSpec, tensors: Tensors, i: int
) -> tuple[tuple[AttentionParts, ...], tuple[MlpParts, ...]]:
    """The attentions and the MLPs of block i.

    In a "parallel" block both carry the same norm and the same LayerScale.
    """
    if spec.block == "parallel":
        return _parallel(spec, tensors, i)
    attentions = attention_branches(spec, i)
    kv = spec.key_heads(i) * spec.head_width
    return (
        tuple(_attention(spec, tensors, branch, kv) for branch in attentions),
        tuple(_mlp(spec, tensors, branch) for branch in mlp_branches(spec, i)),
    )


def _attention(spec: BackboneSpec, tensors: Tensors, branch: Branch, kv: int) -> AttentionParts:
    name = branch.module
    q, k, v = _queries_keys_values(spec, tensors, name, kv)
    return AttentionParts(
        norm=tensors.norm(branch.norm),
        q=q,
        k=k,
        v=v,
        q_norm=tensors.norm(f"{name}.q_norm") if spec.qk_norm else None,
        k_norm=tensors.norm(f"{name}.k_norm") if spec.qk_norm else None,
        out_norm=tensors.norm(f"{name}.norm") if spec.attention_norm else None,
        proj=tensors.linear(f"{name}.proj"),
        scale=None if branch.scale is None else tensors(branch.scale),
    )


def _queries_keys_values(
    spec: BackboneSpec, tensors: Tensors, name: str, kv: int
) -> tuple[Linear, Linear, Linear]:
    d = spec.width
    if spec.qkv == "separate":
        q, k, v = (tensors.linear(f"{name}.{letter}_proj") for letter in "qkv")
        return q, k, v
    qkv = tensors.linear(f"{name}.qkv")
    if spec.qkv == "fused_no_key_bias":
        parts = tensors.optional(f"{name}.q_bias", d), tensors.optional(f"{name}.v_bias", kv)
        qkv = Linear(qkv.w, np.concatenate([parts[0], np.zeros(kv), parts[1]]))
    return _cut(qkv, 0, d), _cut(qkv, d, d + kv), _cut(qkv, d + kv, d + 2 * kv)


def _mlp(spec: BackboneSpec, tensors: Tensors, branch: Branch) -> MlpParts:
    name, hidden = branch.module, spec.mlp_width
    gate: Linear | None = None
    if spec.mlp == "swiglu":
        gate, fc1 = tensors.linear(f"{name}.fc1_g"), tensors.linear(f"{name}.fc1_x")
    else:
        fc1 = tensors.linear(f"{name}.fc1")
        if spec.mlp == "glu":
            gate, fc1 = _cut(fc1, 0, hidden), _cut(fc1, hidden, 2 * hidden)
    return MlpParts(
        norm=tensors.norm(branch.norm),
        fc1=fc1,
        gate=gate,
        out_norm=tensors.norm(f"{name}.norm") if spec.mlp_norm else None,
        fc2=tensors.linear(f"{name}.fc2"),
        scale=None if branch.scale is None else tensors(branch.scale),
    )


def _parallel(
    spec: BackboneSpec, tensors: Tensors, i: int
) -> tuple[tuple[AttentionParts, ...], tuple[MlpParts, ...]]:
    """ViT-22B: one linear makes the MLP's hidden rows, queries, keys and values."""
    name, d, hidden = f"blocks.{i}", spec.width, spec.mlp_width
    norm, joint = tensors.norm(f"{name}.in_norm"), tensors.linear(f"{name}.in_proj")
    fc1 = _cut(joint, 0, hidden)
    fc1 = Linear(fc1.w, fc1.b + tensors.optional(f"{name}.mlp_bias", hidden))
    q, k, v = (_cut(joint, hidden + n * d, hidden + (n + 1) * d) for n in range(3))
    scale = tensors(f"{name}.ls.gamma") if spec.layer_scale else None
    attention = AttentionParts(
        norm=norm,
        q=q,
        k=k,
        v=v,
        q_norm=tensors.norm(f"{name}.q_norm") if spec.qk_norm else None,
        k_norm=tensors.norm(f"{name}.k_norm") if spec.qk_norm else None,
        out_norm=None,
        proj=tensors.linear(f"{name}.attn_out_proj"),
        scale=scale,
    )
    mlp = MlpParts(
        norm=norm,
        fc1=fc1,
        gate=None,
        out_norm=None,
        fc2=tensors.linear(f"{name}.mlp_out_proj"),
        scale=scale,
    )
    return (attention,), (mlp,)


def _cut(linear: Linear, start: int, stop: int) -> Linear:
    return Linear(linear.w[:, start:stop], linear.b[start:stop])
