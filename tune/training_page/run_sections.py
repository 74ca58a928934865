"""The parts of a training's page, in order; each is there where the run has it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vptkit.pages.page_parts import Picture, Section, Table
from vptkit.scores.score_interval import percent

from .learning_curves import learning_figures
from .rescale_plots import (
    id_ood_figure,
    lambda_figure,
    line_loss_figure,
    line_score_figure,
    shift_figure,
)
from .search_plots import burstiness_figure, candidates_figure, parts_figure, rank_figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from .trained_run import TrainedRun

__all__ = ["run_sections"]

_EPOCHS = 500  # rows of a table


def run_sections(run: TrainedRun) -> list[Section]:
    """All that the run has.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = learning_figures({run.name: run.history}, run.score)
    rescale = run.norms["rescale"] if run.norms else None
    found = [
        _learning(run, figures),
        _parts(run),
        _probe(run, figures),
        _candidates(run),
        _moved("lambda", rescale, run) if rescale else None,
        _moved("line", run.line, run) if run.line else None,
        _shift(run),
        _whitening(run),
    ]
    return [section for section in found if section is not None]


def _learning(run: TrainedRun, figures: Mapping[str, Figure]) -> Section | None:
    if "loss" not in figures:
        return None
    words = {"loss": "Loss over epochs.", "score": f"{_capital(run.score)} over epochs."}
    pictures = [Picture(name, figures[name], told) for name, told in words.items()]
    notes = ["Epoch 0 is the linear probe that the training began with."]
    return Section(
        "learning",
        "Learning",
        notes if run.history[0]["epoch"] == 0 else [],
        pictures,
        [_epochs(run)],
    )


def _epochs(run: TrainedRun) -> Table:
    cycles = any("cycle" in record for record in run.history)
    score = f"val {run.score}"
    head = ["epoch", *(["cycle, part"] if cycles else []), "train loss", "val loss", score, ""]
    rows = [
        [
            str(record["epoch"]),
            *([f"{record['cycle']}, {record['part']}" if "cycle" in record else "-"] * cycles),
            _number(record.get("train_loss")),
            _number(record.get("val_loss")),
            _share(record.get("val_top1")),
            "taken" if record.get("taken") else "",
        ]
        for record in run.history[:_EPOCHS]
    ]
    return Table("Every epoch", head, rows, folded=True)


def _parts(run: TrainedRun) -> Section | None:
    """Cross-validation."""
    held = run.held
    if held is None or not held.folds:
        return None
    note = (
        f"There was no val to choose by: {held.folds} parts of train were held out in turns, and the "
        "epoch that is best over all of them was trained once more, on all images."
    )
    rows = []
    for number, records in enumerate(held.parts, 1):
        ended = next((r for r in records if r["epoch"] == held.best_epoch), None)
        if ended is not None:
            values = [str(ended["images"]), _number(ended["val_loss"]), _share(ended["val_top1"])]
            rows.append([str(number), *values])
    words = "Log-loss over epochs of each part, held out, and of all together."
    pictures = [Picture("parts", parts_figure(held.parts, held.records, held.best_epoch), words)]
    head = ["part", "images", "log-loss", run.score]
    many = len(held.records) > 1
    return Section(
        "parts",
        "Cross-validation",
        [note],
        pictures if many else [],
        [Table(f"Held-out parts at epoch {held.best_epoch}", head, rows)] if rows else [],
    )


def _probe(run: TrainedRun, figures: Mapping[str, Figure]) -> Section | None:
    if "probe" not in figures:
        return None
    probe = run.history[0]["probe"]
    note = (
        f"A head alone on the frozen features: {run.score} {_share(probe.get('val_top1'))} and "
        f"log-loss {_number(probe.get('val_loss'))} on {run.judge}, with strength "
        f"{probe['strength']:.3g} of {len(probe['grid'])} that were tried."
    )
    notes = [note]
    nearest = {k: share for k, share in (probe.get("knn_top1") or {}).items() if share is not None}
    if nearest:
        told = ", ".join(f"{percent(share)} (k = {k})" for k, share in nearest.items())
        notes.append(f"Nearest neighbours, the floor that needs no training: {told}.")
    words = "Log-loss over the strength of L2; the dot is the chosen one."
    return Section("probe", "Linear probe", notes, [Picture("probe", figures["probe"], words)], [])


def _candidates(run: TrainedRun) -> Section | None:
    """What `--method auto` tried."""
    if run.auto is None:
        return None
    budget = (run.auto.get("config") or {}).get("budget")
    bound = f"within a budget of {budget}" if budget else "without a bound (--budget sets one)"
    note = (
        f"Method auto, {bound}. All begin as the probe and train with their whole schedule; at each "
        "rung the worse half ends, and the rest goes on. A method is kept only if it beats what learns "
        "less by more than one standard error of the paired difference on the images that judge. "
        f"{sum(row['epochs'] for row in run.auto['tried'])} epochs were trained in all."
    )
    timed = bool(budget) and "epoch" not in str(budget)
    head = ["method", "epochs", "best epoch", "log-loss", run.score, "learned, without head"]
    rows = [
        [
            row["method"] + (" (kept)" if row["method"] == run.auto["kept"] else ""),
            str(row["epochs"]),
            str(row["best_epoch"]),
            _number(row["val_loss"]),
            _share(row["val_top1"]),
            f"{row['numbers']:,}",
            *([f"{row['seconds']:.0f}"] if timed else []),
        ]
        for row in run.auto["tried"]
    ]
    table = Table("What was tried", head + (["seconds"] if timed else []), rows)
    figure = candidates_figure(run.auto["tried"], run.auto["kept"])
    words = "Log-loss over epochs: a line that ends earlier was given up there."
    drawn = any(len(row.get("losses", ())) > 1 for row in run.auto["tried"])
    pictures = [Picture("candidates", figure, words)] if drawn else []
    return Section("candidates", "Candidates", [note], pictures, [table])


