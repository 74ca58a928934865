"""Multiply-accumulates of the L blocks, from the geometry alone (one image)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vptkit.backbone import BackboneSpec

    from .graph import LastBlock

__all__ = ["folded_macs", "unfolded_macs"]


def unfolded_macs(spec: BackboneSpec, prompts: int) -> int:
    """Prompts as tokens in every block (deep or shallow alike)."""
    rows = spec.tokens + prompts
    return spec.depth * _block(spec, queries=rows, keys=rows, rows=rows)


def folded_macs(
    spec: BackboneSpec, prompts: int, insert: str, pool: str, last_block: LastBlock
) -> int:
    """What the folded graph computes; see `graph.folded_graph`."""
    t = spec.tokens
    if insert == "shallow":
        # block 0: constant queries, keys and values of the prompts; later blocks: ordinary tokens
        t += prompts
        first = _block(spec, queries=t, keys=t, rows=spec.tokens) + _outputs(spec, prompts)
        middle, keys = _block(spec, queries=t, keys=t, rows=t), t
    else:
        keys = t + prompts
        first = middle = _block(spec, queries=t, keys=keys, rows=t)
    total = first + (spec.depth - 2) * middle if spec.depth > 1 else 0
    if pool == "avg_prompts" and insert == "deep":
        joined = _block(spec, queries=keys, keys=keys, rows=t) + _outputs(spec, prompts)
        return total + joined
    if spec.depth == 1 and insert == "shallow":
        return first
    if pool != "token" or last_block == "full":
        return total + middle
    d, h = spec.width, spec.heads
    outside = _outputs(spec, 1) + d * d  # projection and MLP of one row, its query
    if last_block == "query":
        return total + outside + 2 * t * d * d + 2 * keys * d
    # absorbed: q W_kᵀ and (a x̂) W_v per head, h·d numbers against each of t rows
    return total + outside + 2 * d * d + 2 * h * t * d + 2 * (keys - t) * d


def _outputs(spec: BackboneSpec, rows: int) -> int:
    """Projection and MLP."""
    return rows * spec.width * (spec.width + 2 * spec.mlp_width)


def _block(spec: BackboneSpec, *, queries: int, keys: int, rows: int) -> int:
    """Query, key, value linears for `rows`; attention; projection and MLP for `rows`."""
    d = spec.width
    return 3 * rows * d * d + 2 * queries * keys * d + _outputs(spec, rows)
