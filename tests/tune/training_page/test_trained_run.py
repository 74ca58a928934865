"""Words that depend on the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from vptkit.tune.training.train_state import CrossValidation  # noqa: E402
from vptkit.tune.training_page.trained_run import TrainedRun  # noqa: E402


def test_who_judges_and_what_the_score_is():
    run = TrainedRun(name="n", method="ln", learned=1, record={}, images={}, history=[])
    assert (run.score, run.judge) == ("top-1", "val")
    held = CrossValidation(3, 1, [], torch.zeros(0, 0))
    several = replace(run, several=True, held=held)
    assert (several.score, several.judge) == ("mAP", "held-out images")
