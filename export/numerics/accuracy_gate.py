"""The gate: is a graph of lower precision still the same classifier, on real images?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import DataError, GateError
from vptkit.scores.label_sets import decided, same_labels
from vptkit.scores.multilabel import sigmoid
from vptkit.scores.score_interval import percent, share_text, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vptkit.scores.feature_distance import FeatureDistance

    from .evidence import Evidence

__all__ = [
    "MIN_AGREEMENT",
    "MIN_AGREEMENT_MERGED",
    "MIN_COSINE",
    "GateResult",
    "accuracy_text",
    "compare",
    "require_gate",
    "sqnr_db",
    "with_features",
    "with_split",
]

# Smallest share of images on which fp32's best label must stay the best.
MIN_AGREEMENT = {"fp16": 0.995, "bf16": 0.995, "int8": 0.985, "fp8": 0.985}
# The same where tokens are merged: which pairs are most alike is a choice, and rounding changes it
# where two are nearly so.
MIN_AGREEMENT_MERGED = 0.98
# Smallest mean cosine between features and those of fp32, where a graph gives them.
MIN_COSINE = {"fp16": 0.999, "bf16": 0.99, "int8": 0.95, "fp8": 0.95}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """How far a graph is from its fp32 original.

    Attributes:
        ok: agreement is at least the bound.
        count: images.
        agreement: share of images whose best label is that of fp32. With several labels an image:
            of the labels that it and fp32 give, how much is the same (`label_sets.same_labels`),
            which is that share where each image has one label.
        agreement_low, agreement_high: its Wilson interval, 95 %; labels of one image depend on each
            other, so that images count, not labels.
        min_agreement: the bound.
        sqnr_db: 10 log10 (Σ logit² / Σ difference²); None without any difference.
        top1, top1_fp32: shares of images whose class is the best label; None without classes.
        simulated: the types were simulated on a CPU (`export.simulate`).
        images: digest of the images.
        split: "train", "val", "test" or "ood"; None where nothing names one.
        too_kind: the images flatter the graph: on what was trained on, every precision looks good.
        too_kind_because: why, in words.
        decode: how the images were decoded, "exact" or "fast"; None where they came decoded.
        features: how far they are from fp32's; None of a graph without.
        min_cosine: the bound on their mean cosine.
        multilabel: an image may have several labels.
    """

    ok: bool
    count: int
    agreement: float
    agreement_low: float
    agreement_high: float
    min_agreement: float
    sqnr_db: float | None
    top1: float | None
    top1_fp32: float | None
    simulated: bool
    images: str
    split: str | None = None
    too_kind: bool = False
    too_kind_because: str | None = None
    decode: str | None = None
    features: FeatureDistance | None = None
    min_cosine: float | None = None
    multilabel: bool = False

    @property
    def features_ok(self) -> bool:
        """Whether features, if there are any, point where those of fp32 do."""
        if self.features is None or self.min_cosine is None:
            return True
        return self.features.cosine is not None and self.features.cosine >= self.min_cosine

    def to_json(self) -> dict[str, Any]:
        """As the manifest writes it; `multilabel` only where it is so."""
        document = asdict(self)
        if not self.multilabel:
            del document["multilabel"]
        return document


def sqnr_db(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    """Signal over quantization noise in dB; None if there is no noise."""
    noise = float(((found - expected) ** 2).sum())
    signal = float((expected**2).sum())
    if noise == 0:
        return None
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def compare(
    expected: NDArray[np.float64],
    found: NDArray[np.float64],
    truth: NDArray[np.intp] | None,
    *,
    min_agreement: float,
    simulated: bool,
    images: str,
    thresholds: NDArray[np.float32] | None = None,
) -> GateResult:
    """Judge logits [N, C] by those of fp32.

    Args:
        expected, found: of fp32, and of the graph.
        truth: index of each image's class; of no meaning with thresholds.
        min_agreement: the bound.
        simulated, images: of the result.
        thresholds: [C], of several labels an image.

    Raises:
        DataError: no images.
        GateError: a logit is NaN or Inf.
    """
    if len(expected) == 0:
        raise DataError("the gate has no images. Expected some dozens at least.")
    if not np.isfinite(found).all():
        broken = int((~np.isfinite(found)).any(axis=1).sum())
        raise GateError(
            f"the logits hold NaN or Inf on {broken} of {len(found)} images: a value overflows. "
            "vptkit check --overflow says where; --island keeps a part in fp32."
        )
    best, best_fp32 = found.argmax(axis=1), expected.argmax(axis=1)
    agreement = float((best == best_fp32).mean())
    if thresholds is not None:
        truth = None
        given, given_fp32 = (decided(sigmoid(one), thresholds) for one in (found, expected))
        agreement = same_labels(given_fp32, given)
    low, high = wilson(round(agreement * len(found)), len(found))
    return GateResult(
        ok=agreement >= min_agreement,
        count=len(found),
        agreement=agreement,
        agreement_low=low,
        agreement_high=high,
        min_agreement=min_agreement,
        sqnr_db=sqnr_db(expected, found),
        top1=None if truth is None else float((best == truth).mean()),
        top1_fp32=None if truth is None else float((best_fp32 == truth).mean()),
        simulated=simulated,
        images=images,
        multilabel=thresholds is not None,
    )


def with_split(result: GateResult, evidence: Evidence) -> GateResult:
    """The result with the split of the images that judged, how they were read, and whether too kind."""
    return replace(
        result,
        split=evidence.gate_split,
        too_kind=evidence.too_kind is not None,
        too_kind_because=evidence.too_kind,
        decode=evidence.decode,
    )


def with_features(result: GateResult, distance: FeatureDistance, min_cosine: float) -> GateResult:
    """The result with what became of the features; they, too, decide whether it is ok."""
    judged = replace(result, features=distance, min_cosine=min_cosine)
    return replace(judged, ok=judged.ok and judged.features_ok)


def accuracy_text(result: GateResult) -> str | None:
    """As "accuracy 89.0 % → 87.0 % (87 of 100; 95 % interval 79.0 to 92.2 %)"; None without classes."""
    if result.top1 is None or result.top1_fp32 is None:
        return None
    after = share_text(round(result.top1 * result.count), result.count)
    return f"accuracy {percent(result.top1_fp32)} → {after}"


def require_gate(name: str, precision: str, result: GateResult) -> None:
    """Do nothing if the gate holds.

    Raises:
        GateError: it does not.
    """
    if result.ok:
        return
    if not result.features_ok and result.features is not None:
        raise GateError(
            f"{name}: {precision} changes the {result.features.text()}; on average at least "
            f"{result.min_cosine} wanted. vptkit bisect finds the parts to keep in fp32 (--island)."
        )
    noise = "" if result.sqnr_db is None else f", SQNR {result.sqnr_db:.1f} dB"
    accuracy = accuracy_text(result)
    because = result.too_kind_because
    raise GateError(
        f"{name}: {precision} agrees with fp32 on {result.agreement:.2%} of "
        f"{f'the labels of {result.count}' if result.multilabel else result.count} images "
        f"(95 %: {result.agreement_low:.2%} to {result.agreement_high:.2%})"
        f"{f' of {result.split}' if result.split else ''}, at least "
        f"{result.min_agreement:.1%} wanted{noise}{f'; {accuracy}' if accuracy else ''}"
        f"{f'; and these judge too kindly: {because}' if because else ''}. vptkit bisect finds the "
        "parts to keep in fp32 (--island); --min-agreement moves the bound."
    )
