"""Which pictures lie beside an adapter; those of an adapter that it replaces go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.plot_text import can_draw
from vptkit.tune.training.run_files import PICTURES

from . import layer_norm_plots, learning_curves

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vptkit.tune.training.run_files import RunFiles
    from vptkit.tune.training.train_state import TrainState

__all__ = ["plot_run"]


def plot_run(
    state: TrainState, norms: Mapping[str, Any] | None, files: RunFiles, name: str
) -> tuple[Path | None, tuple[Path, ...]]:
    """The learning curves, and the pictures of tuned LayerNorms.

    Args:
        state: its history is drawn.
        norms: `Rescaled.to_json`, None if no LayerNorms are tuned.
        files: of the run.
        name: of the adapter, for the titles.

    Returns:
        paths of the curves, and of the pictures; (None, ()) without matplotlib.
    """
    drawn = _draw(state, norms, files, name)
    for old in {files.beside(ending) for ending in PICTURES} - set(drawn):
        old.unlink(missing_ok=True)  # of an adapter that this one replaces
    return (drawn[0], tuple(drawn[1:])) if drawn else (None, ())


def _draw(
    state: TrainState, norms: Mapping[str, Any] | None, files: RunFiles, name: str
) -> list[Path]:
    """What there is to draw: the curves first; nothing without matplotlib."""
    if not can_draw():
        return []
    plots = [files.curves]
    learning_curves.plot_curves({name: state.records}, files.curves)
    if norms is None:
        return plots
    plots.append(files.beside("shift.png"))
    layer_norm_plots.plot_shift(norms["shift"], plots[-1], name)
    if norms["rescale"]:
        plots.append(files.beside("lambda.png"))
        layer_norm_plots.plot_lambda(norms["rescale"], plots[-1], name)
        if any("ood_top1" in row for row in norms["rescale"]["curve"]):
            plots.append(files.beside("id-ood.png"))
            layer_norm_plots.plot_id_ood(norms["rescale"], plots[-1], name)
    return plots
