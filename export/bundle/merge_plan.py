"""Which tokens an exported graph merges: as asked, as the adapter was tuned, or so many as it takes.

A target such as "0.7x" is a share of the multiply-accumulates of the graph without merging: latency
follows them (docs/benchmarks.md), and they are the same on every machine.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.backbones.merge_schedule import (
    TokenMerging,
    merge_problems,
    merge_schedule,
    merge_setting,
    parse_merge,
)
from vptkit.errors import TargetError, VptkitError
from vptkit.export.analysis.macs import folded_macs, folded_queries, learned_macs
from vptkit.formats.manifest_schema import LOGITS

if TYPE_CHECKING:
    from vptkit.export.numerics.evidence import Run
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec

    from .export_options import ExportOptions

__all__ = [
    "graph_macs",
    "merged_otherwise",
    "merging_entry",
    "merging_of",
    "parse_export_merge",
    "with_merging",
]

_TARGET = re.compile(r"(\d{0,3}\.?\d{1,6})x", re.ASCII)


def parse_export_merge(value: object) -> float | int | tuple[int, ...]:
    """What `export --merge` takes: "12", "0,0,8,8", or a target "0.7x", which becomes 0.7.

    Args:
        value: a text, a number of tokens, or a list of numbers.

    Raises:
        VptkitError: it is none of these.
    """
    text = value.strip() if isinstance(value, str) else ""
    found = _TARGET.fullmatch(text)
    if found is None:
        try:
            return parse_merge(str(merge_setting(value)))
        except VptkitError as error:
            raise VptkitError(
                f"{error}, or a share of the multiply-accumulates, as 0.7x"
            ) from error
    share = float(found[1])
    if not 0 < share < 1:
        raise VptkitError(
            f"merge is {text!r}: expected a share of the multiply-accumulates between 0x and 1x, as "
            "0.7x"
        )
    return share


def with_merging(options: ExportOptions, adapter: Adapter, spec: BackboneSpec) -> ExportOptions:
    """The options with `merging` decided.

    Raises:
        VptkitError: what is asked for is no schedule of this backbone.
        TargetError: the backbone, the pool or the kind of graph cannot merge.
    """
    return replace(options, merging=merging_of(options, adapter, spec))


def merging_of(options: ExportOptions, adapter: Adapter, spec: BackboneSpec) -> TokenMerging | None:
    """What is merged; None of nothing. See `with_merging`."""
    tuned = adapter.merging
    if options.merge is None and options.merge_attention is None:
        merging = tuned
    else:
        default = "proportional" if tuned is None else tuned.attention
        schedule = _schedule(options, adapter, spec)
        merging = TokenMerging(schedule=schedule, attention=options.merge_attention or default)
    if merging is None or not merging.merged:
        return None
    for problem in merge_problems(merging, spec):
        raise TargetError(f"{adapter.name}: {problem}. {_without(tuned is not None)}")
    if options.fold != "all":
        raise VptkitError(
            "--fold none does not go with --merge: the graph that others would export merges no "
            f"tokens. {_without(tuned is not None)}"
        )
    return merging


def _without(tuned: bool) -> str:
    return "Pass --merge 0." if tuned else "Leave --merge away."


def _schedule(options: ExportOptions, adapter: Adapter, spec: BackboneSpec) -> tuple[int, ...]:
    if options.merge is None:
        if adapter.merging is None:
            raise VptkitError("--merge-attention has no effect without --merge. Leave it away.")
        return adapter.merging.schedule
    asked = parse_export_merge(options.merge)
    if isinstance(asked, float):
        return _fewest(asked, options, adapter, spec)
    found = merge_schedule(asked, spec)
    wanted = asked if isinstance(asked, int) else sum(asked)
    if wanted and not any(found):
        raise TargetError(
            f"{adapter.name}: nothing can be merged: the last block merges nothing, and before it "
            f"are {spec.depth - 1} blocks, with {spec.patches} patches. Leave --merge away."
        )
    return found


def _fewest(
    share: float, options: ExportOptions, adapter: Adapter, spec: BackboneSpec
) -> tuple[int, ...]:
    """The smallest r in every block with which the graph needs no more than a share.

    Raises:
        TargetError: no r will do.
    """
    whole = graph_macs(options, adapter, spec, None)
    least = 1.0
    for r in range(1, spec.patches // 2 + 1):
        schedule = merge_schedule(r, spec)
        least = graph_macs(options, adapter, spec, TokenMerging(schedule=schedule)) / whole
        if least <= share:
            return schedule
    raise TargetError(
        f"{adapter.name}: --merge {options.merge} cannot be reached: the most that can be merged "
        f"leaves {least:.3f} of the multiply-accumulates"
    )


def graph_macs(
    options: ExportOptions, adapter: Adapter, spec: BackboneSpec, merging: TokenMerging | None
) -> int:
    """Multiply-accumulates of the folded graph's blocks, for one image."""
    how = adapter.prompt_length, adapter.insert, adapter.pool, options.graph().last_block, merging
    learned = learned_macs(spec, folded_queries(spec, *how), adapter.learned_counts())
    return folded_macs(spec, *how) + learned


def merged_otherwise(adapter: Adapter, merging: TokenMerging | None, run: Run | None) -> Adapter:
    """The adapter as a bundle carries it where its graph merges as the adapter was not tuned.

    Its golden logits, which are the reference's, would be those of another network. So they are
    computed anew, by the fp32 graph; the images stay.

    Args:
        adapter: as it was tuned.
        merging: of the graph.
        run: the opened fp32 graph; without, there are no golden answers afterwards.
    """
    golden, tensors = adapter.golden(), dict(adapter.tensors)
    if golden is not None:
        del tensors["golden.images"], tensors["golden.logits"]
    if golden is not None and run is not None:
        logits = np.asarray(run(golden[0])[LOGITS], dtype=np.float32)
        tensors |= {"golden.images": golden[0], "golden.logits": logits}
    return replace(adapter, merging=merging, tensors=tensors)


def merging_entry(
    options: ExportOptions, adapter: Adapter, gate: dict[str, Any] | None
) -> dict[str, Any] | None:
    """What the manifest says of it.

    Args:
        options: of `with_merging`.
        adapter: as it was tuned.
        gate: beside the graph without merging, on images.
    """
    if options.merging is None:
        return None
    asked = None if options.merge is None else str(options.merge)
    return {
        **options.merging.to_json(),
        "asked": asked,
        "tuned": adapter.merging == options.merging,
        "gate": gate,
    }
