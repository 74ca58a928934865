"""An evaluation of several labels an image for people: label by label, then the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.scores.score_interval import interval_text, percent, share_text
from vptkit.shown_text import shown
from vptkit.text_table import columns

from .evaluation_text import short_name, within

if TYPE_CHECKING:
    from .multilabel_result import MultilabelEvaluation, MultilabelMistake

__all__ = ["label_rows", "multilabel_scores", "multilabel_text"]

_LABELS, _MISTAKES, _NAMED = 20, 5, 4  # lines of each; labels of an image that are named


def multilabel_text(result: MultilabelEvaluation) -> str:
    """Some lines: labels, mistakes by file name, and the verdict last."""
    parts = [_labels(result), _mistakes(result), "\n".join(multilabel_scores(result))]
    return "\n\n".join(part for part in parts if part)


def label_rows(result: MultilabelEvaluation) -> tuple[list[str], list[list[str]]]:
    """Heading and a row a label, the lowest F1 first; those without images and answers are left out."""
    known = [(label, of) for label, of in result.classes.items() if of["f1"] is not None]
    ranked = sorted(known, key=lambda item: item[1]["f1"])
    rows = [
        [
            short_name(label),
            *(str(of[name]) for name in ("count", "given")),
            *(_share(of[name]) for name in ("precision", "recall", "f1", "average_precision")),
            f"{of['threshold']:.2g}",
        ]
        for label, of in ranked
    ]
    head = ["label", "images", "given", "precision", "recall", "F1", "AP", "from"]
    return head, rows


def _labels(result: MultilabelEvaluation) -> str:
    head, rows = label_rows(result)
    more = len(rows) - _LABELS
    tail = f"\nand {more} better ones: --json has all" if more > 0 else ""
    return columns(head, rows[:_LABELS]) + tail if rows else ""


def _share(value: float | None) -> str:
    return "-" if value is None else percent(round(value, 9))  # a sum of floats may miss 1


def _mistakes(result: MultilabelEvaluation) -> str:
    lines = [
        f"  {within(one.image, result.data)}  {_told(one)}" for one in result.mistakes[:_MISTAKES]
    ]
    return "\n".join([f"furthest off, in {shown(result.data)}", *lines]) if lines else ""


def _told(mistake: MultilabelMistake) -> str:
    """As "misses dog; has cat too many"."""
    document = mistake.to_json()
    missing, extra = (_few(document[name]) for name in ("missing", "extra"))
    parts = [f"misses {missing}" if missing else "", f"has {extra} too many" if extra else ""]
    return "; ".join(filter(None, parts))


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(short_name, names[:_NAMED])) + more


def multilabel_scores(result: MultilabelEvaluation) -> list[str]:
    """The figures over all labels, the verdict last."""
    name = "" if result.split is None else f"{shown(result.split)} "
    found = result.mean_average_precision
    precision = "unknown: no image has a label" if found is None else _share(found)
    interval = interval_text(result.micro_f1_interval)
    verdict = (
        f"{name}mAP {precision}, micro F1 {percent(result.micro_f1)} (95 % interval {interval}), "
        f"macro F1 {percent(result.macro_f1)} ({result.count:,} images)"
    )
    return [
        f"exactly the right labels {share_text(result.exact, result.count)}",
        f"log-loss {result.log_loss:.3f}",
        verdict,
    ]
