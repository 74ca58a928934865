"""Counts of `--reject` as shares with intervals, in JSON and in words."""

from __future__ import annotations

import json
from pathlib import Path

from vptkit.runtime.evaluation.rejection_rates import RejectionRates
from vptkit.scores.score_interval import wilson


def test_of_labelled_images_alone():
    rates = RejectionRates(rate=0.05, count=200, rejected=8)
    document = json.loads(json.dumps(rates.to_json()))
    assert (document["false_reject"], document["ood"], document["false_accept"]) == (
        0.04,
        None,
        None,
    )
    assert document["false_reject_interval"] == list(wilson(8, 200))
    assert rates.text().startswith("--reject 0.05 rejects 4.0 % (8 of 200; ")


def test_with_images_of_other_things():
    ood = Path("others")
    rates = RejectionRates(
        rate=0.1,
        count=10,
        rejected=1,
        ood=ood,
        ood_count=4,
        ood_rejected=3,
        ood_skipped=(ood / "a",),
    )
    document = json.loads(json.dumps(rates.to_json()))
    assert (document["ood"], document["ood_skipped"]) == ("others", ["others/a"])
    assert (document["false_accept"], document["ood_rejected"]) == (0.25, 3)
    assert rates.text().splitlines()[1].startswith("and accepts 25.0 % (1 of 4; ")
    assert len(rates.notes) == 1
