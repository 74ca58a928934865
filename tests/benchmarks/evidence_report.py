"""The records of `evidence.py` as Markdown: a table for each backbone and amount, and pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .evidence_cells import RECIPES, SINGLE
from .evidence_records import at_chance, methods_in, right
from .evidence_statistics import clustered_interval, covers_zero, mcnemar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .evidence_records import Records, Row
    from .evidence_statistics import Interval


class Pair(NamedTuple):
    """What is compared with what; each a recipe and a method."""

    ours: tuple[str, str]
    theirs: tuple[str, str]

    @property
    def text(self) -> str:
        """The difference."""
        if self.ours[1] == self.theirs[1]:
            return f"{self.ours[1]}: {self.ours[0]} − {self.theirs[0]}"
        return f"{self.ours[1]} − {self.theirs[1]}"


_IN_EACH = (
    ("LN", "linear"),
    ("LN", "VPT-shallow"),
    ("LN", "VPT-deep"),
    ("LN", "full fine-tuning"),
    ("VPT-deep", "linear"),
    ("BPT-deep bilinear", "linear"),
    ("BPT-deep bilinear", "VPT-deep"),
    ("BPT-deep fWhiten", "VPT-deep"),
    ("BPT-deep tWhiten", "VPT-deep"),
    ("BPT-shallow", "VPT-shallow"),
    ("LN cyclic", "LN"),
    ("LN cyclic + λ", "LN cyclic"),
    ("LN+BPT", "LN"),
    ("LN+VPT", "LN"),
    ("default", "linear"),
    ("auto", "linear"),
    ("auto", "default"),
)


def pairs() -> list[Pair]:
    """All that are reported: within a recipe, then between the recipes."""
    found = [Pair((r, ours), (r, theirs)) for r in RECIPES for ours, theirs in _IN_EACH]
    return found + [Pair(("vptkit", m), ("papers", m)) for m in SINGLE if m != "linear"]


def amount(shots: int) -> str:
    """As a heading says it."""
    return f"{shots} images a class in all" if shots else "all images"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, in percent."""
    text = f"{100 * np.mean(values):.1f}"
    return text if len(values) < 2 else f"{text} ± {100 * np.std(values, ddof=1):.1f}"


def between(interval: Interval | None) -> str:
    """An interval in points."""
    return "-" if interval is None else f"{100 * interval[0]:+.1f} .. {100 * interval[1]:+.1f}"


def table(rows: list[list[str]]) -> list[str]:
    """Lines of Markdown; the first row is the heading."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]]


def tables(records: Records) -> list[str]:
    """One for each backbone and amount of data."""
    lines = []
    for backbone, shots in records.tables():
        lines += ["", f"**{backbone}, {amount(shots)}, {records.epochs} epochs**", ""]
        sets = records.sets(backbone, shots)
        here = [r for r in records.rows if (r["backbone"], r["shots"]) == (backbone, shots)]
        outside = [
            s for s in sets if any(r["ood_top1"] is not None for r in here if r["data"] == s)
        ]
        heads = ["method", "recipe", "seeds", "trained", *sets, *(f"{s} OOD" for s in outside)]
        rows = [[*heads, "mean (test)", "LN shift"]]
        for method in methods_in(here):
            for recipe in RECIPES:
                cells = [records.of(recipe, backbone, shots, method, data) for data in sets]
                if any(r["recipe"] == recipe for found in cells for r in found):
                    drawn = [cells[sets.index(s)] for s in outside]
                    rows.append([method, recipe, *_cells(cells, drawn)])
        lines += table(rows)
        lines += _chance_note(here)
    return lines


def _cells(cells: list[list[Row]], outside: list[list[Row]]) -> list[str]:
    """A row's texts behind its name."""
    there = [row for found in cells for row in found]
    counts = sorted({len(found) for found in cells if found})
    texts = ["–".join(map(str, counts)), f"{max(row['trained'] for row in there):,}"]
    texts += [_marked(found) for found in cells]
    texts += [spread([row["ood_top1"] for row in found]) if found else "-" for found in outside]
    means = [np.mean([row["test_top1"] for row in found]) for found in cells if found]
    texts.append(f"{100 * np.mean(means):.1f}" if all(cells) else "-")
    shifts = [row["shift"]["total"] for row in there if row.get("shift")]
    return [*texts, f"{np.mean(shifts):.2f}" if shifts else "-"]


def _marked(found: list[Row]) -> str:
    if not found:
        return "-"
    return spread([row["test_top1"] for row in found]) + "†" * any(map(at_chance, found))


def _chance_note(rows: list[Row]) -> list[str]:
    count = sum(map(at_chance, rows))
    return ["", f"† {count} of {len(rows)} runs at chance or no better than the largest class."]


def paired(records: Records) -> list[str]:
    """Differences, paired by (backbone, set, images, seed)."""
    found = ((pair, _paired(records, pair)) for pair in pairs())
    rows = [[pair.text, pair.ours[0], *texts] for pair, texts in found if texts]
    if not rows:
        return []
    heads = ["test, in points", "recipe", "cells (clusters)", "mean", "95 % interval"]
    heads += ["cells won / lost", "McNemar p < .05 for / against", "by amount", "OOD", "says"]
    note = "Intervals: bootstrap over clusters, a cluster being one backbone on one set; of fewer than "
    note += "six clusters too narrow. A † run counts as it is."
    return ["", "**Differences**", "", *table([heads, *rows]), "", note]


def _paired(records: Records, pair: Pair) -> list[str]:
    """A row's texts; none without common cells."""
    mine, other = records.by_cell(*pair.ours), records.by_cell(*pair.theirs)
    both = sorted(mine.keys() & other.keys())
    if not both:
        return []
    gains = np.array([mine[key]["test_top1"] - other[key]["test_top1"] for key in both])
    clusters = [key[:2] for key in both]
    interval = clustered_interval(gains, clusters)
    sure = [key for key in both if mcnemar(right(mine[key]), right(other[key])) < 0.05]
    ahead = sum(mine[key]["test_top1"] > other[key]["test_top1"] for key in sure)
    amounts = sorted({key[2] for key in both}, key=lambda shots: shots or np.inf, reverse=True)
    by = (
        (s, np.mean([g for g, key in zip(gains, both, strict=True) if key[2] == s]))
        for s in amounts
    )
    return [
        f"{len(both)} ({len(set(clusters))})",
        f"{100 * gains.mean():+.1f}",
        between(interval),
        f"{(gains > 0).sum()} / {(gains < 0).sum()}",
        f"{ahead} / {len(sure) - ahead}",
        ", ".join(f"{s or 'all'}: {100 * mean:+.1f}" for s, mean in by),
        _outside([(mine[key]["ood_top1"], other[key]["ood_top1"]) for key in both], clusters),
        _says(interval),
    ]


def _outside(
    pairs: list[tuple[float | None, float | None]], clusters: list[tuple[str, str]]
) -> str:
    found = [(a - b, c) for (a, b), c in zip(pairs, clusters, strict=True) if None not in (a, b)]
    if not found:
        return "-"
    gains, of = zip(*found, strict=True)
    interval = clustered_interval(gains, of)
    text = f"{100 * np.mean(gains):+.1f}"
    return text if interval is None else f"{text} ({between(interval)})"


def _says(interval: Interval | None) -> str:
    if interval is None:
        return "one cluster: nothing"
    if covers_zero(interval):
        return "interval covers 0"
    return "higher" if interval[0] > 0 else "lower"
