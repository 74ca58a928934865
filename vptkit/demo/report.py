"""What the demo shows: its table, and report.html on its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vptkit
from vptkit.pages.page_file import write_page
from vptkit.plot_text import PAGE, inline_svg
from vptkit.report.accuracy_latency_plot import accuracy_latency_figure, plot_accuracy_latency
from vptkit.report.measured_speed import Profile, speed_facts
from vptkit.report.page import filled
from vptkit.shown_text import shown
from vptkit.strict_json import json_text
from vptkit.text_table import columns

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.tune import TuneResult

__all__ = ["DemoSettings", "demo_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What to run; None takes the embedded images and backbone."""

    output: Path
    data: Path | None = None
    backbone: str | None = None
    weights: Path | None = None
    image_size: int | None = None
    epochs: int = 2
    threads: int | None = None
    allow_outside: bool = False
    columns: str | None = None
    skip_broken: bool = False


def demo_table(document: dict[str, Any]) -> str:
    """The one table of the demo, as text."""
    return columns(_HEADER, [_cells(row) for row in document["rows"]])


def report_rows(
    document: dict[str, Any], tuned: dict[str, TuneResult], parity: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row a method and baseline: what was learned, how good it is, and how fast.

    Args:
        document: of `vptkit.runtime.profile.benchmark.profile`.
        tuned: method → its result.
        parity: method → its bundle's `Parity.to_json`.
    """
    backbone = next(row for row in document["rows"] if row["kind"] == "baseline")
    rows = []
    for row in document["rows"]:
        result = tuned.get(row["name"])
        count, interval = _judged(result)
        rows.append(
            {
                "name": row["name"],
                "kind": row["kind"],
                "test_top1": result.test_top1 if result else None,
                "test_count": count,
                "test_interval": interval,
                "val_top1": result.val_top1 if result else None,
                "trainable": result.trainable if result else None,
                "trainable_prompts": result.trainable_prompts if result else None,
                "ms": row["ms"],
                "ratio": row["ms"]["p50"] / backbone["ms"]["p50"],
                "ratio_interval": [row["ratio"]["low"], row["ratio"]["high"]]
                if row["ratio"]
                else None,
                "verdict": row["ratio"]["verdict"] if row["ratio"] else None,
                "parity": parity[row["name"]]["max_rel_diff"] if result else None,
            }
        )
    return rows


def _judged(result: TuneResult | None) -> tuple[int | None, list[float] | None]:
    """Number of test images, and the 95 % interval of the accuracy on them (Wilson's)."""
    from vptkit.formats.adapter import read_adapter
    from vptkit.scores.score_interval import wilson

    if result is None or result.test_top1 is None:
        return None, None
    count = sum(read_adapter(result.adapter).train["images"]["test"].values())
    return count, list(wilson(round(result.test_top1 * count), count))


_LEARNING = {
    "probe": "Log-loss over the probe's strength.",
    "loss": "Loss over epochs.",
    "score": "Accuracy over epochs.",
}
_HEADER = ["", "test top-1", "trained", "without head", "p50 ms", "÷ backbone", "parity"]


def _cells(row: dict[str, Any]) -> list[str]:
    def text(key: str, form: str) -> str:
        return "-" if row[key] is None else format(row[key], form)

    return [
        row["name"],
        text("test_top1", ".3f"),
        text("trainable", ","),
        text("trainable_prompts", ","),
        format(row["ms"]["p50"], ".2f"),
        text("ratio", ".3f"),
        text("parity", ".0e"),
    ]


def write_report(
    folder: Path,
    rows: list[dict[str, Any]],
    tuned: dict[str, TuneResult],
    document: dict[str, Any],
    settings: DemoSettings,
) -> None:
    """report.html, on its own: table and pictures; those and profile.json beside it."""
    from vptkit.runtime.profile.profile_plot import plot_profile
    from vptkit.tune.training_page.learning_curves import learning_figures

    histories = {
        name: [json.loads(line) for line in result.metrics.read_text().splitlines()]
        for name, result in tuned.items()
    }
    plot_profile(document, folder / "profile.png")
    told = _circumstances(document, rows, settings)
    plot_accuracy_latency(rows, told, folder / "accuracy_latency.png")
    (folder / "profile.json").write_text(json_text(document, indent=1) + "\n")
    speed = speed_facts(Profile("latency", document))
    filling = {
        "title": "vptkit demo",
        "told": " ".join(told.split("\n")),
        "version": vptkit.__version__,
        "data": _data(settings),
        "backbone": _backbone(settings),
        "epochs": settings.epochs,
        "head": ["method", *_HEADER[1:]],
        "rows": [_cells(row) for row in rows],
        "accuracy_latency": inline_svg(
            accuracy_latency_figure(rows, told, PAGE), "accuracy over latency"
        ),
        "curves": [
            (inline_svg(figure, _LEARNING[name]), _LEARNING[name])
            for name, figure in learning_figures(histories).items()
        ],
        "distribution": speed["distribution"],
        "medians": speed["medians"],
        "machine": json_text(document["machine"]),
    }
    page = filled("demo.html.jinja", filling)
    write_page(page, folder / "report.html")


def _data(settings: DemoSettings) -> str:
    return str(settings.data or "scikit-learn's handwritten digits")


def _backbone(settings: DemoSettings) -> str:
    return settings.backbone or "the embedded ViT of 1.2 M parameters"


def _circumstances(
    document: dict[str, Any], rows: list[dict[str, Any]], settings: DemoSettings
) -> str:
    """What a picture needs to be read on its own, in two lines."""
    machine = document["machine"]
    count = next((row["test_count"] for row in rows if row["test_count"]), 0)
    runtime = machine["versions"].get("onnxruntime", "")
    return (
        f"{shown(_data(settings))}, {count} test images; {_backbone(settings)}; {settings.epochs} epochs, "
        "one seed.\n"
        f"{machine['cpu'] or machine['arch']}, {machine['session_threads']} threads, ONNX Runtime "
        f"{runtime}, load {machine['load']} at the start. Whiskers: 95 % intervals."
    )
