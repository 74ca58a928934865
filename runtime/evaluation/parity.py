"""Parity: does a session answer, logits and features, as the reference did?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.errors import BundleError, DataError, GateError, VptkitError
from vptkit.formats.manifest_schema import LOGITS, SCORES
from vptkit.runtime.backends.selection import computed_precisions
from vptkit.scores.feature_distance import FeatureDistance, feature_distance
from vptkit.scores.label_sets import decided, same_labels
from vptkit.scores.multilabel import sigmoid
from vptkit.scores.score_interval import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.runtime.session.session_protocol import Session

__all__ = [
    "Parity",
    "check_features",
    "check_golden",
    "check_logits",
    "default_tolerance",
    "parity_verdict",
    "require_parity",
    "with_features",
]

# Largest difference over largest logit. Summation order alone costs fp32 about 1e-6 in ViT-B.
# The lower types: wide bounds that find what is broken (1e-3 was seen in fp16, 1e-2 in bf16, 0.06
# to 0.13 in int8, on two real ViTs); whether labels hold is the gate's question.
_TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1, "int8": 0.3, "fp8": 0.4}
# Of features times so much: hundreds of numbers an image have larger extremes than its logits, which
# average over them. 0.36 was seen in int8, where the mean cosine was 0.98 (ViT-Ti).
_OF_FEATURES = {"int8": 2.0, "fp8": 2.0}
# Scores follow from the logits beside them at every precision; this much is a GPU's exp.
_SCORES = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far a session's logits are from the expected ones.

    Attributes:
        ok: max_rel_diff is at most the tolerance.
        against: "golden" (the bundle's own) or "reference" (computed afresh).
        max_abs_diff: largest absolute difference; None if a logit is NaN or Inf.
        max_rel_diff: that over the largest absolute expected logit.
        top1_agreement: share of images with the same best label. With several labels an image: of
            those that are given, how much is the same (`vptkit.scores.label_sets.same_labels`).
        count: images.
        worst_image: index of the image with the largest difference.
        tolerance: the bound on max_rel_diff.
        adapter: the adapter that was asked; of several, the one that is furthest off.
        features: how far they are from the expected ones, which `ok` includes; None where the
            graph gives none, or there are none to compare with. Of a graph that gives features
            alone, the figures above are theirs, and `top1_agreement` is None.
        scores_max_diff: of graphs with scores: their largest difference from those of the expected
            logits. `ok` includes that they are those of the graph's own logits, to 1e-5.
        scores_ok: whether they are.
    """

    ok: bool
    against: Literal["golden", "reference"]
    max_abs_diff: float | None
    max_rel_diff: float | None
    top1_agreement: float | None
    count: int
    worst_image: int
    tolerance: float
    adapter: str | None = None
    features: FeatureDistance | None = None
    scores_max_diff: float | None = None
    scores_ok: bool = True

    def to_json(self) -> dict[str, Any]:
        """As `vptkit check --json` prints it, without the bundle; of scores where there are any."""
        document = asdict(self)
        if self.scores_max_diff is None:
            del document["scores_max_diff"], document["scores_ok"]
        return document


def check_golden(
    session: Session, *, adapter: str | None = None, tolerance: float | None = None
) -> Parity:
    """Compare a session with the golden answers in its bundle.

    Args:
        session: an open bundle.
        adapter: one of a bank's; all that carry golden answers unless named.
        tolerance: bound on max_rel_diff; that of the bundle's precision unless given.

    Raises:
        BundleError: the bundle carries no golden answers, or gives features alone and carries no
            golden features.
    """
    if LOGITS not in session.bundle.outputs:
        return _check_golden_features(session, tolerance)
    names = session.bundle.adapter_names if adapter is None else (adapter,)
    found = [(name, session.bundle.golden(name)) for name in names]
    checked = [
        check_logits(session, *golden, adapter=name, against="golden", tolerance=tolerance)
        for name, golden in found
        if golden is not None and len(golden[0]) > 0
    ]
    if not checked:
        raise BundleError(
            f"{session.bundle.path}: no golden answers to check against: the adapter carried none. "
            "Pass --reference, or tune again with this version and export."
        )
    if len(checked) > 1:
        return _worst(checked)
    features = session.bundle.golden_features()
    golden = found[0][1]
    if features is None or golden is None:
        return checked[0]
    return with_features(checked[0], session, golden[0], features)