def _moved(key: str, curve: Mapping[str, Any], run: TrainedRun) -> Section | None:
    """Along λ or α."""
    letter, factor = ("α", "alpha") if key == "line" else ("λ", "lambda")
    notes = [f"{letter} = {curve[factor]:g} was chosen by {run.judge} alone.", _rule(key, curve)]
    rows = curve["curve"]
    if len(rows) < 2:
        notes = ["The training ended at its start: there is no way between, and α is 0."]
        return Section(key, "Between start and end", notes, [], [])
    if key == "line":
        title = "Between start and end"
        pictures = [
            Picture("line", line_loss_figure(curve), "Log-loss on val along α, which chooses."),
            Picture("line-score", line_score_figure(curve, run.score), "Accuracy along α."),
        ]
    else:
        title = "How far the LayerNorms go: λ"
        pictures = [Picture("lambda", lambda_figure(curve), "Accuracy along λ.")]
    if any("ood_top1" in row for row in rows):
        words = "In (ID) and out of distribution (OOD); noted, and not used to choose."
        pictures.append(Picture("id-ood", id_ood_figure(curve, run.score), words))
    return Section(key, title, notes, pictures, [])


def _rule(key: str, curve: Mapping[str, Any]) -> str:
    """How it was chosen, and by how much it won."""
    if key == "line":
        chosen = next(row for row in curve["curve"] if row["alpha"] == curve["alpha"])
        ends = [row for row in curve["curve"] if row["alpha"] in (0.0, 1.0)]
        told = "; ".join(
            f"α = {row['alpha']:g} has {row['val_loss']:.3f}, ± {row['val_loss_error']:.3f}"
            for row in ends
            if row is not chosen and row["val_loss_error"] is not None
        )
        best = f"The smallest log-loss wins: {chosen['val_loss']:.3f}"
        return f"{best}. {told} (standard error of the difference)." if told else f"{best}."
    chosen = next(row for row in curve["curve"] if row["lambda"] == curve["lambda"])
    if curve["lambda"] == 1:
        return "No other λ wins by more than √n of the n images of val that it changes."
    return (
        f"Against λ = 1 it wins {chosen['won']} images of val and loses {chosen['lost']}: more than √n "
        "of the n that it changes."
    )


def _shift(run: TrainedRun) -> Section | None:
    if run.norms is None:
        return None
    shift, proxy = run.norms["shift"], run.norms.get("fsr_proxy")
    notes = [
        f"How far γ and β of each LayerNorm moved, before λ: {shift['total']:.3g} in all.",
        *([f"FSR proxy: {_listed(proxy)}."] if proxy else []),
    ]
    if not shift["total"]:
        notes[0] = "Nothing moved: the start was kept."
        return Section("shift", "LayerNorm shift", notes, [], [])
    words = "Length of the change of γ and β, in the order of the forward pass."
    picture = Picture("shift", shift_figure(shift), words)
    return Section("shift", "LayerNorm shift", notes, [picture], [])


def _listed(document: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in document.items()
        if isinstance(value, (int, float, str))
    )


def _whitening(run: TrainedRun) -> Section | None:
    blocks = run.record.get("whitening")
    if not blocks:
        return None
    bursty = all("kurtosis" in block for block in blocks)
    head = ["block", "rank", "condition", *(["kurtosis before", "after"] if bursty else [])]
    rows = [
        [
            str(number),
            str(block["rank"]),
            f"{'≥ ' if block.get('condition_is_bound') else ''}{block['condition']:.2g}",
            *([f"{value:.3g}" for value in block["kurtosis"]] if bursty else []),
        ]
        for number, block in enumerate(blocks, 1)
    ]
    note = (
        "Prompts are compared with X~ = W_q W_kᵀ Xᵀ, whose second moment is Σ; whitening divides by its "
        "square root."
    )
    pictures = []
    if len(blocks) > 1:
        words = "Excess kurtosis of X~: burstiness before whitening, and what is left after it."
        pictures += [Picture("burstiness", burstiness_figure(blocks), words)] if bursty else []
        pictures.append(Picture("rank", rank_figure(blocks), "Rank and condition of Σ by block."))
    table = Table("Whitening by block", head, rows, folded=len(blocks) > 1)
    return Section("whitening", "Whitening", [note], pictures, [table])


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _capital(text: str) -> str:
    return text if text == "mAP" else text.capitalize()
