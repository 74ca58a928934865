"""Who goes on, how far, and what the budget ends."""

from __future__ import annotations

import pytest

from vptkit.tune.auto.budget import Budget
from vptkit.tune.auto.halving import best_by_halving, best_of_all


def tried(losses: dict[str, list[float]], epochs: int, budget: Budget | None = None):
    """(the best, [(name, up to which epoch)]) of candidates with these losses after each call."""
    calls, budget = [], budget or Budget()

    def train(name: str, until: int) -> float:
        for _ in range(until - max([e for n, e in calls if n == name], default=0)):
            budget.spend()
        calls.append((name, until))
        latest[name] = losses[name][min(sum(n == name for n, _ in calls), len(losses[name])) - 1]
        return latest[name]

    latest: dict[str, float] = {}
    best = best_by_halving(list(losses), epochs, budget, train, lambda names: lowest(names, latest))
    return best, calls


def lowest(names, losses):
    return min(names, key=losses.__getitem__)


def test_half_is_dropped_at_each_rung():
    losses = {"a": [0.5], "b": [0.4, 0.35], "c": [0.6], "d": [0.3, 0.38]}
    best, calls = tried(losses, 20)
    assert best == "b"  # ahead at the second rung
    assert calls == [("a", 5), ("b", 5), ("c", 5), ("d", 5), ("d", 10), ("b", 10), ("b", 20)]


@pytest.mark.parametrize(("names", "runs"), [("a", 1), ("ab", 1.5), ("abc", 1.75), ("abcd", 2)])
def test_what_it_costs(names, runs):
    budget = Budget()
    tried({name: [1.0] for name in names}, 20, budget)
    assert budget.spent == runs * 20


def test_the_last_choice_is_the_callers():
    calls, budget = [], Budget()

    def train(name: str, until: int) -> float:
        calls.append((name, until))
        return {"a": 0.9, "b": 0.1, "c": 0.2}[name]

    assert best_by_halving("abc", 8, budget, train, max) == "c"
    assert calls == [("a", 2), ("b", 2), ("c", 2), ("b", 4), ("c", 4), ("c", 8)]


@pytest.mark.parametrize(
    ("epochs", "expected"), [(5, [("a", 5)]), (15, [("a", 5), ("b", 5), ("c", 5)])]
)
def test_nothing_begins_behind_the_budget(epochs, expected):
    best, calls = tried({"a": [0.5], "b": [0.2], "c": [0.3]}, 20, Budget(epochs=epochs))
    assert calls == expected
    assert best == ("a" if epochs == 5 else "b")


def test_without_any_budget_nothing_is_trained():
    assert tried({"a": [0.5], "b": [0.2]}, 20, Budget(epochs=0)) == ("a", [])


def test_a_single_candidate_is_trained_at_once():
    assert tried({"a": [0.5]}, 3) == ("a", [("a", 3)])


def test_a_run_of_one_epoch():
    best, calls = tried({"a": [0.5], "b": [0.2]}, 1)
    assert best == "b"
    assert calls[-1] == ("b", 1)


def test_all_are_trained_to_their_end_where_cross_validation_chooses():
    losses, calls = {"a": 0.5, "b": 0.2, "c": 0.3}, []

    def train(name: str, until: int) -> float:
        calls.append((name, until))
        budget.spend()
        return losses[name]

    budget = Budget()

    def choose(names):
        return lowest(names, losses)

    assert best_of_all(list(losses), 7, budget, train, choose) == "b"
    assert calls == [("a", 7), ("b", 7), ("c", 7)]
    calls.clear()
    budget = Budget(epochs=1)
    assert best_of_all(list(losses), 7, budget, train, choose) == "a"
    assert calls == [("a", 7)]
    assert best_of_all(list(losses), 7, Budget(epochs=0), train, choose) == "a"
