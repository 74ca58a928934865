"""Weights that do not fit a backbone, in words: whose they may be, or what they lack."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vptkit.schema import abridged

from .backbone_table import backbones_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    Shapes = Mapping[str, tuple[int, ...]]

__all__ = ["Geometry", "geometry_of", "other_model", "why_not"]

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_POSITIONS = "pos_embed"
_WORD = re.compile(r"[a-z]+|\d+")
_SHOWN, _COMPARED = 5, 200  # names
# What the names of other projects begin with or hold, and whose they are
_FOREIGN = (
    (re.compile(r"(^|\.)layer\.0\.attention\."), "the names are those of transformers"),
    (re.compile(r"encoder\.layers\.encoder_layer_0"), "the names are torchvision's, not timm's"),
    (re.compile(r"resblocks\.0\."), "the names are those of CLIP's code, not of timm"),
    (re.compile(r"^layer1\.0\.conv1"), "these are a ResNet's"),
)


class Geometry(NamedTuple):
    """What weights in timm's names tell of their model: d, L, patch in pixels, rows of positions."""

    width: int
    depth: int
    patch: tuple[int, int]
    rows: int | None
    tensors: int


def geometry_of(shapes: Shapes) -> Geometry | None:
    """The geometry of weights by name → shape; None where the names are not timm's."""
    patch = shapes.get("patch_embed.proj.weight", ())
    blocks = {int(found[1]) for name in shapes if (found := _BLOCK.match(name))}
    if len(patch) != 4 or not blocks:
        return None
    positions = shapes.get(_POSITIONS, ())
    rows = positions[1] if len(positions) == 3 else None
    return Geometry(patch[0], max(blocks) + 1, (patch[2], patch[3]), rows, len(shapes))


def other_model(shapes: Shapes, expected: Shapes, *, patch: bool = True) -> str | None:
    """What no conversion mends: another width or depth, or other patches.

    Args:
        shapes: of the weights, the classifier left out: timm name → shape.
        expected: of the backbone, likewise.
        patch: whether other patches count; not where the caller wants them resampled.

    Returns:
        As "384 wide, this backbone is 192: those of vit_small_patch16_224?", or None.
    """
    found, wanted = geometry_of(shapes), geometry_of(expected)
    if found is None or wanted is None:
        return None
    odd = []
    if found.width != wanted.width:
        odd.append(f"{found.width} wide, this backbone is {wanted.width}")
    if found.depth != wanted.depth:
        odd.append(f"{found.depth} blocks deep, this backbone has {wanted.depth}")
    if patch and found.patch != wanted.patch:
        odd.append(
            f"patches of {_size(found.patch)} pixels, this backbone has {_size(wanted.patch)}"
        )
    if not odd:
        return None
    return f"weights of another model: {', '.join(odd)}{_guess(found)}"


def why_not(shapes: Shapes, expected: Shapes) -> str:
    """What is amiss with weights that are not those of a backbone; arguments of `other_model`."""
    other = other_model(shapes, expected)
    if other is not None:
        return other
    foreign = next((text for kind, text in _FOREIGN if any(map(kind.search, shapes))), None)
    missing, unknown = _nearest_first(set(expected) - set(shapes), set(shapes) - set(expected))
    if foreign is not None and geometry_of(shapes) is None:
        return (
            f"not weights in timm's names: {foreign}, as {_some(unknown)}; the backbone has "
            f"{_some(missing)}. Fetch timm's file of the same model: vptkit backbones says where"
        )
    differ = [n for n in sorted(set(shapes) & set(expected)) if shapes[n] != expected[n]]
    parts = []
    if _POSITIONS in differ and len(differ) == 1 and not missing and not unknown:
        rows = shapes[_POSITIONS][-2:-1], expected[_POSITIONS][-2:-1]
        return (
            f"weights of another image size: positions of {_rows(rows[0])} tokens, this backbone has "
            f"{_rows(rows[1])} (--image-size?)"
        )
    if missing:
        parts.append(f"missing {_some(missing)}, which the backbone has")
    if unknown:
        parts.append(f"unexpected {_some(unknown)}, which are in the file")
    if differ:
        name = differ[0]
        parts.append(
            f"{abridged(name)} has the shape {list(shapes[name])}, expected {list(expected[name])}"
        )
    geometry = geometry_of(shapes)
    guess = "" if geometry is None else _guess(geometry)
    return f"not the weights of this model: {'; '.join(parts)}{guess}"


def _guess(found: Geometry) -> str:
    names = backbones_of(
        width=found.width,
        depth=found.depth,
        patch=found.patch,
        rows=found.rows,
        tensors=found.tensors,
    )
    return f": those of {' or '.join(names[:2])}?" if names else ""


def _nearest_first(missing: set[str], unknown: set[str]) -> tuple[list[str], list[str]]:
    """Names that the backbone lacks and that only the file has, likeliest pairs first."""
    backbone, file = sorted(missing)[:_COMPARED], sorted(unknown)[:_COMPARED]
    words = {name: set(_WORD.findall(name[:200])) for name in (*backbone, *file)}
    pairs = sorted(
        (-len(words[a] & words[b]) / max(len(words[a] | words[b]), 1), a, b)
        for a in backbone
        for b in file
    )
    best = _apart(pairs)
    first, of_file = [pair[1] for pair in best], [pair[2] for pair in best]
    return (
        [*first, *sorted(missing - set(first))],
        [*of_file, *sorted(unknown - set(of_file))],
    )


def _apart(pairs: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """The best pairs, each name once; as many as are shown."""
    found: list[tuple[float, str, str]] = []
    for pair in pairs:
        if len(found) < _SHOWN and not any(pair[1] == p[1] or pair[2] == p[2] for p in found):
            found.append(pair)
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(abridged(name)[1:-1] for name in names[:_SHOWN]) + more


def _size(patch: tuple[int, int]) -> str:
    return f"{patch[0]} x {patch[1]}"


def _rows(rows: tuple[int, ...]) -> str:
    return str(rows[0]) if rows else "?"
