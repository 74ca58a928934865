"""An isotropic Vision Transformer, described completely, and the digest of its weights.

The description is read off a timm module (`vptkit.tune.describe`), never guessed from a name.
With it, export needs neither torch nor timm. Tensors keep timm's names.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from vptkit.errors import BackboneError
from vptkit.tensors import read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["BackboneSpec", "digest_of_weights", "is_head", "read_weights", "tensor_shapes"]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """A plain pre-norm ViT: patches → prefix tokens + position → L equal blocks → norm → pool.

    Attributes:
        image_size, patch_size: (height, width) in pixels; the grid is their quotient, rounded down.
        width, depth, heads, mlp_width: d, L, h, and the hidden width of the MLP.
        activation: of the MLP.
        qkv_bias, proj_bias, patch_bias: whether these linears have a bias (proj_bias: MLP too).
        norm_eps: epsilon of every LayerNorm.
        class_token, dist_token: one learned token each; dist_token is DeiT's.
        registers: number of register tokens. Order: class, distillation or registers, patches.
        pos_embed: "all" tokens get one, only "patches", or "none".
        norm_pre: a LayerNorm stands between the embedding and block 0.
        layer_scale: both branches of each block end in a LayerScale.
        final_norm: timm's name of the final norm, or None.
        pool: timm's own pooling, "token" or "avg"; the default of a new adapter.
    """

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    width: int
    depth: int
    heads: int
    mlp_width: int
    activation: Activation
    qkv_bias: bool
    proj_bias: bool
    patch_bias: bool
    norm_eps: float
    class_token: bool
    dist_token: bool
    registers: int
    pos_embed: Literal["all", "patches", "none"]
    norm_pre: bool
    layer_scale: bool
    final_norm: Literal["norm", "fc_norm"] | None
    pool: Literal["token", "avg"]

    def __post_init__(self) -> None:
        """Check that the numbers fit together.

        Raises:
            BackboneError: they do not.
        """
        wrong = [n for n, kind in get_type_hints(type(self)).items() if not _is(self, n, kind)]
        if wrong:
            raise BackboneError(
                f"backbone spec: {wrong[0]} is {getattr(self, wrong[0])!r}, which it cannot be"
            )
        sizes = (*self.image_size, *self.patch_size, self.width, self.depth, self.heads)
        if min(*sizes, self.mlp_width) < 1 or self.registers < 0 or self.norm_eps <= 0:
            raise BackboneError(f"backbone spec: a size is not positive: {self.to_json()}")
        if self.width % self.heads:
            raise BackboneError(
                f"backbone spec: width {self.width} is not a multiple of {self.heads} heads"
            )
        if 0 in self.grid:
            raise BackboneError(
                f"backbone spec: image {self.image_size} is smaller than patch {self.patch_size}"
            )
        if self.pool == "token" and not self.class_token:
            raise BackboneError("backbone spec: token pooling needs a class token")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return (
            self.image_size[0] // self.patch_size[0],
            self.image_size[1] // self.patch_size[1],
        )

    @property
    def patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches: class, distillation, registers."""
        return int(self.class_token) + int(self.dist_token) + self.registers

    @property
    def tokens(self) -> int:
        """T = prefix + N; prompts not counted."""
        return self.prefix + self.patches

    @property
    def head_width(self) -> int:
        """e, the width of one attention head."""
        return self.width // self.heads

    def to_json(self) -> dict[str, Any]:
        """As the adapter file and the manifest write it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> BackboneSpec:
        """Read what `to_json` wrote.

        Raises:
            BackboneError: keys are missing or unknown, or the numbers do not fit together.
        """
        expected = {field.name for field in fields(cls)}
        if not hasattr(document, "keys") or set(document) != expected:
            found = set(document) if hasattr(document, "keys") else {repr(document)}
            raise BackboneError(
                f"backbone spec: missing {sorted(expected - found)}, unknown "
                f"{sorted(found - expected)}; was it written by another version of vptkit?"
            )
        values = dict(document)
        try:
            for name in ("image_size", "patch_size"):
                height, width = values[name]
                values[name] = (int(height), int(width))
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise BackboneError(f"backbone spec: {error}") from error


def _is(spec: BackboneSpec, name: str, kind: Any) -> bool:
    """Whether a field holds a value of its declared kind (True is no number, nor is NaN)."""
    value = getattr(spec, name)
    if get_origin(kind) is tuple:
        return type(value) is tuple and [type(item) for item in value] == [int, int]
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if isinstance(kind, type):
        return type(value) is kind
    words = [word for part in (kind, *get_args(kind)) for word in get_args(part)]
    return value in [word for word in words if isinstance(word, str)] or (
        value is None and type(None) in get_args(kind)
    )


def tensor_shapes(spec: BackboneSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor of a backbone but the classifier: timm name → shape."""
    d, position = spec.width, {"all": spec.tokens, "patches": spec.patches, "none": 0}
    rows = {  # name → number of rows, 0 where the backbone has none
        "cls_token": int(spec.class_token),
        "dist_token": int(spec.dist_token),
        "reg_token": spec.registers,
        "pos_embed": position[spec.pos_embed],
    }
    shapes: dict[str, tuple[int, ...]] = {name: (1, n, d) for name, n in rows.items() if n}
    shapes["patch_embed.proj.weight"] = (d, 3, *spec.patch_size)
    if spec.patch_bias:
        shapes["patch_embed.proj.bias"] = (d,)
    norms = ["norm_pre"] if spec.norm_pre else []
    norms += [spec.final_norm] if spec.final_norm is not None else []
    for i in range(spec.depth):
        norms += [f"blocks.{i}.norm1", f"blocks.{i}.norm2"]
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in _block_shapes(spec).items()}
    shapes |= {f"{norm}.{part}": (d,) for norm in norms for part in ("weight", "bias")}
    return shapes


def _block_shapes(spec: BackboneSpec) -> dict[str, tuple[int, ...]]:
    """The linears and scales of one block."""
    d, e = spec.width, spec.mlp_width
    shapes: dict[str, tuple[int, ...]] = {}
    for name, out, inner, bias in (
        ("attn.qkv", 3 * d, d, spec.qkv_bias),
        ("attn.proj", d, d, spec.proj_bias),
        ("mlp.fc1", e, d, spec.proj_bias),
        ("mlp.fc2", d, e, spec.proj_bias),
    ):
        shapes[f"{name}.weight"] = (out, inner)
        if bias:
            shapes[f"{name}.bias"] = (out,)
    if spec.layer_scale:
        shapes["ls1.gamma"] = shapes["ls2.gamma"] = (d,)
    return shapes


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
        digest.update(value.tobytes())
    return digest.hexdigest()


def read_weights(path: Path, spec: BackboneSpec) -> dict[str, NDArray[np.float32]] | None:
    """Read a backbone's tensors from a safetensors file, without torch.

    Args:
        path: the file; float16, bfloat16, float32 or float64, timm names.
        spec: which tensors to expect.

    Returns:
        float32 tensors by name, classifier left out; None if the file holds this backbone in
        another form (names or a position grid that timm would convert on loading).

    Raises:
        BackboneError: the file is missing or broken, or holds NaN or Inf.
    """
    weights = {
        name: value
        for name, value in read_tensors(path, BackboneError).items()
        if not is_head(name)
    }
    expected = tensor_shapes(spec)
    if {name: value.shape for name, value in weights.items()} != expected:
        return None
    result = {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}
    for name, value in result.items():
        if not np.isfinite(value).all():
            raise BackboneError(f"{path}: {name} holds NaN or Inf; the file is damaged")
    return result
