"""Names of a graph's nodes → the parts of the model that they compute, as "blocks.3.attention".

The exporter names nodes after the model (`blocks.3.attn.q/MatMul`), and what a library fuses keeps one of
the names mostly. A node without one is placed with what ran right before it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "OTHER",
    "SEVERAL",
    "WITHIN",
    "block_of",
    "is_place",
    "order_of",
    "place_of",
    "place_of_nodes",
    "placed",
]

OTHER = "other"
SEVERAL = "several blocks"  # of a layer that a compiler made of nodes of more than one

_BLOCK = re.compile(r"blocks\.(\d+)(?:[./](.*))?$")
_IN_BLOCK = (
    (re.compile(r"norm1\b"), "norm1"),
    (re.compile(r"norm2\b"), "norm2"),
    (re.compile(r"(attn|ls1|add1|rope|before|tokens|row|class)"), "attention"),
    (re.compile(r"(mlp|ls2|add2|behind)"), "mlp"),
    (re.compile(r"merge\b"), "merge"),  # of tokens, between both
)
_OUTSIDE = (
    (re.compile(r"(images|pixels|normalized)\b"), "preprocessing"),
    (re.compile(r"(patch|patch_embed|patches)\b"), "patch_embed"),
    (re.compile(r"(adapter|bank)\b"), "adapter"),
    (re.compile(r"(tokens|batch|pos_embed|position|cls_token|norm_pre|rope|prompts)\b"), "tokens"),
    (re.compile(r"(norm|fc_norm|pool|attn_pool|head|logits|scores|features|post)\b"), "head"),
)
_FIRST = ("preprocessing", "adapter", "patch_embed", "tokens")
_LAST = ("head", SEVERAL, OTHER)
WITHIN = ("norm1", "attention", "merge", "norm2", "mlp")  # of a block, as it computes them


def place_of(node: str) -> str | None:
    """The part of the model that a node belongs to; None where its name does not tell.

    Returns:
        "preprocessing", "adapter" (rows looked up in a bank), "patch_embed", "tokens",
        "blocks.N.PART" with norm1, attention, norm2 or mlp (each with the residual sum behind it) or
        merge (of tokens),
        "blocks.N", or "head" (last norm, pooling, head).
    """
    name = node.lstrip("/")
    if block := _BLOCK.match(name):
        rest = block[2] or ""
        part = next((part for pattern, part in _IN_BLOCK if pattern.match(rest)), None)
        return f"blocks.{int(block[1])}.{part}" if part else f"blocks.{int(block[1])}"
    return next((place for pattern, place in _OUTSIDE if pattern.match(name)), None)


def place_of_nodes(nodes: Iterable[str]) -> str | None:
    """The part that several nodes have in common: the same, their block, or SEVERAL."""
    places = {place for node in nodes if (place := place_of(node)) is not None}
    if len(places) < 2:
        return next(iter(places), None)
    blocks = {place.split(".")[1] if place.startswith("blocks.") else place for place in places}
    return f"blocks.{blocks.pop()}" if len(blocks) == 1 else SEVERAL


def placed(place: str | None, before: str | None) -> str:
    """The place of a layer: its own, else that of the one before it."""
    return place or before or OTHER


def block_of(place: str) -> str:
    """The block that a place is in, as "blocks.3"; what is outside of one stays as it is."""
    block = _BLOCK.match(place)
    return f"blocks.{block[1]}" if block else place


def is_place(text: str) -> bool:
    """Whether a text is the name of a part, as it may stand in a file."""
    block = re.fullmatch(r"blocks\.(0|[1-9]\d{0,2})(?:\.(\w+))?", text, re.ASCII)
    if block:
        return block[2] is None or block[2] in WITHIN
    return text in (*_FIRST, *_LAST)


def order_of(place: str) -> tuple[int, int, int]:
    """What places are sorted by: as the model computes them."""
    if block := _BLOCK.match(place):
        rest = block[2]
        return (
            len(_FIRST),
            int(block[1]),
            WITHIN.index(rest) if rest in WITHIN else len(WITHIN),
        )
    if place in _FIRST:
        return (_FIRST.index(place), 0, 0)
    return (len(_FIRST) + 1 + _LAST.index(place), 0, 0)
