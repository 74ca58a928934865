"""What LoadGen said, as text below our own table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.shown_text import shown
from vptkit.text_table import columns, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["loadgen_text"]


def loadgen_text(found: Mapping[str, Any]) -> str:
    """The document of `vptkit.runtime.loadgen.run_loadgen`, with LoadGen's verdict as it is."""
    title = f"MLPerf LoadGen, {found['scenario']}, {found['mode']} mode"
    logs = f"its files: {shown(found['logs'])}"
    if "top1" in found:
        return f"{title}: top-1 {found['top1']:.4f} of {found['count']} images\n{logs}"
    ms, rate = found["ms"], found["images_per_s"]
    heads = ["p50 ms", "p90 ms", "p99 ms", "images/s"]
    cells = [milliseconds(ms[key]) for key in ("p50", "p90", "p99")]
    table = columns(heads, [[*cells, "-" if rate is None else f"{rate:.1f}"]])
    lines = [title, table, f"LoadGen's verdict: {found['verdict']}"]
    lines += [f"  {shown(reason)}" for reason in found["reasons"]]
    if not found["submission"]:
        lines.append("not a submission: MLPerf wants 600 s and more (--min-duration 600)")
    return "\n".join([*lines, logs])
