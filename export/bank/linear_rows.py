"""What an adapter's weight deltas become in a bank: rows of tables for the linears of its graph.

Low-rank factors, scales and biases are rows; a whole change would be a copy of the weights for each
adapter, which is what a bank saves, so it is refused. numpy alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vptkit.export.fold.position_encoding import half_layout
from vptkit.formats.bank_tables import BankLinear, LinearRoom, bank_linears, keys_have_bias
from vptkit.formats.weight_deltas import WeightDelta

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from vptkit.export.fold.block_tensors import Array, Tensors
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec

    Deltas = Mapping[str, WeightDelta]

__all__ = ["changes_key_bias", "delta_problems", "linear_rows", "rooms_for"]

_BAKED = "Export it alone, as a baked bundle"


def linear_rows(
    adapter: Adapter, spec: BackboneSpec, tensors: Tensors
) -> dict[str, NDArray[np.float32]]:
    """The rows of an adapter: `{linear}.a` [in, r], `.b` [r, out], `.in`, `.out`, `.bias`.

    Computed in float64. The attention scale (unless queries are normalised behind it), LayerScale
    and the order of a rotation's pairs are in them, as they are in the graph's own constants.

    Args:
        adapter: one that a bank takes.
        spec: of the backbone.
        tensors: its LayerScales, of the linears that the adapter changes.
    """
    deltas, rows = adapter.weight_deltas(), {}
    for name, linear in _changed(spec, deltas):
        for part, value in _rows_of(spec, linear, deltas, tensors).items():
            rows[f"{name}.{part}"] = np.ascontiguousarray(value, dtype=np.float32)
    return rows


def rooms_for(
    adapters: Iterable[Adapter], spec: BackboneSpec, rank: int = 0
) -> dict[str, LinearRoom]:
    """What some adapters need: their linears, with the largest rank of each.

    Args:
        adapters: what a bank can't take of them is passed over.
        spec: of their backbone.
        rank: that every linear with factors has room for, at least.
    """
    found: dict[str, LinearRoom] = {}
    for adapter in adapters:
        deltas = adapter.weight_deltas()
        for name, linear in _changed(spec, deltas):
            before = found.get(name, LinearRoom(linear.inputs, linear.outputs))
            found[name] = _with_room(before, spec, linear, deltas)
    ordered = {name: found[name] for name in bank_linears(spec) if name in found}
    return {
        name: room._replace(rank=max(room.rank, rank) if room.rank else 0)
        for name, room in ordered.items()
    }


def delta_problems(
    adapter: Adapter, spec: BackboneSpec, rooms: Mapping[str, LinearRoom]
) -> list[str]:
    """Why a bank cannot take an adapter's weight deltas, as sentences."""
    deltas, linears = adapter.weight_deltas(), bank_linears(spec)
    weights = {linear.weight for linear in linears.values()}
    others = {name for linear in linears.values() for name, *_ in linear.biases}
    whole = sorted(name for name in deltas if name in weights and deltas[name].whole is not None)
    problems = []
    if whole:
        problems.append(
            f"it changes {whole[0]} whole, and a bank would need a copy of these weights for each "
            f"adapter. A bank takes low-rank factors, scales and biases. {_BAKED}"
        )
    strange = sorted(set(deltas) - weights - others)
    if strange:
        problems.append(f"it changes {strange[0]}, which a bank cannot look up. {_BAKED}")
    return problems + _room_problems(spec, deltas, rooms)


def changes_key_bias(adapter: Adapter, spec: BackboneSpec) -> bool:
    """Whether an adapter changes what all keys share: attention does not see it, token merging does."""
    deltas = adapter.weight_deltas()
    return not keys_have_bias(spec) and any(
        name in deltas and np.any(np.asarray(deltas[name].whole)[start:stop])
        for linear in bank_linears(spec).values()
        if linear.kind == "k"
        for name, start, stop in linear.biases
    )


