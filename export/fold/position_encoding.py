"""Positions inside attention as constants: rotary embedding and relative position bias.

timm's own arithmetic in float64 numpy, from the description alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec, RelativePositions, Rotary

    from .block_tensors import Array, Tensors

__all__ = ["RelativeBias", "Rotation", "half_layout", "relative_bias", "rotation"]


class Rotation(NamedTuple):
    """Angles of the patches, for heads whose channels stand as pairs (j, j + e/2).

    y = x cos + swap(x) sin, where swap exchanges the halves of each head; sin carries the sign.
    """

    name: str
    cos: Array  # [1 or h, N, e]
    sin: Array  # [1 or h, N, e]


class RelativeBias(NamedTuple):
    """bias[h, query, key] = table[h, columns[query, key]]; the table's last column is zero."""

    name: str
    table: Array  # [h, R + 1]
    columns: NDArray[np.int64]  # [T, T]


def half_layout(head_width: int) -> NDArray[np.int64]:
    """Order of one head's channels that turns neighbouring pairs into pairs (j, j + e/2).

    Queries and keys in the same new order have the same dot products.
    """
    return np.concatenate([np.arange(0, head_width, 2), np.arange(1, head_width, 2)])


def rotation(spec: BackboneSpec, tensors: Tensors, i: int) -> Rotation | None:
    """The rotation of block i, or None."""
    rotary = spec.rotary
    if rotary is None:
        return None
    if rotary.kind == "mixed":
        x, y = _grid(spec.grid, rotary).reshape(-1, 2).T
        freqs = tensors("rope.freqs")[:, i]  # [2, h, e/2]
        angles = x[:, None] * freqs[0][:, None] + y[:, None] * freqs[1][:, None]  # [h, N, e/2]
        name = f"blocks.{i}.rope"
    else:
        axial = _axial if rotary.kind == "axial" else _centered
        angles = axial(spec, rotary)[None]
        name = "rope"
    cos, sin = np.cos(angles), np.sin(angles)
    return Rotation(name, np.concatenate([cos, cos], axis=-1), np.concatenate([-sin, sin], axis=-1))


def _axial(spec: BackboneSpec, rotary: Rotary) -> Array:
    """EVA-02: each axis' grid index times frequencies 1 / t^(j / n): [N, e/2]."""
    n = spec.head_width // 4
    bands = 1.0 / rotary.temperature ** (np.arange(n) / n)
    positions = _grid(spec.grid, rotary)  # [H, W, 2]
    return np.asarray((positions[..., None] * bands).reshape(-1, 2 * n))


def _grid(shape: tuple[int, int], rotary: Rotary) -> Array:
    """Positions of the patches on both axes, the first one first: [H, W, 2]."""
    axes = [np.arange(size, dtype=np.float64) + rotary.offset for size in shape]
    if rotary.reference is not None:
        axes = [x / n * r for x, n, r in zip(axes, shape, rotary.reference, strict=True)]
    return _mesh(axes, rotary)


def _mesh(axes: list[Array], rotary: Rotary) -> Array:
    rows, columns = np.meshgrid(*axes, indexing="ij")
    pair = (rows, columns) if rotary.indexing == "ij" else (columns, rows)
    return np.stack(pair, axis=-1)


def _centered(spec: BackboneSpec, rotary: Rotary) -> Array:
    """DINOv3: coordinates in -1..1 times 2π / period: [N, e/2]."""
    n, grid = spec.head_width // 4, spec.grid
    if rotary.periods is not None:
        shortest, longest = rotary.periods
        periods = shortest * (longest / shortest) ** np.linspace(0, 1, n)
    else:
        periods = rotary.temperature ** (2.0 * np.arange(n) / (spec.head_width // 2))
    sizes = {"separate": grid, "min": (min(grid),) * 2, "max": (max(grid),) * 2}[rotary.normalize]
    axes = [
        2.0 * ((np.arange(size) + 0.5 + rotary.offset) / whole) - 1.0
        for size, whole in zip(grid, sizes, strict=True)
    ]
    positions = _mesh(axes, rotary)
    return np.asarray((2.0 * math.pi * positions[..., None] / periods).reshape(-1, 2 * n))


def relative_bias(spec: BackboneSpec, tensors: Tensors, i: int) -> RelativeBias | None:
    """The relative position bias of block i, or None."""
    relative = spec.relative
    if relative is None:
        return None
    name = "relative" if relative.shared else f"blocks.{i}.attn.relative"
    head = "" if relative.shared else f"blocks.{i}.attn."
    if relative.kind == "table":
        table = "relative_position_bias_table"
        values = tensors(f"{head}{table}" if head else f"rel_pos_bias.{table}")  # [R, h]
    else:
        mlp = f"{head}rel_pos.mlp" if head else "shared_rel_pos.mlp"
        values = _log_mlp(spec.grid, relative, tensors, mlp)
    zero = np.zeros((1, spec.heads))
    table_zero = np.concatenate([values, zero]).T
    return RelativeBias(name, np.ascontiguousarray(table_zero), _index(spec, len(values)))


def _log_mlp(
    grid: tuple[int, int], relative: RelativePositions, tensors: Tensors, name: str
) -> Array:
    """Bias for each offset: MLP of its signed logarithm (Swin V2, equation 3): [R, h]."""
    axes = [np.arange(-(n - 1), n, dtype=np.float64) for n in grid]
    if relative.mode == "swin":
        axes = [8.0 * axis / (n - 1) for axis, n in zip(axes, grid, strict=True)]
        axes = [np.sign(axis) * np.log2(1 + np.abs(axis)) / np.log2(8) for axis in axes]
    else:
        axes = [np.sign(axis) * np.log(1 + np.abs(axis)) for axis in axes]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    fc1, fc2 = tensors.linear(f"{name}.fc1"), tensors.linear(f"{name}.fc2")
    values = np.maximum(offsets @ fc1.w + fc1.b, 0.0) @ fc2.w + fc2.b
    return 16.0 / (1.0 + np.exp(-values)) if relative.mode == "swin" else values


def _index(spec: BackboneSpec, zero: int) -> NDArray[np.int64]:
    """Column of the table for each query and key [T, T]; `zero` is the column of zeros."""
    (rows, columns), prefix = spec.grid, spec.prefix
    y, x = (axis.ravel() for axis in np.meshgrid(range(rows), range(columns), indexing="ij"))
    dy, dx = y[:, None] - y[None] + rows - 1, x[:, None] - x[None] + columns - 1
    index = np.full((spec.tokens, spec.tokens), zero, dtype=np.int64)
    index[prefix:, prefix:] = dy * (2 * columns - 1) + dx
    if spec.relative is not None and spec.relative.kind == "table":
        # BEiT's last three entries: class to patch, patch to class, class to class
        index[0, :], index[:, 0], index[0, 0] = zero - 3, zero - 2, zero - 1
    return index
