"""What may be spent: read from text, and over at some time."""

from __future__ import annotations

import pytest

from vptkit.errors import VptkitError
from vptkit.tune.auto import budget as module
from vptkit.tune.auto.budget import Budget, budget_of


@pytest.mark.parametrize(
    ("text", "seconds", "epochs"),
    [
        (None, None, None),
        ("90s", 90, None),
        ("1.5 m", 90, None),
        (" 2h ", 7200, None),
        ("60 epochs", None, 60),
        ("1epoch", None, 1),
    ],
)
def test_times_and_epochs(text, seconds, epochs):
    budget = budget_of(text)
    assert (budget.seconds, budget.epochs) == (seconds, epochs)


@pytest.mark.parametrize("text", ["", "10", "m", "-3m", "0s", "0.0h", "10 min", "1e3s", "nan s"])
def test_anything_else_is_refused(text):
    with pytest.raises(VptkitError, match=r"budget is .*expected a time \(90s, 10m, 2h\)"):
        budget_of(text)


def test_epochs_are_counted():
    budget = budget_of("2 epochs")
    assert not budget.over
    budget.spend()
    assert not budget.over
    budget.spend()
    assert budget.over


def test_the_clock_runs(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    budget = Budget(seconds=60, begun=100.0)
    assert not budget.over
    now[0] = 160.0
    assert budget.over


def test_without_a_bound_it_is_never_over():
    budget = budget_of(None)
    for _ in range(1000):
        budget.spend()
    assert not budget.over
