"""The parts of a page: each is there where the run has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from tests.support.trained_runs import (  # noqa: E402
    BARE,
    EPOCH,
    LAMBDA_ROWS,
    LINE_ROWS,
    SHIFT,
    START,
)
from vptkit.tune.training.run_files import PICTURES  # noqa: E402
from vptkit.tune.training.train_state import CrossValidation  # noqa: E402
from vptkit.tune.training_page.run_sections import run_sections  # noqa: E402


def keys(run):
    return [section.key for section in run_sections(run)]


def test_the_probe_alone_has_its_grid_alone():
    (probe,) = run_sections(BARE)
    assert probe.key == "probe"
    told, floor = probe.notes
    assert "top-1 50.0 % and log-loss 0.6000 on val, with strength 1 of 2 that were" in told
    assert floor == "Nearest neighbours, the floor that needs no training: 40.0 % (k = 10)."
    assert keys(replace(BARE, history=[])) == []  # --head-init zero, and no epoch


def test_epochs_have_curves_and_a_table():
    learning, _ = run_sections(replace(BARE, history=[START, {"epoch": 1, **EPOCH}]))
    assert [picture.name for picture in learning.pictures] == ["loss", "score"]
    (table,) = learning.tables
    assert table.rows == [
        ["0", "-", "0.6000", "50.0 %", ""],
        ["1", "0.3000", "0.5000", "70.0 %", "taken"],
    ]
    cyclic = [{"epoch": 1, **EPOCH, "cycle": 1, "part": "head"}]
    (learning,) = run_sections(replace(BARE, history=cyclic))
    assert learning.tables[0].rows[0][1] == "1, head"
    assert learning.notes == []  # no probe


def test_lambda_line_and_shift():
    norms = {"shift": SHIFT, "rescale": {"what": "both", "lambda": 0.5, "curve": LAMBDA_ROWS}}
    line = {"alpha": 1.0, "curve": LINE_ROWS}
    _, factor, between, shift = run_sections(replace(BARE, norms=norms, line=line))
    assert [factor.key, between.key, shift.key] == ["lambda", "line", "shift"]
    assert [picture.name for picture in factor.pictures] == ["lambda", "id-ood"]
    assert "wins 4 images of val and loses 1" in factor.notes[1]
    assert [picture.name for picture in between.pictures] == ["line", "line-score"]
    assert "wins: 0.400. α = 0 has 0.500, ± 0.100 (standard" in between.notes[1]


def test_a_line_of_one_point_is_not_drawn():
    """The training ended at its start."""
    run = replace(BARE, line={"alpha": 0.0, "curve": LINE_ROWS[:1]})
    assert run_sections(run)[-1].pictures == []


@pytest.mark.parametrize("budget", [None, "10m", "60 epochs"])
def test_candidates(budget):
    row = {"epochs": 2, "best_epoch": 1, "val_loss": 0.5, "val_top1": 0.7, "numbers": 1000}
    tried = [
        {"method": "linear", **row, "seconds": 1.0, "losses": [[0, 0.6]]},
        {"method": "ln", **row, "seconds": 2.0, "losses": [[0, 0.6], [1, 0.5]]},
    ]
    auto = {"kept": "ln", "config": {"budget": budget}, "tried": tried}
    candidates = run_sections(replace(BARE, auto=auto))[-1]
    (table,) = candidates.tables
    assert [row[0] for row in table.rows] == ["linear", "ln (kept)"]
    assert (table.head[-1] == "seconds") == (budget == "10m")  # a killed run gives the same page
    assert str(budget or "without a bound") in candidates.notes[0]
    assert [picture.name for picture in candidates.pictures] == ["candidates"]
    for one in tried:  # an older vptkit's
        del one["losses"]
    assert run_sections(replace(BARE, auto=auto))[-1].pictures == []


def test_held_out_parts():
    records = [{"epoch": e, "images": 4, "val_top1": 0.5, "val_loss": 0.7} for e in (0, 1)]
    held = CrossValidation(2, 1, records, torch.zeros(0, 0), [records, records])
    section = next(s for s in run_sections(replace(BARE, held=held)) if s.key == "parts")
    assert section.tables[0].rows == [
        ["1", "4", "0.7000", "50.0 %"],
        ["2", "4", "0.7000", "50.0 %"],
    ]
    assert "parts" not in keys(replace(BARE, held=CrossValidation(0, 0, [], torch.zeros(0, 0))))


def test_whitening_with_and_without_its_burstiness():
    block = {"rank": 3, "condition": 1e4, "condition_is_bound": True, "row_norm": 1.0}
    old = replace(BARE, record={"whitening": [block, block]})
    assert [picture.name for picture in run_sections(old)[-1].pictures] == ["rank"]
    bursty = {**block, "kurtosis": [20.0, 0.5]}
    section = run_sections(replace(BARE, record={"whitening": [bursty, bursty]}))[-1]
    assert [picture.name for picture in section.pictures] == ["burstiness", "rank"]
    assert section.tables[0].rows[0] == ["1", "3", "≥ 1e+04", "20", "0.5"]
    shallow = run_sections(replace(BARE, record={"whitening": [bursty]}))[-1]
    assert shallow.pictures == []
    assert not shallow.tables[0].folded


def test_every_picture_is_known_to_who_removes_it():
    norms = {"shift": SHIFT, "rescale": {"what": "both", "lambda": 1.0, "curve": LAMBDA_ROWS}}
    run = replace(BARE, norms=norms, line={"alpha": 1.0, "curve": LINE_ROWS})
    drawn = {picture.name for section in run_sections(run) for picture in section.pictures}
    assert drawn <= set(PICTURES)
