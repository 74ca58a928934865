"""What merging tokens costs: the fp32 graph with merging beside the one without, on real images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import GateError
from vptkit.formats.manifest_schema import FEATURES, LOGITS
from vptkit.scores.feature_distance import feature_distance

from .accuracy_gate import accuracy_text, compare, with_features, with_split
from .evidence import answers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from .accuracy_gate import GateResult
    from .evidence import Evidence

__all__ = ["MIN_MERGE_AGREEMENT", "judge_merging"]

# Smallest share of images whose label stays, and smallest mean cosine of features, where the adapter
# was not tuned with merging. Far below what precisions must hold: merging is a trade.
MIN_MERGE_AGREEMENT, _MIN_COSINE = 0.9, 0.9


def judge_merging(
    name: str,
    merged: Callable[[], onnx.ModelProto],
    plain: Callable[[], onnx.ModelProto],
    evidence: Evidence | None,
    *,
    min_agreement: float | None,
    tuned: bool,
    thresholds: NDArray[np.float32] | None = None,
) -> dict[str, Any] | None:
    """Compare both graphs on the gate's images.

    Args:
        name: of the adapter, for messages.
        merged: makes the graph that merges, fp32; called where there are images.
        plain: makes the graph that does not; neither is held while the other is run.
        evidence: images and a runner.
        min_agreement: bound on top-1 agreement; `MIN_MERGE_AGREEMENT` unless given.
        tuned: the adapter was tuned so. Then the graph without merging is not what it was tuned for,
            and agreement is told, but not asked for (unless a bound is given).
        thresholds: [C], of several labels an image.

    Returns:
        For the manifest; None without images. "top1_fp32" is the accuracy without merging.

    Raises:
        GateError: fewer labels stay than asked for.
    """
    if evidence is None or evidence.gate is None:
        return None
    with evidence.phase("merging gate", 2 * evidence.gate.count) as bar:
        expected = answers_of(evidence.run(plain()), evidence.gate, bar.update)
        found = answers_of(evidence.run(merged()), evidence.gate, bar.update)
    default = 0.0 if tuned else MIN_MERGE_AGREEMENT
    result = compare(
        expected[LOGITS],
        found[LOGITS],
        evidence.gate.truth,
        min_agreement=default if min_agreement is None else min_agreement,
        simulated=False,
        images=evidence.gate.digest,
        thresholds=thresholds,
    )
    result = with_split(result, evidence)
    if FEATURES in expected:
        distance = feature_distance(expected[FEATURES], found[FEATURES])
        result = with_features(result, distance, -1.0 if tuned else _MIN_COSINE)
    if not result.ok:
        raise GateError(_message(name, result))
    return result.to_json()


def _message(name: str, result: GateResult) -> str:
    mend = (
        "Merge fewer (--merge), tune with merging (vptkit tune --merge), or move the bound "
        "(--min-merge-agreement)."
    )
    if not result.features_ok and result.features is not None:
        return (
            f"{name}: merging tokens changes the {result.features.text()}; on average at least "
            f"{result.min_cosine} wanted. {mend}"
        )
    accuracy = accuracy_text(result)
    because = result.too_kind_because
    return (
        f"{name}: with merged tokens the label stays on {result.agreement:.2%} of {result.count} "
        f"images{f' of {result.split}' if result.split else ''} (95 %: {result.agreement_low:.2%} to "
        f"{result.agreement_high:.2%}), at least {result.min_agreement:.1%} wanted"
        f"{f'; {accuracy}' if accuracy else ''}"
        f"{f'; and these judge too kindly: {because}' if because else ''}. {mend}"
    )
