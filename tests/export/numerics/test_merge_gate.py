"""What merging costs, on images: two graphs side by side."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.conftest import Pictures
from vptkit.errors import GateError
from vptkit.export.numerics.evidence import Evidence
from vptkit.export.numerics.merge_gate import MIN_MERGE_AGREEMENT, judge_merging

IMAGES = np.zeros((10, 4, 4, 3), np.uint8)


def logits_with(changed: int) -> np.ndarray:
    """Ten images of class 0, but for so many."""
    logits = np.tile(np.asarray([2.0, 1.0]), (10, 1))
    logits[:changed] = [1.0, 2.0]
    return logits


def judged(changed: int, *, features: float | None = None, **options):
    """Graphs are names here; what runs one knows its logits."""
    rows = {"plain": logits_with(0), "merged": logits_with(changed)}

    def run(graph: str):
        position = iter(range(0, 10, 4))

        def answer(images):
            at = next(position)
            found = {"logits": rows[graph][at : at + len(images)]}
            if features is not None:
                angle = features if graph == "merged" else 0.0
                found["features"] = np.tile([np.cos(angle), np.sin(angle)], (len(images), 1))
            return found

        return answer

    pictures = Pictures(IMAGES, truth=np.zeros(10, int))
    evidence = Evidence(run=run, gate=pictures, gate_split="val")
    chosen = {"min_agreement": None, "tuned": False} | options
    return judge_merging("a", lambda: "merged", lambda: "plain", evidence, **chosen)


def test_agreement_and_accuracy_with_and_without():
    gate = judged(1)
    assert (gate["agreement"], gate["top1_fp32"], gate["top1"]) == (0.9, 1.0, 0.9)
    assert (gate["min_agreement"], gate["split"]) == (MIN_MERGE_AGREEMENT, "val")
    assert gate["sqnr_db"] == pytest.approx(10 * np.log10(50 / 2))


def test_the_bound():
    with pytest.raises(GateError, match=r"a: with merged tokens the label stays on 80\.00% of 10"):
        judged(2)
    assert judged(2, min_agreement=0.8)["ok"]
    assert judged(10, tuned=True)["ok"]
    with pytest.raises(GateError, match=r"100\.0% wanted"):
        judged(1, tuned=True, min_agreement=1.0)


def test_features():
    assert judged(0, features=0.1)["features"]["cosine"] == pytest.approx(np.cos(0.1))
    with pytest.raises(GateError, match=r"changes the features.*--merge"):
        judged(0, features=1.0)
    assert judged(0, features=1.0, tuned=True)["ok"]


def test_without_images_nothing_is_said_and_no_second_graph_written():
    evidence = Evidence(run=lambda _: None)
    for known in (None, evidence):
        told = judge_merging(
            "a", lambda: 1 / 0, lambda: 1 / 0, known, min_agreement=None, tuned=False
        )
        assert told is None
