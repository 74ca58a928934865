"""Predicted latencies: the fit finds what made its data, and says how far it is off."""

from __future__ import annotations

import pytest

from vptkit.devices.boards.catalog import board
from vptkit.devices.boards.latency_model import fitted_model
from vptkit.devices.boards.published_latencies import Geometry, PublishedRun
from vptkit.errors import TargetError

SMALL = Geometry(width=384, depth=12, mlp=1536, tokens=197, patch=16)
LARGE = Geometry(width=1024, depth=24, mlp=4096, tokens=577, patch=16)


def floor(key, geometry, batch):
    return board(key).floor_ms(
        macs=geometry.macs * batch,
        weight_bytes=2 * geometry.weights,
        activation_bytes=0,
        precision="fp16",
    )


def runs_of(boards, efficiency=0.4, block_ms=0.05):
    return [
        PublishedRun(
            board=key,
            mode=None,
            precision="fp16",
            model="m",
            geometry=geometry,
            batch=batch,
            ms=floor(key, geometry, batch) / efficiency + geometry.depth * block_ms,
            source="s",
        )
        for key in boards
        for geometry in (SMALL, LARGE)
        for batch in (1, 16)
    ]


def test_the_fit_finds_what_made_the_data():
    model = fitted_model("fp16", runs_of(["t4", "l4", "orin-nano-8gb"]))
    assert model.efficiency == pytest.approx(0.4)
    assert model.block_ms == pytest.approx(0.05)
    assert model.ratios == pytest.approx([1] * 12)
    found = model.predict(
        board("h200"), macs=SMALL.macs, weight_bytes=2 * SMALL.weights, depth=12, batch=16
    )
    assert found.ms == pytest.approx(floor("h200", SMALL, 16) / 0.4 + 12 * 0.05)
    assert found.low == pytest.approx(found.ms)
    assert found.high == pytest.approx(found.ms)


def test_a_board_of_its_own_ways_widens_the_bounds():
    runs = runs_of(["t4", "l4"]) + runs_of(["a10"], efficiency=0.2, block_ms=0.1)
    model = fitted_model("fp16", runs)
    assert model.left_out["a10"] == pytest.approx([0.5] * 4)
    found = model.predict(board("l4"), macs=1e9, weight_bytes=1e7, depth=12)
    assert found.low < found.ms < found.high
    assert found.high >= 2 * found.ms * 0.999


def test_no_number_is_negative():
    runs = runs_of(["t4", "l4"], block_ms=0.0)
    crooked = [
        PublishedRun(
            **{n: getattr(run, n) for n in PublishedRun.__slots__} | {"ms": run.ms * run.batch}
        )
        for run in runs
    ]
    model = fitted_model("fp16", crooked)
    assert model.efficiency > 0
    assert model.block_ms >= 0


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp32"])
def test_what_was_published_is_fitted(precision):
    """The error that the page states; a change of the data shows here."""
    model = fitted_model(precision)
    assert 0.1 < model.efficiency < 1
    assert 0.1 < model.typical_error < 0.6
    assert model.ratios[0] < 1 < model.ratios[-1]


def test_of_too_few_boards_nothing_is_predicted():
    with pytest.raises(TargetError, match="0 boards are published, expected 2"):
        fitted_model("fp8")
    with pytest.raises(TargetError, match="1 boards"):
        fitted_model("fp16", runs_of(["t4"]))
