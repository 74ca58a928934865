"""An isotropic Vision Transformer, described completely, and the digest of its weights.

The description is read off a timm module (`tune.backbone.spec_from_timm`), never guessed from a name.
With it, export needs neither torch nor timm. Tensors keep timm's names (`backbone_weights`).
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from vptkit.errors import BackboneError
from vptkit.schema import abridged, integer, list_of, null_or, number, record, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vptkit.schema import Kind

__all__ = ["Activation", "AttentionPool", "BackboneSpec", "RelativePositions", "Rotary"]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu"]

# Ranges of the fields that decide memory or time. A ViT-22B is 48 deep, 6144 wide, its MLP 24,576;
# timm's largest image has 1024 pixels a side.
_SIDE, _PATCH, _WIDTH, _HEADS = 8192, 1024, 16_384, 1024
_DEPTH, _BRANCHES, _MLP, _REGISTERS = 512, 16, 131_072, 4096
_FREQUENCY = number(1e-6, 1e12)
_BOUNDS: dict[str, dict[str, Kind]] = {
    "BackboneSpec": {
        "image_size": list_of(integer(1, _SIDE), 2),
        "patch_size": list_of(integer(1, _PATCH), 2),
        "width": integer(1, _WIDTH),
        "depth": integer(1, _DEPTH),
        "heads": integer(1, _HEADS),
        "mlp_width": integer(1, _MLP),
        "norm_eps": number(0, 1),
        "registers": integer(0, _REGISTERS),
        "branches": integer(1, _BRANCHES),
    },
    "Rotary": {
        "temperature": _FREQUENCY,
        "periods": null_or(list_of(_FREQUENCY, 2)),
        "offset": number(-_SIDE, _SIDE),
        "reference": null_or(list_of(integer(1, _SIDE), 2)),
    },
    "RelativePositions": {"hidden": integer(0, _WIDTH)},
    "AttentionPool": {"heads": integer(1, _HEADS), "mlp_width": integer(1, _MLP)},
}
# What several fields decide together, in numbers.
_TOKENS, _EMBEDDED, _WEIGHTS, _OFFSETS = 1 << 18, 1 << 28, 1 << 37, 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """Rotary position embedding of the patches' queries and keys (prefix tokens take none).

    Attributes:
        kind: "axial" (EVA-02: grid indices), "centered" (DINOv3: coordinates in -1..1), "mixed"
            (learned frequencies for each block and head, tensor `rope.freqs`).
        rotate_half: pairs are (j, j + e/2) instead of neighbours.
        temperature: base of the frequencies (not of "mixed").
        periods: shortest and longest period of "centered", instead of a temperature.
        indexing: "ij" puts the row's frequencies first, "xy" the column's.
        offset: added to grid positions.
        reference: the grid that "axial" positions are rescaled to, or None.
        normalize: what "centered" coordinates are divided by.
    """

    kind: Literal["axial", "centered", "mixed"]
    rotate_half: bool = False
    temperature: float = 10000.0
    periods: tuple[float, float] | None = None
    indexing: Literal["ij", "xy"] = "ij"
    offset: float = 0.0
    reference: tuple[int, int] | None = None
    normalize: Literal["separate", "min", "max"] = "separate"

    def __post_init__(self) -> None:
        """Check kinds and ranges of the values."""
        _check(self)
        _require_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativePositions:
    """A learned bias on attention logits for each head and pair of patches (prompts take none).

    Attributes:
        kind: "table" (BEiT: one number for each offset, class token included), "mlp" (an MLP of
            the offsets' logarithms; prefix tokens take none).
        shared: one for all blocks.
        hidden: width of the MLP, 0 for a table.
        mode: timm's scale of the offsets: "cr" or "swin".
    """

    kind: Literal["table", "mlp"]
    shared: bool = False
    hidden: int = 0
    mode: Literal["cr", "swin"] = "cr"

    def __post_init__(self) -> None:
        """Check kinds and ranges of the values."""
        _check(self)
        _require_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPool:
    """A latent query that pools the tokens, and an MLP behind it (SigLIP).

    Attributes:
        heads, mlp_width, activation: of the pool.
        prefix: the tokens before the patches are pooled too.
    """

    heads: int
    mlp_width: int
    activation: Activation = "gelu"
    prefix: bool = False

    def __post_init__(self) -> None:
        """Check kinds and ranges of the values."""
        _check(self)
        _require_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """An isotropic ViT: patches → prefix tokens + position → L alike blocks → norm → pool.

    The fields with a default are what a plain ViT does without; they are written only if set.

    Attributes:
        image_size, patch_size: (height, width) in pixels; the grid is their quotient, rounded down.
        width, depth, heads, mlp_width: d, L, h, and the hidden width of the MLP.
        activation: of the MLP.
        qkv_bias, proj_bias, patch_bias: whether these linears have a bias (proj_bias: MLP too).
        norm_eps: epsilon of every norm.
        class_token, dist_token: one learned token each; dist_token is DeiT's.
        registers: number of register tokens. Order: class, distillation or registers, patches.
        pos_embed: "all" tokens get one, only "patches", or "none".
        norm_pre: a norm stands between the embedding and block 0.
        layer_scale: the branches of each block end in a LayerScale.
        final_norm: timm's name of the final norm, or None.
        pool: timm's own pooling, "token", "avg" or "map"; the default of a new adapter.
        norm: every norm is a LayerNorm ("layer") or x / rms(x) without shift ("rms").
        block: "pre" x + f(norm x); "post" x + norm(f x); "parallel": attention and MLP of one norm
            are added at once (ViT-22B); "branches": several of each side by side (18x2).
        branches: number of attentions, and of MLPs, in each block.
        qkv: "fused" (one linear), "fused_no_key_bias" (EVA, BEiT), "separate" (three linears).
        key_bias: whether "separate" keys have a bias.
        kv_heads: key/value heads of each block (grouped-query attention); empty: as many as heads.
        qk_norm: queries and keys are normalised for each head.
        attention_norm, mlp_norm: a norm stands before the last linear of the branch.
        mlp: "mlp"; "glu" (act(gate) · x, both of one linear fc1), "swiglu" (of two linears).
        patch_norm: a norm inside the patch embedding, before the position.
        scale_names: LayerScale is `ls1.gamma` ("ls") or `gamma_1` ("gamma").
        mlp_scale: LayerScale stands behind the MLP too.
        rotary, relative, attention_pool: see there.
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
    pool: Literal["token", "avg", "map"]
    norm: Literal["layer", "rms"] = "layer"
    block: Literal["pre", "post", "parallel", "branches"] = "pre"
    branches: int = 1
    qkv: Literal["fused", "fused_no_key_bias", "separate"] = "fused"
    key_bias: bool = True
    kv_heads: tuple[int, ...] = ()
    qk_norm: bool = False
    attention_norm: bool = False
    mlp_norm: bool = False
    mlp: Literal["mlp", "glu", "swiglu"] = "mlp"
    patch_norm: bool = False
    scale_names: Literal["ls", "gamma"] = "ls"
    mlp_scale: bool = True
    rotary: Rotary | None = None
    relative: RelativePositions | None = None
    attention_pool: AttentionPool | None = None

    def __post_init__(self) -> None:
        """Check that the numbers fit together.

        Raises:
            BackboneError: they do not.
        """
        _check(self)
        sizes = (*self.image_size, *self.patch_size, self.width, self.depth, self.heads)
        if (
            min(*sizes, self.mlp_width, self.branches, *self.kv_heads) < 1
            or self.registers < 0
            or self.norm_eps <= 0
        ):
            raise BackboneError(f"backbone spec: a size is not positive: {self.to_json()}")
        if self.width % self.heads:
            raise BackboneError(
                f"backbone spec: width {self.width} is not a multiple of {self.heads} heads"
            )
        _require_bounds(self)
        if 0 in self.grid:
            raise BackboneError(
                f"backbone spec: image {self.image_size} is smaller than patch {self.patch_size}"
            )
        self._check_products()
        self._check_structure()

    def _check_products(self) -> None:
        heads = self.heads if self.relative is not None else 0
        patch = 3 * self.patch_size[0] * self.patch_size[1] * self.width
        block = 4 * self.width**2 + 3 * self.width * self.mlp_width
        for found, most, what in (
            (self.tokens, _TOKENS, "tokens"),
            (self.tokens * self.width, _EMBEDDED, "numbers in its tokens"),
            (patch, _EMBEDDED, "numbers in its patch embedding"),
            (self.depth * self.branches * block, _WEIGHTS, "numbers in its blocks"),
            (heads * self.tokens**2, _OFFSETS, "numbers in its relative positions"),
        ):
            if found > most:
                raise BackboneError(
                    f"backbone spec: has {found} {what}, at most {most} are possible"
                )

    def _check_structure(self) -> None:
        if self.pool == "token" and not self.class_token:
            raise BackboneError("backbone spec: token pooling needs a class token")
        if (self.pool == "map") != (self.attention_pool is not None):
            raise BackboneError("backbone spec: pool 'map' and attention_pool go together")
        if self.kv_heads and (
            len(self.kv_heads) != self.depth or any(self.heads % n for n in self.kv_heads)
        ):
            raise BackboneError(
                f"backbone spec: kv_heads {self.kv_heads} do not fit {self.depth} blocks of "
                f"{self.heads} heads"
            )
        if self.rotary is not None and self.head_width % 4:
            raise BackboneError(
                f"backbone spec: rotary embedding needs heads whose width is a multiple of 4, not "
                f"{self.head_width}"
            )

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

    def key_heads(self, i: int) -> int:
        """Key/value heads of block i."""
        return self.kv_heads[i] if self.kv_heads else self.heads

    def to_json(self) -> dict[str, Any]:
        """As the adapter file and the manifest write it."""
        document: dict[str, Any] = _to_json(self)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> BackboneSpec:
        """Read what `to_json` wrote.

        Raises:
            BackboneError: keys are missing or unknown, or the numbers do not fit together.
        """
        spec: BackboneSpec = _from_json(cls, document)
        return spec


# JSON of a dataclass: a field at its default is left out ---------------------------------------


def _to_json(value: Any) -> Any:
    if is_dataclass(value):
        return {
            f.name: _to_json(getattr(value, f.name))
            for f in fields(value)
            if f.default is MISSING or getattr(value, f.name) != f.default
        }
    return list(value) if isinstance(value, tuple) else value


def _from_json(cls: Any, document: Any) -> Any:
    known = {f.name for f in fields(cls)}
    required = {f.name for f in fields(cls) if f.default is MISSING}
    found = set(document) if hasattr(document, "keys") else {abridged(document)}
    if found - known or required - found:
        raise BackboneError(
            f"backbone spec: missing {sorted(required - found)}, unknown "
            f"{sorted(found - known)[:20]}; was it written by another version of vptkit?"
        )
    hints = _hints(cls)
    try:
        return cls(**{name: _value(hints[name], value) for name, value in document.items()})
    except (TypeError, ValueError) as error:
        raise BackboneError(f"backbone spec: {error}") from error


def _value(kind: Any, value: Any) -> Any:
    nested = [k for k in (kind, *get_args(kind)) if is_dataclass(k)]
    if nested and hasattr(value, "keys"):
        return _from_json(nested[0], value)
    return tuple(value) if isinstance(value, list) else value


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """Fields and kinds of a dataclass; found out anew they would take longer than all the rest."""
    return get_type_hints(cls)


def _check(item: Any) -> None:
    """Refuse a field whose value is not of its declared kind."""
    for name, kind in _hints(type(item)).items():  # type: ignore[arg-type]
        value = getattr(item, name)
        if not _is(value, kind):
            raise BackboneError(f"backbone spec: {name} is {abridged(value)}, which it cannot be")


def _require_bounds(item: Any) -> None:
    """Refuse a number that is out of its range."""
    bounds = _BOUNDS[type(item).__name__]
    document = {name: getattr(item, name) for name in bounds}
    require(document, record(bounds), "backbone spec", BackboneError)


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a declared kind (True is no number, nor is NaN)."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is(value, part) for part in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        parts = [args[0]] * len(value) if args[-1] is Ellipsis and type(value) is tuple else args
        return (
            type(value) is tuple
            and len(value) == len(parts)
            and all(_is(v, part) for v, part in zip(value, parts, strict=True))
        )
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind
