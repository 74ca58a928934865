"""Multiply-accumulates of the L blocks, from the geometry alone (one image)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.backbones.merge_schedule import tokens_of_blocks
from vptkit.export.fold.last_block import absorbable
from vptkit.formats.bank_tables import bank_linears

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.backbones.merge_schedule import TokenMerging
    from vptkit.export.fold.last_block import LastBlock
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.bank_tables import BankShape

__all__ = ["folded_macs", "folded_queries", "learned_macs", "low_rank_macs", "unfolded_macs"]


def learned_macs(spec: BackboneSpec, queries: Sequence[int], learned: Mapping[int, int]) -> int:
    """Of learned keys and values: scores and mix.

    Args:
        spec: of the backbone.
        queries: of each block, or one number for all.
        learned: block → how many keys.
    """
    return sum(2 * queries[i % len(queries)] * n * spec.width for i, n in learned.items())


def folded_queries(
    spec: BackboneSpec,
    prompts: int,
    insert: str,
    pool: str,
    last_block: LastBlock,
    merging: TokenMerging | None = None,
) -> list[int]:
    """How many queries each block of the folded graph has."""
    shallow = prompts if insert == "shallow" else 0
    found = [attending + shallow for attending, _ in _tokens(spec, merging)]
    if insert == "deep" and pool == "avg_prompts":
        found[-1] += prompts
    if pool == "token" and last_block != "full" and not (insert == "shallow" and spec.depth == 1):
        found[-1] = 1
    return found


def unfolded_macs(spec: BackboneSpec, prompts: int) -> int:
    """Prompts as tokens in every block (deep or shallow alike)."""
    rows = spec.tokens + prompts
    return sum(
        _block(spec, i, queries=rows, keys=rows, rows=(rows, rows)) for i in range(spec.depth)
    )


def folded_macs(
    spec: BackboneSpec,
    prompts: int,
    insert: str,
    pool: str,
    last_block: LastBlock,
    merging: TokenMerging | None = None,
) -> int:
    """What the folded graph computes; see `folded_graph.folded_graph`."""
    return sum(
        _folded_block(spec, i, prompts, insert, pool, last_block, tokens)
        + _matching(spec, *tokens)
        + _rotating(spec, tokens[0])
        for i, tokens in enumerate(_tokens(spec, merging))
    )


def _tokens(spec: BackboneSpec, merging: TokenMerging | None) -> list[tuple[int, int]]:
    """Of each block: tokens that attend, and tokens that are left (`tokens_of_blocks`)."""
    schedule = [0] * spec.depth if merging is None else merging.schedule
    return tokens_of_blocks(schedule, spec)


def _matching(spec: BackboneSpec, attending: int, kept: int) -> int:
    """Similarities of half the tokens with the other half, and means and sizes of those that merge."""
    r = attending - kept
    if not r:
        return 0
    even, odd = (len(range(spec.prefix + (spec.prefix + n) % 2, attending, 2)) for n in (0, 1))
    sizes = 1 if attending < spec.tokens else 0  # a product of their own once they differ
    carried = 0 if spec.rotary is None else spec.head_width
    if _turns_by_block(spec):
        carried = spec.tokens
    return even * odd * spec.head_width + odd * r * (spec.width + carried + sizes)


def _rotating(spec: BackboneSpec, attending: int) -> int:
    """Mean cosines and sines of merged tokens, where each block has its own (`RotationWriter`)."""
    if attending == spec.tokens or not _turns_by_block(spec):
        return 0
    return attending * spec.tokens * spec.heads * spec.head_width


def _turns_by_block(spec: BackboneSpec) -> bool:
    return spec.rotary is not None and spec.rotary.kind == "mixed"


def low_rank_macs(
    spec: BackboneSpec,
    shape: BankShape,
    pool: str,
    last_block: LastBlock,
    merging: TokenMerging | None = None,
) -> int:
    """What a bank computes beside its linears, of the ranks that it has room for."""
    tokens = _tokens(spec, merging)
    return sum(
        _factors(spec, shape, name, pool, last_block, tokens[int(name.split(".")[1])])
        for name, room in shape.linears.items()
        if room.rank
    )


def _factors(
    spec: BackboneSpec,
    shape: BankShape,
    name: str,
    pool: str,
    last_block: LastBlock,
    tokens: tuple[int, int],
) -> int:
    room, kind = shape.linears[name], bank_linears(spec)[name].kind
    once = room.rank * (room.inputs + room.outputs)  # of one row
    rows = tokens[0] if kind in ("q", "k", "v", "proj") else _seen_by_mlp(spec, tokens)
    rows += shape.prompts if kind in ("k", "v") else 0
    last = name.startswith(f"blocks.{spec.depth - 1}.")
    if not last or pool != "token" or last_block == "full":
        return rows * once
    if kind not in ("k", "v"):
        return once
    if last_block == "query" or not absorbable(spec):
        return rows * once
    return room.rank * (spec.heads * room.inputs + room.outputs)


def _folded_block(
    spec: BackboneSpec,
    i: int,
    prompts: int,
    insert: str,
    pool: str,
    last_block: LastBlock,
    tokens: tuple[int, int],
) -> int:
    t, kept, m = tokens[0], _seen_by_mlp(spec, tokens), prompts
    last = i == spec.depth - 1
    if insert == "shallow" and i == 0:
        # constant queries, keys and values of the prompts
        return _block(spec, i, queries=t + m, keys=t + m, rows=(t, kept)) + _outputs(spec, m, m)
    if insert == "shallow":
        t, kept, m = t + m, kept + m, 0  # ordinary tokens
    if last and insert == "deep" and pool == "avg_prompts":
        return _block(spec, i, queries=t + m, keys=t + m, rows=(t, kept)) + _outputs(spec, m, m)
    if not last or pool != "token" or last_block == "full":
        return _block(spec, i, queries=t, keys=t + m, rows=(t, kept))
    d, h = spec.width, spec.heads
    outside = (
        _outputs(spec, 1, 1) + spec.branches * d * d
    )  # projection and MLP of one row, its query
    if last_block == "query" or not absorbable(spec):
        kv = spec.key_heads(i) * spec.head_width
        return outside + spec.branches * (2 * t * d * kv + 2 * (t + m) * d)
    # absorbed: q W_kᵀ and (a x̂) W_v per head, h·d numbers against each of t rows
    return outside + spec.branches * (2 * d * d + 2 * h * t * d + 2 * m * d)


def _seen_by_mlp(spec: BackboneSpec, tokens: tuple[int, int]) -> int:
    """Side by side with the attention it sees the same tokens, else those that are left."""
    return tokens[0] if spec.block == "parallel" else tokens[1]


def _outputs(spec: BackboneSpec, attending: int, kept: int) -> int:
    """Projection of the rows that attend, MLP of those that are left."""
    linears = 2 if spec.mlp == "mlp" else 3
    once = attending * spec.width + kept * linears * spec.mlp_width
    return spec.branches * spec.width * once


def _block(spec: BackboneSpec, i: int, *, queries: int, keys: int, rows: tuple[int, int]) -> int:
    """Query, key, value linears; attention; projection and MLP: for rows that attend, and are left."""
    d, kv = spec.width, spec.key_heads(i) * spec.head_width
    attention = rows[0] * d * (d + 2 * kv) + 2 * queries * keys * d
    return spec.branches * attention + _outputs(spec, *rows)