def _room_problems(
    spec: BackboneSpec, deltas: Deltas, rooms: Mapping[str, LinearRoom]
) -> list[str]:
    """What has no table comes first: more rank alone would not help then."""
    missing: list[str] = []
    narrow: list[tuple[int, str]] = []
    for name, linear in _changed(spec, deltas):
        nothing = LinearRoom(linear.inputs, linear.outputs)
        needed, room = _with_room(nothing, spec, linear, deltas), rooms.get(name, nothing)
        if set(needed.tables()) - set(room.tables()):
            missing.append(
                f"it changes {name} ({linear.weight}), and the bank has no table for that. Export "
                "the bank again with this adapter among the others"
            )
        elif needed.rank > room.rank:
            told = (
                f"its change of {name} has rank {needed.rank}, but the bank has room for "
                f"{room.rank}. Export the bank again with --bank-rank {needed.rank}"
            )
            narrow.append((needed.rank, told))
    return missing + [told for _, told in sorted(narrow, key=lambda one: -one[0])[:1]]


def _changed(spec: BackboneSpec, deltas: Deltas) -> list[tuple[str, BankLinear]]:
    """The linears of a bank's graph that some deltas change at all."""
    nothing = LinearRoom(0, 0)
    return [
        (name, linear)
        for name, linear in bank_linears(spec).items()
        if (linear.weight in deltas or any(b[0] in deltas for b in linear.biases))
        and _with_room(nothing, spec, linear, deltas) != nothing
    ]


def _with_room(
    room: LinearRoom, spec: BackboneSpec, linear: BankLinear, deltas: Deltas
) -> LinearRoom:
    """The room, and what else is needed for some deltas."""
    delta = deltas.get(linear.weight, WeightDelta())
    factors = _factors(linear, delta)
    return room._replace(
        rank=max(room.rank, 0 if factors is None else len(factors[1])),
        in_scale=room.in_scale or delta.in_scale is not None,
        out_scale=room.out_scale or delta.out_scale is not None,
        bias=room.bias or bool(_biases(spec, linear, deltas)),
    )


def _rows_of(
    spec: BackboneSpec, linear: BankLinear, deltas: Deltas, tensors: Tensors
) -> dict[str, Array]:
    factor = _factor(spec, linear, tensors)
    order = _order(spec, linear)
    delta, rows = deltas.get(linear.weight, WeightDelta()), {}
    factors = _factors(linear, delta)
    if factors is not None:
        rows["a"], rows["b"] = factors[0], (factors[1] * factor)[:, order]
    if delta.in_scale is not None:
        rows["in"] = np.asarray(delta.in_scale, dtype=np.float64)
    if delta.out_scale is not None:
        scale = np.asarray(delta.out_scale, dtype=np.float64)
        rows["out"] = scale[linear.start : linear.stop][order]
    biases = _biases(spec, linear, deltas)
    if biases:
        rows["bias"] = (np.sum(biases, axis=0) * factor)[order]
    return rows


def _factors(linear: BankLinear, delta: WeightDelta) -> tuple[Array, Array] | None:
    """A [in, r] and b [r, out] of the linear's own rows; ranks that leave those alone are left out.

    A pair that is stacked of queries', keys' and values' own has three times the rank of each.
    """
    if delta.low_rank is None:
        return None
    a, b = (np.asarray(factor, dtype=np.float64) for factor in delta.low_rank)
    b = b[linear.start : linear.stop]  # [out, r]
    used = b.any(axis=0) & a.any(axis=1)
    return (a[used].T, b[:, used].T) if used.any() else None


def _biases(spec: BackboneSpec, linear: BankLinear, deltas: Deltas) -> list[Array]:
    """Changes of what is added behind the linear; none of keys that all share it."""
    if linear.kind == "k" and not keys_have_bias(spec):
        return []
    return [
        np.asarray(deltas[name].whole, dtype=np.float64)[start:stop]
        for name, start, stop in linear.biases
        if name in deltas and deltas[name].whole is not None
    ]


def _factor(spec: BackboneSpec, linear: BankLinear, tensors: Tensors) -> Array:
    """What the fold multiplies columns with: the attention scale, or LayerScale; else 1."""
    if linear.scale is not None:
        return tensors(linear.scale)
    scaled = linear.kind == "q" and not spec.qk_norm
    return np.asarray(1.0 / math.sqrt(spec.head_width) if scaled else 1.0)


def _order(spec: BackboneSpec, linear: BankLinear) -> NDArray[np.int64]:
    """The order of the columns, which a rotation of neighbouring pairs changes (`half_layout`)."""
    columns = np.arange(linear.outputs)
    rotary = spec.rotary
    if linear.kind not in ("q", "k") or rotary is None or rotary.rotate_half:
        return columns
    return columns.reshape(-1, spec.head_width)[:, half_layout(spec.head_width)].ravel()