def _check_golden_features(session: Session, tolerance: float | None) -> Parity:
    golden, features = session.bundle.golden(), session.bundle.golden_features()
    if golden is None or features is None or len(features) == 0:
        raise BundleError(
            f"{session.bundle.path}: gives features alone, and carries no golden features: the "
            "adapter carried no golden answers, or it was exported with --no-verify. Pass "
            "--reference, or export it again."
        )
    return check_features(session, golden[0], features, against="golden", tolerance=tolerance)


def check_features(
    session: Session,
    images: NDArray[np.uint8],
    expected: NDArray[np.float32],
    *,
    against: Literal["golden", "reference"] = "reference",
    tolerance: float | None = None,
) -> Parity:
    """Compare the features of a session with given ones; arguments are those of `check_logits`.

    Raises:
        BundleError: the graph gives no features.
        DataError: images or expected features have the wrong shape, or are not finite.
    """
    tolerance = _bound(session, tolerance) * _OF_FEATURES.get(session.bundle.precision, 1.0)
    found = session.features(images)
    distance = _distance(found, expected, against)
    with np.errstate(invalid="ignore"):
        worst = int(np.abs(found - expected).max(axis=1).argmax())
    relative = distance.max_rel_diff
    return Parity(
        ok=relative is not None and relative <= tolerance,
        against=against,
        max_abs_diff=distance.max_abs_diff,
        max_rel_diff=relative,
        top1_agreement=None,
        count=distance.count,
        worst_image=worst,
        tolerance=tolerance,
        adapter=session.bundle.adapter_names[0],
        features=distance,
    )


def with_features(
    parity: Parity,
    session: Session,
    images: NDArray[np.uint8],
    expected: NDArray[np.float32],
) -> Parity:
    """The parity of logits, and that of the features of the same images.

    Args:
        parity: of the logits, whose tolerance counts.
        session, images, expected: as of `check_features`.

    Raises:
        BundleError, DataError: see `check_features`.
    """
    tolerance, against = parity.tolerance, parity.against
    checked = check_features(session, images, expected, against=against, tolerance=tolerance)
    return replace(parity, ok=parity.ok and checked.ok, features=checked.features)


def _distance(
    found: NDArray[np.float32], expected: NDArray[np.float32], against: str
) -> FeatureDistance:
    if expected.shape != found.shape or len(found) == 0 or not np.isfinite(expected).all():
        raise DataError(
            f"{against} features came as {list(expected.shape)}, expected finite "
            f"{list(found.shape)}"
        )
    return feature_distance(expected, found)


def _bound(session: Session, tolerance: float | None) -> float:
    if tolerance is None:
        precisions = computed_precisions(session.backend, session.bundle.precision)
        tolerance = max(map(default_tolerance, precisions))
    if not 0 <= tolerance < np.inf:
        raise VptkitError(f"tolerance is {tolerance}, expected a number from 0 up")
    return float(tolerance)


def check_logits(
    session: Session,
    images: NDArray[np.uint8],
    expected: NDArray[np.float32],
    *,
    adapter: str | None = None,
    against: Literal["golden", "reference"] = "reference",
    tolerance: float | None = None,
) -> Parity:
    """Compare a session with given answers.

    Args:
        session: an open bundle.
        images: uint8 [B, H, W, 3].
        expected: float32 [B, C].
        adapter: which one of a bank is asked.
        against: where they come from.
        tolerance: bound on max_rel_diff; that of the bundle's precision unless given.

    Raises:
        DataError: images or expected logits have the wrong shape, or are not finite.
    """
    tolerance = _bound(session, tolerance)
    session.bundle.require_output(LOGITS)
    answers = session.answers(images, adapter)
    logits = answers[LOGITS].astype(np.float64)
    if expected.shape != logits.shape or len(logits) == 0 or not np.isfinite(expected).all():
        raise DataError(
            f"{against} logits came as {list(expected.shape)}, expected finite {list(logits.shape)}"
        )
    finite = bool(np.isfinite(logits).all())
    with np.errstate(invalid="ignore"):
        difference = np.abs(logits - expected).max(axis=1)  # [B]
    largest = float(difference.max())
    # Only logits that are all zero have no scale; then any difference is infinitely large.
    scale = float(np.abs(expected).max())
    relative = largest / scale if scale else (0.0 if largest == 0 else np.finfo(np.float64).max)
    parity = Parity(
        ok=finite and relative <= tolerance,
        against=against,
        max_abs_diff=largest if finite else None,
        max_rel_diff=relative if finite else None,
        top1_agreement=float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        count=len(logits),
        worst_image=int(difference.argmax()),
        tolerance=tolerance,
        adapter=adapter or session.bundle.adapter_names[0],
    )
    thresholds = session.bundle.thresholds_of(parity.adapter)
    if thresholds is None:
        return parity
    return _with_scores(parity, answers, expected, thresholds)


