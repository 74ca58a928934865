"""What is said of merged tokens: how many where, and what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from vptkit.cli.shared.precision_evidence import warn_of_kindness
from vptkit.scores.score_interval import percent, share_text
from vptkit.shown_text import tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["merging_text", "note_merging"]


def merging_text(merging: Mapping[str, Any]) -> str:
    """As "12 tokens a block, 132 in all, proportional attention; not tuned so; accuracy of …".

    Args:
        merging: of a manifest, or `merge` of an adapter, which has no gate. The gate's figures may be
            a stranger's, and are taken only if they are of the kind that vptkit writes.
    """
    text = f"{_schedule(merging['schedule'])}, {merging['attention']} attention"
    if "tuned" in merging:
        text += "; tuned so" if merging["tuned"] else "; the adapter was not tuned so"
    return text + _cost(merging.get("gate"))


def _schedule(schedule: Sequence[int]) -> str:
    total, first = sum(schedule), schedule[0]
    if all(r == first for r in schedule[:-1]) and not schedule[-1]:
        return f"{first} tokens a block but the last, {total} in all"
    return f"{','.join(map(str, schedule))} tokens, {total} in all"


def _cost(gate: Any) -> str:
    """What the gate found: accuracy without and with, and labels that stayed."""
    if not isinstance(gate, dict):
        return ""
    count, agreement, noise = gate.get("count"), gate.get("agreement"), gate.get("sqnr_db")
    if not (isinstance(count, int) and count > 0 and _is_share(agreement)):
        return ""
    on = f" of {gate['split']}" if isinstance(gate.get("split"), str) else ""
    text = ""
    after, before = gate.get("top1"), gate.get("top1_fp32")
    if _is_share(after) and _is_share(before):
        reached = share_text(round(after * count), count)
        text = f"; accuracy{on} without {percent(before)}, with {reached}"
    text += f"; label{on} kept on {percent(agreement)} of {count} images"
    if isinstance(noise, float):
        text += f", SQNR {noise:.1f} dB"
    return text + ("; too kind: these were trained on" if gate.get("too_kind") is True else "")


def _is_share(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value <= 1


def note_merging(manifest: Mapping[str, Any]) -> None:
    """Say so where what merging costs was not judged on real images, or too kindly."""
    merging = manifest.get("merging")
    if merging is None:
        return
    gate, bank = merging["gate"], manifest["layout"] == "bank"
    if not merging["tuned"]:
        golden = (
            "these ship without golden answers"
            if bank
            else "its golden answers are those of the fp32 graph that merges"
        )
        who = "not all adapters were" if bank else "the adapter was not"
        tell(f"note: {who} tuned with this merging, and {golden}")
        if gate is None:
            judge = "export one alone with --gate DIR" if bank else "--gate DIR does that"
            tell(f"note: what merging costs was not judged on real images; {judge}")
    if gate is not None and manifest["gate"] is None:
        warn_of_kindness(gate)
