"""`vptkit profile --parts` as text: a table, and what limits the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.shown_text import shown, terminal_width
from vptkit.text_table import columns, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parts_text"]

_WORDS = {"read": "reading", "decode": "decoding", "resize": "resizing", "graph": "the graph"}


def parts_text(document: Mapping[str, Any]) -> str:
    """The document of `vptkit.runtime.profile.image_parts.profile_parts`."""
    rows = document["rows"]
    parts = list(rows[0]["ms_per_image"])
    heads = ["ms an image", "batch", *parts, "in all", "images/s"]
    lines = [
        [
            row["name"],
            str(row["batch"]),
            *(milliseconds(row["ms_per_image"][part]) for part in parts),
            milliseconds(row["ms_per_image_all"]),
            f"{row['images_per_s']['run']:.1f}",
        ]
        for row in rows
    ]
    table = columns(heads, lines, width=terminal_width(), keys=2)
    return "\n".join([table, *(_sentence(row) for row in rows), _images(document["images"])])


def _sentence(row: Mapping[str, Any]) -> str:
    """Where the time goes, and how near the whole comes to what its parts allow."""
    shares = ", ".join(
        f"{_WORDS.get(part, part)} {100 * share:.0f} %" for part, share in row["share"].items()
    )
    rates = row["images_per_s"]
    return (
        f"{shown(row['name'])}, batch {row['batch']}: {shares}\n"
        f"  all at once: {rates['run']:.1f} images/s, {rates['run'] / rates['bound']:.2f} of what "
        f"files to pixels ({rates['read_decode_resize']:.1f}) and the graph ({rates['graph']:.1f}) allow"
    )


def _images(about: Mapping[str, Any]) -> str:
    """Which images these were."""
    drawn = "" if about["count"] == about["of"] else f" of {about['of']:,}"
    broken = f", {about['broken']} broken ones left out" if about["broken"] else ""
    return f"{about['count']} images{drawn}, {about['mean_bytes'] / 1000:.0f} kB each{broken}"
