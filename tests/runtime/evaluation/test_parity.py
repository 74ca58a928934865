from __future__ import annotations

import numpy as np
import pytest

from vptkit.errors import BundleError, DataError, GateError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.evaluation.parity import (
    check_golden,
    check_logits,
    default_tolerance,
    parity_verdict,
    require_parity,
)
from vptkit.runtime.session.baked_session import GraphSession
from vptkit.runtime.session.factory import open_session


def test_a_faithful_bundle_passes(make_bundle):
    session = open_session(make_bundle())
    parity = check_golden(session)
    assert parity.ok
    assert parity.max_rel_diff < 1e-6
    assert (parity.count, parity.top1_agreement, parity.tolerance) == (5, 1.0, 1e-4)
    require_parity(session, parity)


@pytest.mark.parametrize("feed", ["images", "pixels"])
def test_a_broken_twin_fails(make_bundle, feed):
    """One bias of the graph is off by 0.01, which changes no label."""
    session = open_session(make_bundle(shift=0.01, feed=feed))
    parity = check_golden(session)
    assert not parity.ok
    assert parity.top1_agreement == 1.0
    assert parity.max_abs_diff == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(
        GateError, match=r"differs from the golden answers.*allowed 1e-04"
    ) as caught:
        require_parity(session, parity)
    assert caught.value.exit_code == 3


def test_the_tolerance_is_relative_to_the_largest_logit(make_bundle):
    bundle = open_bundle(make_bundle(shift=0.01))
    _, logits = bundle.golden()
    relative = 0.01 / np.abs(logits).max()
    session = open_session(bundle.path)
    assert check_golden(session, tolerance=relative * 1.01).ok
    assert not check_golden(session, tolerance=relative * 0.99).ok


def test_the_worst_image_and_disagreeing_labels_are_found(make_bundle):
    bundle = open_bundle(make_bundle())
    images, logits = bundle.golden()
    wrong = logits.copy()
    wrong[3, (logits[3].argmax() + 1) % 3] += 99
    parity = check_logits(open_session(bundle.path), images, wrong)
    assert (parity.worst_image, parity.against, parity.ok) == (3, "reference", False)
    assert parity.top1_agreement == 0.8


def test_without_golden_answers_the_way_out_is_named(make_bundle):
    with pytest.raises(BundleError, match=r"no golden answers.*--reference"):
        check_golden(open_session(make_bundle(golden=False)))


def test_logits_that_are_not_finite_fail(make_bundle):
    class Overflowing:
        threads, versions = 1, {}

        def __call__(self, batch):
            return np.full((len(batch), 3), np.inf, np.float32)

    session = GraphSession(bundle=open_bundle(make_bundle()), backend="fake", graph=Overflowing())
    parity = check_golden(session)
    assert (parity.ok, parity.max_abs_diff, parity.max_rel_diff) == (False, None, None)
    with pytest.raises(GateError, match="NaN or Inf"):
        require_parity(session, parity)


def test_reference_logits_of_another_shape_are_refused(make_bundle):
    session = open_session(make_bundle())
    images, logits = session.bundle.golden()
    for wrong in (logits[:-1], logits[:, :-1], np.full_like(logits, np.nan)):
        with pytest.raises(DataError, match=r"expected finite \[5, 3\]"):
            check_logits(session, images, wrong)


def test_other_precisions_need_a_tolerance():
    with pytest.raises(VptkitError, match="'int4': pass --tolerance"):
        default_tolerance("int4")
    assert default_tolerance("fp32") == 1e-4


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_senseless_tolerance_is_refused(make_bundle, tolerance):
    with pytest.raises(VptkitError, match="tolerance is"):
        check_golden(open_session(make_bundle()), tolerance=tolerance)


# several labels an image --------------------------------------------------------------------------


def test_scores_are_compared_beside_the_logits(make_bundle):
    session = open_session(make_bundle(thresholds=(0.2, 0.5, 0.8)))
    parity = check_golden(session)
    assert (parity.ok, parity.top1_agreement) == (True, 1.0)
    assert parity.scores_max_diff < 1e-6
    assert ", same labels" in parity_verdict(parity, "cpu")
    assert "scores_ok" not in check_golden(open_session(make_bundle())).to_json()


def test_scores_of_other_logits_are_found_out(make_bundle, monkeypatch):
    """Logits may be right, and what is shown beside them not."""
    session = open_session(make_bundle(thresholds=(0.2, 0.5, 0.8)))
    whole = GraphSession.answers

    def doctored(self, *arguments):
        return {
            k: v * np.float32(1 - 1e-3 * (k == "scores"))
            for k, v in whole(self, *arguments).items()
        }

    monkeypatch.setattr(GraphSession, "answers", doctored)
    parity = check_golden(session)
    assert (parity.ok, parity.scores_ok) == (False, False)
    with pytest.raises(GateError, match="the scores are not those of the logits"):
        require_parity(session, parity)
