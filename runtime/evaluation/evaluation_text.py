"""An evaluation for people: where the mistakes are, then how often it is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.scores.score_interval import interval_text, percent, share_text
from vptkit.shown_text import shown
from vptkit.text_table import columns

if TYPE_CHECKING:
    from vptkit.images.image_file import ImageFile

    from .evaluation_result import Evaluation

__all__ = [
    "class_rows",
    "evaluation_text",
    "pair_rows",
    "score_lines",
    "short_name",
    "verdict",
    "within",
]

_CLASSES, _PAIRS, _MISTAKES = 20, 5, 5  # lines of each
_LONGEST = 32  # characters of a class name


def evaluation_text(result: Evaluation) -> str:
    """Some lines: classes, confused pairs, mistakes by file name, and the verdict last."""
    parts = [_classes(result), _pairs(result), _mistakes(result), "\n".join(score_lines(result))]
    return "\n\n".join(part for part in parts if part)


def verdict(result: Evaluation) -> str:
    """As "test 86.8 % (217 of 250; 95 % interval 82.0 to 90.4 %)"."""
    name = "top-1" if result.split is None else f"{shown(result.split)} top-1"
    return f"{name} {share_text(result.right, result.count)}"


def short_name(name: str, longest: int = _LONGEST) -> str:
    """A class name, shown; a long one without its middle, as beginnings are often alike."""
    text = shown(name)
    kept = longest - 1
    return text if len(text) <= longest else f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"


def score_lines(result: Evaluation) -> list[str]:
    """Top-5 where it says anything, log-loss and calibration, and the verdict last."""
    five = f"top-5 {share_text(result.among_five, result.count)}"
    return [
        *([five] if len(result.labels) > 5 else []),  # else it is 100 % by definition
        f"log-loss {result.log_loss:.3f}, expected calibration error {result.ece:.3f}",
        verdict(result),
    ]


def class_rows(result: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Heading and a row a class: name, images, top-1, interval; the worst class first."""
    ranked = sorted(result.classes.items(), key=lambda item: item[1]["top1"])
    rows = [
        [short_name(label), str(of["count"]), percent(of["top1"]), interval_text(of["interval"])]
        for label, of in ranked
    ]
    return ["class", "images", "top-1", "95 % interval"], rows


def pair_rows(result: Evaluation, most: int) -> list[list[str]]:
    """The pairs that are confused most often: "A as B", and of how many."""
    classes = result.classes
    return [
        [
            f"{short_name(pair.truth)} as {short_name(pair.answered)}",
            f"{pair.count} of {classes[pair.truth]['count']}",
        ]
        for pair in result.confused[:most]
    ]


def _classes(result: Evaluation) -> str:
    head, rows = class_rows(result)
    more = len(rows) - _CLASSES
    tail = f"\nand {more} better ones: --json has all" if more > 0 else ""
    return columns(head, rows[:_CLASSES]) + tail


def _pairs(result: Evaluation) -> str:
    rows = [[f"  {pair}", of] for pair, of in pair_rows(result, _PAIRS)]
    return columns(["most confused", ""], rows) if rows else ""


def _mistakes(result: Evaluation) -> str:
    lines = [
        f"  {within(m.image, result.data)}  {percent(m.probability)} {short_name(m.answered)}, "
        f"is {short_name(m.truth)}"
        for m in result.mistakes[:_MISTAKES]
    ]
    head = f"most confident mistakes, in {shown(result.data)}"
    return "\n".join([head, *lines]) if lines else ""


def within(image: ImageFile, data: Path) -> str:
    """The image's path below the data, where it is there."""
    if isinstance(image, Path) and image.is_relative_to(data):
        return shown(image.relative_to(data))
    return shown(image)
