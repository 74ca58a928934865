"""Predictions in a page: marked, with their error, and none where none can be made."""

from __future__ import annotations

import pytest

from vptkit.errors import VptkitError
from vptkit.report.board_predictions import chosen_boards, predictions

MACS = {"backbone": 10**9, "unfolded": 2 * 10**9, "graph": 10**9}


def test_a_row_a_board_with_bounds(make_bundle):
    found = predictions([make_bundle(macs=MACS)], chosen_boards(["orin-nano-8gb", "l4"]))
    assert found["head"] == ["board", "name", "tiny, fp32"]
    assert [row[0] for row in found["rows"]] == ["orin-nano-8gb", "l4"]
    assert " ms (" in found["rows"][0][2]
    (model,) = found["models"]
    assert model["precision"] == "fp32"
    assert any("FasterTransformer" in source for source in model["sources"])


def test_what_cannot_be_predicted_says_why(make_bundle):
    found = predictions(
        [make_bundle(macs=MACS, precision="fp8"), make_bundle("old", macs={"backbone": 1})],
        chosen_boards(["l4"]),
    )
    assert found["rows"] == []
    assert "0 boards are published" in found["missing"][0]
    assert found["missing"][1].startswith("old: its manifest")


def test_boards():
    keys = [one.key for one in chosen_boards([])]
    assert "orin-nano-8gb" in keys
    assert "x86-cpu" not in keys
    assert "nano" not in keys, "its Python is too old for vptkit"
    with pytest.raises(VptkitError, match="no device"):
        chosen_boards(["orin-nanno"])
    with pytest.raises(VptkitError, match="no peak is known of a processor"):
        chosen_boards(["x86-cpu"])


def test_a_board_without_the_type_has_none(make_bundle):
    found = predictions([make_bundle(macs=MACS, precision="bf16")], chosen_boards(["t4", "l4"]))
    assert found["rows"][0][2] == "-"
    assert found["rows"][1][2] != "-"
