"""Latency on boards that nobody measured, and how far such predictions are off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import TargetError, VptkitError
from vptkit.scores.score_interval import percent
from vptkit.text_table import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vptkit.devices.boards.board import Board
    from vptkit.devices.boards.latency_model import LatencyModel, Predicted

__all__ = ["chosen_boards", "predictions"]


def chosen_boards(keys: Sequence[str]) -> list[Board]:
    """Those of these keys; all GPUs and Jetsons that run vptkit if there are none.

    Raises:
        VptkitError: no such board, or a processor, whose peak is not known.
    """
    from vptkit.devices.boards.catalog import board, boards

    if not keys:
        return [one for one in boards().values() if one.kind != "cpu" and one.runs_vptkit]
    found = [board(key) for key in dict.fromkeys(keys)]
    for one in found:
        if one.kind == "cpu":
            raise VptkitError(
                f"--boards {one.key}: no peak is known of a processor. Measure there, with "
                "vptkit profile --on"
            )
    return found


def predictions(bundles: Sequence[Path], boards: Sequence[Board]) -> dict[str, Any]:
    """Predicted milliseconds of one image, each bundle on each board.

    Args:
        bundles: opened before, so they are bundles.
        boards: of `chosen_boards`.

    Returns:
        "head" and "rows" of the table, empty if nothing can be predicted; "models", one for each
        precision: what it was fitted on and how far off it is; "missing", why a bundle has none.
    """
    from vptkit.devices.boards.latency_model import fitted_model
    from vptkit.formats.bundle import open_bundle

    models: dict[str, LatencyModel] = {}
    opened, missing = [], []
    for path in bundles:
        bundle = open_bundle(path, verify=False)
        try:
            models.setdefault(bundle.precision, fitted_model(bundle.precision))
        except TargetError as error:
            missing.append(f"{bundle.name}: {error}")
            continue
        if "graph" not in bundle.manifest["macs"]:
            missing.append(f"{bundle.name}: its manifest does not say how much it computes")
            continue
        opened.append(bundle)
    rows = [
        [one.key, one.name, *(_cell(models[bundle.precision], one, bundle) for bundle in opened)]
        for one in boards
    ]
    names = [f"{bundle.name}, {bundle.precision}" for bundle in opened]
    return {
        "head": ["board", "name", *names] if opened else [],
        "rows": rows if opened else [],
        "models": [_told(model) for model in models.values()],
        "missing": missing,
    }


def _cell(model: LatencyModel, place: Board, bundle: Any) -> str:
    """As "6.33 ms (3.28 to 30.1)", "-" where the board has no such type."""
    try:
        found: Predicted = model.predict(
            place,
            macs=bundle.manifest["macs"]["graph"],
            weight_bytes=bundle.manifest["memory"]["weights_bytes"],
            depth=bundle.spec.depth,
        )
    except TargetError:
        return "-"
    low, high = milliseconds(found.low), milliseconds(found.high)
    return f"{milliseconds(found.ms)} ms ({low} to {high})"


def _told(model: LatencyModel) -> dict[str, Any]:
    ratios = model.ratios
    return {
        "precision": model.precision,
        "efficiency": percent(model.efficiency),
        "block": f"{1000 * model.block_ms:.0f}",
        "runs": model.runs,
        "error": percent(model.typical_error),
        "least": f"{ratios[0]:.2f}",
        "most": f"{ratios[-1]:.2f}",
        "left_out": [
            [name, str(len(of)), f"{min(of):.2f} to {max(of):.2f}"]
            for name, of in model.left_out.items()
        ],
        "sources": _sources(model.sources),
    }


def _sources(names: Sequence[str]) -> list[str]:
    """Title and place of each; what is not verified says so."""
    from vptkit.devices.boards.datasheet import read_sources

    titles = read_sources()
    return [titles.get(name, name) for name in names]
