"""What a run chose, and how sure that is: sentences and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.scores.score_interval import percent, share_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .trained_run import TrainedRun

__all__ = ["chosen_facts", "headline", "score_rows"]

_ROLES = {
    "val": "chose: a little flattered",
    "test": "read once, at the end (ID)",
    "ood": "likewise; other circumstances (OOD)",
}


def headline(run: TrainedRun) -> str:
    """As "val 88.0 %, test 86.8 %"."""
    ends = "," if run.several else " ("  # mAP is told alone
    told = [f"{name} {text.partition(ends)[0]}" for name, _, text in score_rows(run)]
    return ", ".join(told) or "no image was left to judge by"


def score_rows(run: TrainedRun) -> list[list[str]]:
    """Rows: split, what it was for, and the accuracy with its 95 % interval, or mAP and F1."""
    held = run.held is not None
    names = {"val": "held out of train" if held else "val", "test": "test", "ood": "ood"}
    roles = _ROLES | ({"val": "chose, in turns: cross-validation"} if held else {})
    told = _label_scores(run) if run.several else _shares(run)
    return [[names[split], roles[split], text] for split, text in told.items()]


def _shares(run: TrainedRun) -> dict[str, str]:
    record, found = run.record, {}
    for split in _ROLES:
        share = record.get(f"{split}_top1")
        count = run.judges if split == "val" else run.images.get(split, 0)
        if share is not None and count:
            found[split] = share_text(round(share * count), count)
    return found


def _label_scores(run: TrainedRun) -> dict[str, str]:
    found = {}
    for split in _ROLES:
        part = (run.record.get("multilabel") or {}).get(split)
        if part:
            mean = "not known" if part["map"] is None else percent(part["map"])
            found[split] = (
                f"mAP {mean}, micro F1 {percent(part['micro_f1'])}, "
                f"macro F1 {percent(part['macro_f1'])} ({part['images']} images)"
            )
    return found


def chosen_facts(run: TrainedRun) -> list[tuple[str, str]]:
    """Pairs name, text: what was learned from what, and each choice."""
    record = run.record
    config = record["config"]
    facts = [
        ("method", f"{run.method}, {run.learned:,} learned numbers, head included"),
        ("backbone", str(config["backbone"])),
        ("images", ", ".join(f"{split} {count:,}" for split, count in run.images.items())),
        ("labels" if run.several else "classes", f"{len(record['labels']):,}"),
        ("taken", _taken(record)),
    ]
    facts += [("between start and end", _place(run))] if run.norms or run.line else []
    facts += [("chosen by", _judged(run))]
    if record.get("confidence"):
        facts.append(("temperature", _temperature(record["confidence"])))
    return [(name, text) for name, text in facts if text]


def _taken(record: Mapping[str, Any]) -> str:
    best, soup = record["best_epoch"], record.get("soup")
    if soup:
        return f"the average of epochs {', '.join(map(str, sorted(soup)))}"
    return f"epoch {best}" if best else "the start: the linear probe"


def _place(run: TrainedRun) -> str:
    """Which λ, or which α."""
    rescale = run.norms["rescale"] if run.norms else None
    told = [f"λ = {rescale['lambda']:g}"] if rescale else []
    told += [f"α = {run.line['alpha']:g}"] if run.line else []
    return ", ".join(told)


def _judged(run: TrainedRun) -> str:
    if run.held is None:
        return f"val, {run.judges:,} images"
    if not run.held.folds:
        return "nothing: one image a class leaves none to be held out"
    return f"cross-validation, {run.held.folds} parts of train held out in turns"


def _temperature(confidence: Mapping[str, Any]) -> str:
    loss, error = confidence["val_loss"], confidence["ece"]
    return (
        f"{confidence['temperature']:.3g}: log-loss {loss[0]:.3f} → {loss[1]:.3f}, expected "
        f"calibration error {error[0]:.3f} → {error[1]:.3f}, on the images that it was fitted to"
    )
