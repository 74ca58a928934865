"""What was chosen, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from vptkit.tune.training.train_state import CrossValidation  # noqa: E402
from vptkit.tune.training_page.chosen_facts import (  # noqa: E402
    chosen_facts,
    headline,
    score_rows,
)
from vptkit.tune.training_page.trained_run import TrainedRun  # noqa: E402

RECORD = {
    "config": {"backbone": "vit"},
    "labels": ["a", "b"],
    "val_top1": 0.9,
    "test_top1": 0.8,
    "ood_top1": None,
    "best_epoch": 3,
    "soup": [3, 1],
}
IMAGES = {"train": 30, "val": 20, "test": 50}
RUN = TrainedRun(
    name="n", method="ln", learned=1234, record=RECORD, images=IMAGES, history=[], judges=20
)


def test_accuracies_have_intervals():
    val, test = score_rows(RUN)
    assert val[2].startswith("90.0 % (18 of 20; 95 % interval 69.9 to ")
    assert test[:2] == ["test", "read once, at the end (ID)"]
    assert test[2].startswith("80.0 % (40 of 50;")
    assert headline(RUN) == "val 90.0 %, test 80.0 %"


def test_what_was_taken_and_by_whom():
    facts = dict(chosen_facts(RUN))
    assert facts["taken"] == "the average of epochs 1, 3"
    assert facts["chosen by"] == "val, 20 images"
    assert facts["images"] == "train 30, val 20, test 50"
    line = replace(RUN, line={"alpha": 0.4}, record={**RECORD, "soup": None, "best_epoch": 0})
    facts = dict(chosen_facts(line))
    assert facts["between start and end"] == "α = 0.4"
    assert facts["taken"] == "the start: the linear probe"


@pytest.mark.parametrize(("folds", "told"), [(5, "5 parts of train"), (0, "nothing: one image")])
def test_cross_validation(folds, told):
    held = CrossValidation(folds, 1, [], torch.zeros(0, 0))
    judges = 30 if folds else 0
    record = {**RECORD, "val_top1": 0.9 if folds else None, "test_top1": None}
    run = replace(RUN, held=held, judges=judges, record=record)
    assert told in dict(chosen_facts(run))["chosen by"]
    assert score_rows(run)[:1] == (
        [["held out of train", "chose, in turns: cross-validation", score_rows(run)[0][2]]]
        if folds
        else []
    )
    assert headline(run) == (
        "held out of train 90.0 %" if folds else "no image was left to judge by"
    )


def test_several_labels():
    part = {"map": 0.5, "micro_f1": 0.25, "macro_f1": 0.125, "images": 7}
    record = {**RECORD, "multilabel": {"val": part, "test": {**part, "map": None}, "ood": None}}
    val, test = score_rows(replace(RUN, several=True, record=record))
    assert val[2] == "mAP 50.0 %, micro F1 25.0 %, macro F1 12.5 % (7 images)"
    assert test[2].startswith("mAP not known")
    run = replace(RUN, several=True, record=record)
    assert headline(run) == "val mAP 50.0 %, test mAP not known"
    assert dict(chosen_facts(run))["labels"] == "2"
