"""What a tuning run gave, as a value and as the document of `vptkit tune --json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TuneResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What a tuning run gave.

    Attributes:
        adapter: path of the file.
        trainable: learned numbers, head included; trainable_prompts without the head, so with
            LayerNorms and LoRA's factors where they are tuned.
        best_epoch: whose parameters the adapter holds.
        soup: the epochs whose average it holds, the best one first; None if it is one epoch's.
        val_top1, test_top1, ood_top1: shares; None if there is no such split. Where there is no val,
            val_top1 is of images held out from training, and None with one image a class.
        seconds: of this call.
        device: that it ran on, as "cpu" or "cuda:0 (NVIDIA H200)".
        metrics: the JSON-lines log.
        page: what the run tried and chose, as HTML; None if there is none.
        probe: the linear probe that the training began with: strength and its grid, kNN (`Probe.to_json`);
            None if the head began at zero.
        auto: what `--method auto` tried and kept; None of any other method.
        layer_norms: shift, λ and its curve, the FSR proxy (`Rescaled.to_json`); None if not tuned.
        line: {"alpha", "curve"}, of the line between start and end (`Line.to_json`); None if none was
            walked.
        confidence: {"temperature", "val_loss": [before, after], "ece": [before, after]}; None if no
            temperature was sought, or an older vptkit tuned.
        plots: pictures as files, if those were asked for instead.
        no_pictures: why there are none of either, a sentence; None if they are there or not wanted.
        cross_validation: what chose instead of val: {"folds": how many, 0 if no image could be held
            out; "joined": images of a val that was too small to choose, and joined train}; None if
            val chose.
        warnings: sentences, as of a training that diverged (`vptkit.tune.phases.judge_training`).
        by_class: class → right answers, of val or of what was held out.
        task: "single", or "multilabel": then the accuracies are None, and `multilabel` has mAP and F1 of
            each split and of each label (`vptkit.scores.label_report`); in `probe`, `line` and `auto`
            `val_map` stands for `val_top1`.
        images: split → class → number of images; of train those that were trained on.
        skipped: broken images that were left out: {"split", "name", "path", "reason"}, at most 100; of
            an older vptkit's adapter without the reason.
        twice: images in two splits, as {"test": its name, "train": its name}; at most 100.
    """

    adapter: Path
    trainable: int
    trainable_prompts: int
    best_epoch: int
    val_top1: float | None
    test_top1: float | None
    seconds: float
    device: str
    metrics: Path
    page: Path | None = None
    ood_top1: float | None = None
    auto: dict[str, Any] | None = None
    probe: dict[str, Any] | None = None
    layer_norms: dict[str, Any] | None = None
    line: dict[str, Any] | None = None
    confidence: dict[str, Any] | None = None
    plots: tuple[Path, ...] = ()
    no_pictures: str | None = None
    soup: list[int] | None = None
    cross_validation: dict[str, int] | None = None
    warnings: tuple[str, ...] = ()
    by_class: dict[str, int] = field(default_factory=dict)
    task: str = "single"
    multilabel: dict[str, Any] | None = None
    images: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    twice: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The document of `vptkit tune --json`."""
        return {
            "adapter": str(self.adapter),
            "trainable": self.trainable,
            "trainable_prompts": self.trainable_prompts,
            "best_epoch": self.best_epoch,
            "soup": self.soup,
            "val_top1": self.val_top1,
            "cross_validation": self.cross_validation,
            "test_top1": self.test_top1,
            "ood_top1": self.ood_top1,
            "seconds": round(self.seconds, 2),
            "device": self.device,
            "metrics": str(self.metrics),
            "page": str(self.page) if self.page else None,
            "auto": self.auto,
            "probe": self.probe,
            "layer_norms": self.layer_norms,
            "line": self.line,
            "confidence": self.confidence,
            "plots": [str(path) for path in self.plots],
            "no_pictures": self.no_pictures,
            "warnings": list(self.warnings),
            "by_class": self.by_class,
            "task": self.task,
            "multilabel": self.multilabel,
            "images": self.images,
            "skipped": self.skipped,
            "twice": self.twice,
        }

    def to_text(self) -> dict[str, Any]:
        """As `to_json`, short: of the LayerNorms the sums, of probe and line what was chosen."""
        document = self.to_json()
        document["auto"] = None if self.auto is None else self.auto["kept"]
        if self.multilabel is not None:
            scores = {split: self.multilabel[split] for split in ("val", "test", "ood")}
            document["multilabel"] = {name: found for name, found in scores.items() if found}
        if self.cross_validation is not None:
            document |= _without_val(self.val_top1, **self.cross_validation)
        if self.probe is not None:
            score = "val_top1" if self.multilabel is None else "val_map"
            document["probe"] = {key: self.probe[key] for key in ("strength", score)}
            document["knn_top1"] = self.probe["knn_top1"]
        if self.layer_norms is not None:
            norms = self.layer_norms
            document["layer_norms"] = {"layers": norms["layers"], "numbers": norms["numbers"]}
            document["shift"] = {key: norms["shift"][key] for key in ("total", "gamma", "beta")}
            document["lambda"] = norms["rescale"]["lambda"] if norms["rescale"] else None
            document["fsr_proxy"] = norms.get("fsr_proxy")
        if self.line is not None:
            document["line"] = {"alpha": self.line["alpha"]}
        if self.confidence is not None:
            pairs = {key: self.confidence[key] for key in ("val_loss", "ece")}
            arrows = {key: " → ".join(f"{v:.4g}" for v in pair) for key, pair in pairs.items()}
            document["confidence"] = {**self.confidence, **arrows}
        return document


def _without_val(val_top1: float | None, folds: int, joined: int) -> dict[str, str]:
    """What people read of a run that val did not choose."""
    said = f"{folds}-fold" if folds else "none: one image a class"
    if joined:
        said += f"; the {joined} images of val, too few to choose by, joined train"
    top1 = "-" if val_top1 is None else f"{val_top1:g} ({folds}-fold)"
    return {"val_top1": top1, "cross_validation": said}
