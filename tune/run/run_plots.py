"""Which pictures lie beside an adapter; those of an adapter that it replaces go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    for ending in ("curves.png", "shift.png", "lambda.png", "id-ood.png"):
        files.beside(ending).unlink(missing_ok=True)  # of an adapter that this one replaces
    try:
        from .layer_norm_plots import plot_id_ood, plot_lambda, plot_shift
        from .learning_curves import plot_curves  # needs matplotlib, an extra
    except ImportError:
        return None, ()
    plot_curves({name: state.history}, files.curves)
    if norms is None:
        return files.curves, ()
    plots = [files.beside("shift.png")]
    plot_shift(norms["shift"], plots[0], name)
    if norms["rescale"]:
        plots.append(files.beside("lambda.png"))
        plot_lambda(norms["rescale"], plots[-1], name)
        if any("ood_top1" in row for row in norms["rescale"]["curve"]):
            plots.append(files.beside("id-ood.png"))
            plot_id_ood(norms["rescale"], plots[-1], name)
    return files.curves, tuple(plots)
