"""How `vptkit tune` ends: how good the adapter is, what was written, what one does next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.verdict import next_command, wrote
from vptkit.scores.score_interval import percent, share_text
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vptkit.tune.config import TuneConfig
    from vptkit.tune.run.few_shot_series import ShotsResult
    from vptkit.tune.run.run_result import TuneResult

__all__ = ["numbers", "shots_verdict", "tune_verdict"]

_WEAKEST, _FEWEST = 2, 5  # classes that are told; images of such a class


def tune_verdict(result: TuneResult, config: TuneConfig) -> str:
    """Accuracy with its interval, weak classes, files, and the command that one types next."""
    files = [result.metrics, *([result.page] if result.page else []), *result.plots]
    several = result.multilabel
    lines = [_scores(result), *_weakest(result)]
    if several is not None:
        judges = "val" if result.cross_validation is None else "cross-validation"
        lines = [
            f"{_label_scores(several, judges)}, {_kept(result)}",
            *_weakest_labels(several, judges),
        ]
    lines += [wrote(result.adapter, *(path for path in files if path.exists()))]
    return "\n".join([*lines, _export(result.adapter, config.weights)])


def shots_verdict(made: ShotsResult, config: TuneConfig) -> str:
    """The same of a series: from the fewest images a class to the most, and the last one's export."""
    from pathlib import Path

    runs = made.runs
    key = next((k for k in ("test_top1", "val_top1") if runs[0][k] is not None), None)
    lines = [made.to_text()]
    if key is not None:
        told = " to ".join(f"{percent(run[key])} ({_shots(run)})" for run in (runs[0], runs[-1]))
        lines += [f"{key.removesuffix('_top1')} {told}"]
    adapter = Path(runs[-1]["adapter"])
    others = [Path(run["adapter"]) for run in reversed(runs[:-1])]
    return "\n".join([*lines, wrote(adapter, *others), _export(adapter, config.weights)])


def numbers(document: Mapping[str, Any], *, prompted: bool) -> dict[str, Any]:
    """For `--verbose`: what applies of `TuneResult.to_text`.

    Args:
        document: that text.
        prompted: prompts were learned.
    """
    kept = {key: value for key, value in document.items() if value not in (None, [], {})}
    if not prompted:
        kept.pop("trainable_prompts", None)
    return {
        key: value
        for key, value in kept.items()
        if key not in ("warnings", "images", "skipped", "twice")
    }


def _shots(run: Mapping[str, Any]) -> str:
    return f"{run['shots']} shot{'s' if run['shots'] > 1 else ''}"


def _export(adapter: Path, weights: Path | None) -> str:
    given = [] if weights is None else ["--weights", weights]
    return next_command("export", adapter, *given, "-o", adapter.with_suffix(".vptk"))


def _scores(result: TuneResult) -> str:
    """As "test 86.8 % (217 of 250; …), val 88.0 %, best epoch 7"."""
    counts = {split: sum(classes.values()) for split, classes in result.images.items()}
    parts = [
        f"{split} {share_text(round(top1 * counts[split]), counts[split])}"
        for split, top1 in (("test", result.test_top1), ("ood", result.ood_top1))
        if top1 is not None and counts.get(split)
    ]
    val = _val(result, counts, short=bool(parts))
    return ", ".join([*parts, val, _kept(result)])


def _label_scores(several: Mapping[str, Any], judges: str) -> str:
    """As "test mAP 61.2 %, micro F1 58.0 %, macro F1 51.3 % (120 images); val mAP 63.0 %"."""
    parts: list[str] = []
    for split, name in (("test", "test"), ("ood", "ood"), ("val", judges)):
        found = several[split]
        if found is None or found["map"] is None:
            continue
        f1 = f"micro F1 {percent(found['micro_f1'])}, macro F1 {percent(found['macro_f1'])}"
        whole = split != "val" or not parts
        rest = f", {f1} ({found['images']:,} images)" if whole else ""
        parts.append(f"{name} mAP {percent(found['map'])}{rest}")
    return "; ".join(parts) or "not judged: no image is left that was not trained on"


def _weakest_labels(several: Mapping[str, Any], judges: str) -> list[str]:
    """The labels of the lowest average precision."""
    known = {
        label: found["average_precision"]
        for label, found in several["labels"].items()
        if found["average_precision"] is not None and found["images"] >= _FEWEST
    }
    weak = sorted(known, key=lambda label: known[label])[:_WEAKEST]
    if len(known) <= _WEAKEST:
        return []
    told = ", ".join(f"{shown(label)} {percent(known[label])}" for label in weak)
    return [f"weakest labels by average precision on {judges}: {told}"]


def _val(result: TuneResult, counts: Mapping[str, int], *, short: bool) -> str:
    if result.val_top1 is None:
        return "not judged: one image a class, so none could be held out"
    held = result.cross_validation
    if held is None:
        name, count = "val", counts.get("val", 0)
    else:
        name = f"{held['folds']}-fold cross-validation of the training images"
        count = sum(n for n in result.images.get("train", {}).values() if n > 1)
    if short or not count:
        return f"{name} {percent(result.val_top1)}"
    return f"{name} {share_text(round(result.val_top1 * count), count)}"


def _kept(result: TuneResult) -> str:
    kept = f"kept {result.auto['kept']}, " if result.auto else ""
    if result.best_epoch == 0:
        kept += "the linear probe" if _is_probe(result) else "the linear probe; no epoch was better"
    elif result.soup:
        kept += f"average of epochs {', '.join(map(str, result.soup))}"
    else:
        kept += f"best epoch {result.best_epoch}"
    rescale = (result.layer_norms or {}).get("rescale")
    if rescale:
        kept += f", λ {rescale['lambda']:g}"
    if result.line:
        kept += f", α {result.line['alpha']:g}"
    return kept


def _is_probe(result: TuneResult) -> bool:
    """Whether the probe is all that was asked for; then the head is all that was learned."""
    return result.trainable_prompts == 0


def _weakest(result: TuneResult) -> list[str]:
    """The classes that are found least often, if that is less often than the mean."""
    images = result.images.get("val" if result.cross_validation is None else "train", {})
    shares = {
        label: right / images[label]
        for label, right in result.by_class.items()
        if images.get(label, 0) >= _FEWEST
    }
    weak = sorted(shares, key=lambda label: shares[label])[:_WEAKEST]
    weak = [label for label in weak if shares[label] < (result.val_top1 or 0)]
    if len(shares) <= _WEAKEST or not weak:
        return []
    told = ", ".join(f"{shown(label)} {percent(shares[label])}" for label in weak)
    judges = "val" if result.cross_validation is None else "cross-validation"
    return [f"weakest classes by {judges}: {told}"]
