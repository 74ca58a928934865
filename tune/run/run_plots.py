"""Which pictures lie beside an adapter; those of an adapter that it replaces go."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from vptkit.plot_text import can_draw
from vptkit.tune.training.run_files import PICTURES

from . import learning_curves, rescale_plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vptkit.tune.training.run_files import RunFiles
    from vptkit.tune.training.train_state import TrainState

__all__ = ["plot_run"]


def plot_run(
    state: TrainState,
    norms: Mapping[str, Any] | None,
    files: RunFiles,
    name: str,
    line: Mapping[str, Any] | None = None,
    title: str | None = None,
    *,
    several: bool = False,
) -> tuple[Path | None, tuple[Path, ...]]:
    """The learning curves, and the pictures of tuned LayerNorms and of a line.

    Args:
        state: its history is drawn.
        norms: `Rescaled.to_json`, None if no LayerNorms are tuned.
        files: of the run.
        name: of the adapter, for the titles.
        line: `Line.to_json`, None if none was walked.
        title: of the curves, as the result; the name unless given.
        several: labels an image; then the curves are of mean average precision.

    Returns:
        paths of the curves, and of the pictures; (None, ()) without matplotlib.
    """
    records = [{**r, "taken": r["epoch"] == state.best_epoch} for r in state.records]
    if several:  # of train there is another share than of val
        records = [{key: r[key] for key in r if key != "train_top1"} for r in records]
    drawn = _draw(records, norms, line, files, name, title or name, "mAP" if several else "top-1")
    for old in {files.beside(ending) for ending in PICTURES} - set(drawn):
        old.unlink(missing_ok=True)  # of an adapter that this one replaces
    return (drawn[0], tuple(drawn[1:])) if drawn else (None, ())


def _draw(
    records: Sequence[Mapping[str, Any]],
    norms: Mapping[str, Any] | None,
    line: Mapping[str, Any] | None,
    files: RunFiles,
    name: str,
    title: str,
    score: str,
) -> list[Path]:
    """What there is to draw: the curves first; nothing without matplotlib."""
    if not can_draw():
        return []
    plots = [files.curves]
    learning_curves.plot_curves({name: records}, files.curves, title, score)
    if norms is not None:
        plots.append(files.beside("shift.png"))
        rescale_plots.plot_shift(norms["shift"], plots[-1], name)
    rescale = norms["rescale"] if norms is not None else None
    for document, ending, plot in (
        (rescale, "lambda.png", rescale_plots.plot_lambda),
        (line, "line.png", functools.partial(rescale_plots.plot_line, score=score)),
    ):
        if not document or len(document["curve"]) < 2:  # a line that ends where it starts
            continue
        plots.append(files.beside(ending))
        plot(document, plots[-1], name)
        if any("ood_top1" in row for row in document["curve"]):
            plots.append(files.beside("id-ood.png"))
            rescale_plots.plot_id_ood(document, plots[-1], name, score=score)
    return plots