def _with_scores(
    parity: Parity,
    answers: Mapping[str, NDArray[np.float32]],
    expected: NDArray[np.float32],
    thresholds: NDArray[np.float32],
) -> Parity:
    """The parity of logits, and that of the scores and of the labels that they give."""
    found, wanted = answers[SCORES].astype(np.float64), sigmoid(expected)
    own = np.abs(found - sigmoid(answers[LOGITS])).max()  # NaN, too, is no small difference
    right = bool(own <= _SCORES)
    finite = bool(np.isfinite(found).all())
    return replace(
        parity,
        ok=parity.ok and right,
        top1_agreement=same_labels(decided(wanted, thresholds), decided(found, thresholds)),
        scores_max_diff=float(np.abs(found - wanted).max()) if finite else 1.0,
        scores_ok=right,
    )


def _worst(checked: list[Parity]) -> Parity:
    """Several adapters as one: the adapter that is furthest off, over all of their images."""
    ranked = sorted(checked, key=lambda p: np.inf if p.max_rel_diff is None else p.max_rel_diff)
    worst, count = ranked[-1], sum(p.count for p in checked)
    return replace(
        worst,
        ok=all(p.ok for p in checked),
        scores_ok=all(p.scores_ok for p in checked),
        top1_agreement=sum((p.top1_agreement or 0.0) * p.count for p in checked) / count,
        count=count,
    )


def parity_verdict(parity: Parity, backend: str) -> str:
    """As "OK: 8 golden images, largest difference 4e-06 (allowed 1e-04), same top-1".

    Args:
        parity: that holds. The difference is over the largest logit.
        backend: what computed; it is said unless it is "cpu".
    """
    kind = "golden images" if parity.against == "golden" else "images against the reference"
    difference = "none" if not parity.max_rel_diff else f"{parity.max_rel_diff:.0e}"
    same = parity.top1_agreement
    agreement = ""
    if same is not None:
        agreement = ", same top-1" if same == 1 else f", top-1 the same on {percent(same)}"
        if parity.scores_max_diff is not None:
            agreement = f", scores to {parity.scores_max_diff:.0e}"
            agreement += (
                ", same labels" if same == 1 else f", {percent(same)} of the labels the same"
            )
    features = "" if parity.features is None else f"; {parity.features.text()}"
    return (
        f"OK: {parity.count} {kind}, largest difference {difference} "
        f"(allowed {parity.tolerance:.0e}){agreement}"
        + ("" if backend == "cpu" else f", {backend}")
        + features
    )


def require_parity(session: Session, parity: Parity) -> None:
    """Do nothing if the parity holds.

    Raises:
        GateError: it does not.
    """
    if parity.ok:
        return
    what, largest = ("features", "number") if parity.top1_agreement is None else ("logits", "logit")
    if parity.max_rel_diff is None:
        found = f"the {what} hold NaN or Inf"
    else:
        found = (
            f"largest difference over largest {largest} is {parity.max_rel_diff:.2e}, allowed "
            f"{parity.tolerance:.0e}"
        )
        if parity.scores_max_diff is not None:
            found += f"; {parity.top1_agreement:.1%} of the labels agree"
        elif parity.top1_agreement is not None:
            found += f"; top-1 agrees on {parity.top1_agreement:.1%}"
    if not parity.scores_ok:
        found += "; the scores are not those of the logits"
    if parity.features is not None:
        off = parity.features.max_rel_diff
        found += f"; {parity.features.text()}"
        found += "" if off is None else f", largest difference {off:.2e} of the largest number"
    raise GateError(
        f"{session.bundle.path}: differs from the {parity.against} answers on "
        f"{session.backend}: {found} ({parity.count} images, worst is number {parity.worst_image} of adapter {parity.adapter!r})"
    )


def default_tolerance(precision: str) -> float:
    """The bound that a precision must hold.

    Raises:
        VptkitError: none is fixed for it.
    """
    if precision not in _TOLERANCES:
        raise VptkitError(f"no default tolerance for precision {precision!r}: pass --tolerance")
    return _TOLERANCES[precision]
