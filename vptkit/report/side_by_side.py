"""Several bundles in one table, and the picture of what is gained and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.cli.texts.inspect_text import size_text
from vptkit.scores.score_interval import percent
from vptkit.text_table import milliseconds

from .measured_speed import Profile, rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Judged = Sequence[Mapping[str, Any]]

__all__ = ["front", "side_by_side"]

_MODEL = "model.onnx"
_MORE_IS_BETTER = (True, False, False)  # accuracy, latency, size


def side_by_side(judged: Judged, profiles: Sequence[Profile]) -> dict[str, Any] | None:
    """What is shown of several bundles together.

    Args:
        judged: {"facts", "quality", "noted", …} of each bundle.
        profiles: what was measured.

    Returns:
        "head" and "rows" of the table; "pictures", one for each profile in which two bundles or more
        were measured and judged, with a caption. None of a single bundle.
    """
    if len(judged) < 2:
        return None
    figures = [_figures(one, profiles) for one in judged]
    best = front([(f["top1"], f["ms"], f["bytes"]) for f in figures])
    rows = [
        [
            f["name"],
            f["precision"],
            f["accuracy"],
            "-" if f["ms"] is None else f"{milliseconds(f['ms'])} ms",
            size_text(f["bytes"]),
            f["work"],
            {True: "yes", False: "no", None: "not known"}[on],
        ]
        for f, on in zip(figures, best, strict=True)
    ]
    head = ["bundle", "precision", "accuracy", "median latency", "size", "work", "on the front"]
    return {"head": head, "rows": rows, "pictures": _pictures(judged, figures, profiles)}


def front(points: Sequence[tuple[float | None, float | None, float]]) -> list[bool | None]:
    """Whether no other point is better in one thing and as good in all (Pareto).

    Args:
        points: accuracy, latency, size; of None nothing can be said.
    """
    known = [point for point in points if None not in point]
    return [
        None if None in point else not any(_beats(one, point) for one in known) for point in points
    ]


def _beats(one: Sequence[Any], other: Sequence[Any]) -> bool:
    signed = [
        (a - b) if more else (b - a) for a, b, more in zip(one, other, _MORE_IS_BETTER, strict=True)
    ]
    return bool(min(signed) >= 0 and max(signed) > 0)


def _figures(one: Mapping[str, Any], profiles: Sequence[Profile]) -> dict[str, Any]:
    """What is compared of a bundle; the latency is of the first profile that has it."""
    facts, quality = one["facts"], one["quality"]
    found = rows_of(profiles, _graph(facts))
    smallest = min(found, key=lambda row: int(row["batch"]), default=None)
    judged = None if quality is None else quality["top1"]
    return {
        "name": facts["name"],
        "precision": facts["precision"],
        "bytes": facts["bytes"],
        "work": facts["work"][-1]["text"] if facts["work"] else "-",
        "ms": None if smallest is None else smallest["ms"]["p50"],
        "top1": None if judged is None else judged[0],
        "interval": None if judged is None else judged[1:],
        "accuracy": _accuracy(one),
    }


def _accuracy(one: Mapping[str, Any]) -> str:
    """As "84.7 %", "83.1 % (noted)" of the training, or "-"."""
    quality = one["quality"]
    if quality is not None and quality["top1"] is not None:
        return percent(quality["top1"][0])
    noted = [share for split, share in one["noted"] if split.startswith("test")]
    return f"{noted[0]} (noted)" if noted else "-"


def _graph(facts: Mapping[str, Any]) -> str:
    return next((file["sha256"] for file in facts["files"] if file["name"] == _MODEL), "")


def _pictures(
    judged: Judged, figures: Sequence[Mapping[str, Any]], profiles: Sequence[Profile]
) -> list[dict[str, str]]:
    from vptkit.plot_text import PAGE, inline_svg

    from .accuracy_latency_plot import accuracy_latency_figure

    pictures = []
    for title, document, _ in profiles:
        batch = min(row["batch"] for row in document["rows"])
        rows = _rows(judged, figures, title, document, batch)
        if sum(row["kind"] == "adapter" for row in rows) > 1:
            caption = f"Accuracy over latency, {title}, batch {batch}; the area is the size. "
            caption += "Whiskers: 95 % intervals."
            drawn = accuracy_latency_figure(rows, title, PAGE)
            pictures.append({"svg": inline_svg(drawn, f"pareto {title}"), "caption": caption})
    return pictures


def _rows(
    judged: Judged,
    figures: Sequence[Mapping[str, Any]],
    title: str,
    document: dict[str, Any],
    batch: int,
) -> list[dict[str, Any]]:
    """As `accuracy_latency_plot.accuracy_latency_figure` takes them: bundles, then baselines."""
    rows = []
    for style, (one, f) in enumerate(zip(judged, figures, strict=True)):
        found = rows_of([Profile(title, document)], _graph(one["facts"]))
        row = next((row for row in found if row["batch"] == batch), None)
        if row is None or f["top1"] is None:
            continue
        bare = row["ratio"] is not None and row["ratio"]["to"].startswith("backbone")
        rows.append(
            {
                "name": f["name"],
                "kind": "adapter",
                "style": style,
                "ms": row["ms"],
                "bytes": f["bytes"],
                "test_top1": f["top1"],
                "test_interval": f["interval"],
                "ratio_interval": [row["ratio"]["low"], row["ratio"]["high"]] if bare else None,
            }
        )
    baselines = [
        {"name": row["name"], "kind": "baseline", "ms": row["ms"]}
        for row in document["rows"]
        if row["kind"] == "baseline" and row["batch"] == batch
    ]
    return rows + baselines
