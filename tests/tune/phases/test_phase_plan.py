"""Phases: what learns when, and when another cycle is not worth its time."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.tune.config import config_from_mapping  # noqa: E402
from vptkit.tune.phases.phase_plan import Phase, epochs_of, phases, stalled  # noqa: E402
from vptkit.tune.training.train_state import TrainState  # noqa: E402


def config_of(**values):
    return config_from_mapping({"backbone": "vit", "method": "ln", **values})


@pytest.mark.parametrize("method", ["bpt", "ln", "ln+bpt"])
def test_at_once(method):
    assert phases(config_of(method=method, epochs=7)) == (Phase("all", range(7), 0),)


def test_the_probe_has_no_epochs():
    assert phases(config_of(method="linear")) == ()
    assert epochs_of(config_of(method="linear")) == 0
    assert epochs_of(config_of(cycles=2, head_epochs=3, ln_epochs=2)) == 10


def test_in_turns():
    config = config_of(cycles=2, head_epochs=3, ln_epochs=2)
    assert phases(config) == (
        Phase("head", range(3), 1),
        Phase("body", range(3, 5), 1),
        Phase("head", range(5, 8), 2),
        Phase("body", range(8, 10), 2),
    )


@pytest.mark.parametrize(
    ("cycle", "part", "epoch", "best", "expected"),
    [
        (1, "head", 0, 0, False),  # nothing was tried yet
        (2, "head", 5, 5, False),
        (2, "head", 5, 1, False),  # in the cycle before
        (3, "head", 10, 5, True),  # the last better epoch is of the cycle before that one
        (3, "head", 10, 6, False),
        (3, "head", 11, 5, False),  # a resumed run in the middle of a phase goes on
        (3, "body", 13, 5, False),
    ],
)
def test_stalled(cycle, part, epoch, best, expected):
    config = config_of(cycles=3, head_epochs=3, ln_epochs=2)
    phase = next(p for p in phases(config) if (p.cycle, p.part) == (cycle, part))
    state = TrainState({}, epoch=epoch, best_epoch=best)
    assert stalled(phase, state, config) is expected
