"""What folds saved, from the geometry: checked against a count by hand."""

from __future__ import annotations

import pytest

from vptkit.export.analysis.fold_savings import count_text, fold_rows
from vptkit.formats.bundle import open_bundle

DEEP, LAST = "deep prompts → constant key/value prefixes", "last block: one query (absorbed)"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (13_600_000, "13.6 M"), (2e9, "2 G"), (1500, "1.5 k")],
)
def test_counts(count, text):
    assert count_text(count) == text


def test_deep_prompts_save_their_queries_and_rows(make_bundle, tiny_spec):
    """T = 7 tokens of width 8, MLP 16, 2 blocks; 3 prompts are rows and queries no more."""
    t, m, d, h = tiny_spec.tokens, 3, 8, 16
    block = lambda q, k, rows: rows * d * 3 * d + 2 * q * k * d + rows * d * (d + 2 * h)  # noqa: E731
    unfolded, folded = 2 * block(t + m, t + m, t + m), 2 * block(t, t + m, t)
    entry = {"insert": "deep", "prompt_length": m, "pool": "token", "norm": "before_pool"}
    path = make_bundle(
        adapters=[{"name": "a", "labels": ["x", "y", "z"], **entry}],
        macs={"backbone": 1, "unfolded": unfolded, "graph": folded - 500},
        folds=[DEEP, LAST, "LayerNorm affine → next linear", "something new"],
    )
    rows = {row["fold"]: row["saved"] for row in fold_rows(open_bundle(path))}
    assert rows[DEEP] == f"{count_text(unfolded - folded)} multiply-accumulates"
    assert rows[LAST] == "500 multiply-accumulates"
    assert rows["LayerNorm affine → next linear"] == f"{2 * 2 * 2 * t * d} elementwise operations"
    assert rows["something new"] == ""


def test_a_bundle_that_does_not_say(make_bundle):
    path = make_bundle(folds=[DEEP, LAST], macs={"backbone": 3})
    assert [row["saved"] for row in fold_rows(open_bundle(path))] == ["", ""]
