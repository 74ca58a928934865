"""A board: how fast a network can be on it at best, and what its document says."""

from __future__ import annotations

import re

import pytest

from vptkit.devices.boards.board import PRECISIONS, Board, Mode
from vptkit.devices.boards.catalog import board, boards
from vptkit.devices.boards.datasheet import Figure
from vptkit.errors import TargetError, VptkitError

VIT_B = {"macs": 17.6e9, "weight_bytes": 172e6, "activation_bytes": 20e6}


def test_the_floor_is_the_larger_of_compute_and_memory():
    nano = board("orin-nano-8gb")
    assert nano.floor_ms(**VIT_B, precision="fp16") == pytest.approx(2 * 17.6 / 16.7)
    assert nano.floor_ms(**VIT_B, precision="bf16") == nano.floor_ms(**VIT_B, precision="fp16")
    assert nano.floor_ms(**VIT_B, precision="int8") == pytest.approx(192 / 102.4)
    assert nano.floor_ms(**{**VIT_B, "macs": 1.0}, precision="fp16") == pytest.approx(192 / 102.4)
    h200 = board("h200")
    assert h200.floor_ms(**VIT_B, precision="fp16") == pytest.approx(192 / 4800)


def test_a_power_mode_scales_both():
    agx = board("agx-orin-64gb")
    full = agx.floor_ms(macs=1e12, weight_bytes=0, activation_bytes=0, precision="fp16")
    slow = agx.floor_ms(
        macs=1e12, weight_bytes=0, activation_bytes=0, precision="fp16", mode="MODE_15W"
    )
    assert slow / full == pytest.approx((16 * 1300) / (6 * 408))
    bytes_only = {"macs": 0, "weight_bytes": 1e9, "activation_bytes": 0, "precision": "fp16"}
    ratio = agx.floor_ms(**bytes_only, mode="MODE_15W") / agx.floor_ms(**bytes_only)
    assert ratio == pytest.approx(3199 / 2133)
    assert agx.floor_ms(**bytes_only, mode="MAXN") == agx.floor_ms(**bytes_only)


def test_of_two_modes_of_one_name_the_floor_takes_the_faster():
    nano = board("orin-nano-8gb")  # 15W is 625 MHz in one configuration, 612 in the other
    slow = nano.floor_ms(**VIT_B, precision="fp16", mode="15W")
    assert slow == pytest.approx(nano.floor_ms(**VIT_B, precision="fp16") * 1020 / 625)


@pytest.mark.parametrize(
    ("key", "precision", "mode", "error", "words"),
    [
        ("orin-nano-8gb", "fp8", None, TargetError, "no fp8.*expected fp32, fp16, bf16, int8"),
        ("t4", "bf16", None, TargetError, "t4: no bf16"),
        ("x86-cpu", "int8", None, TargetError, "no peak is known for int8"),
        ("orin-nano-8gb", "fp16", "MODE_30W", VptkitError, "'MODE_30W', expected 15W, 7W, 25W"),
        ("h200", "fp16", "MAXN", VptkitError, "none: no modes are known"),
    ],
)
def test_no_floor(key, precision, mode, error, words):
    with pytest.raises(error, match=words):
        board(key).floor_ms(**VIT_B, precision=precision, mode=mode)


def made(**figures: float) -> Board:
    """A board with one power mode that halves the clock of the GPU and keeps the memory's."""
    values = {
        "fp16_tflops": 1.0,
        "bandwidth_gbs": 100.0,
        "sms": 8,
        "clock_mhz": 1000,
        "emc_mhz": 2000,
        **figures,
    }
    half = Mode(
        configuration="", id=0, name="half", default=True, sms=8, gpu_mhz=500, emc_mhz=2000,
        source="x",
    )  # fmt: skip
    return Board(
        key="made", name="Made", kind="jetson", soc=None, integrated=True, precisions=("fp16",),
        parts=(), gpus=(), arch=None, match_source="x", cc=None, modes=(half,), notes=(),
        figures={name: Figure(value, "x") for name, value in values.items()},
    )  # fmt: skip


def test_the_floor_of_a_board_made_here():
    """10⁹ multiply-accumulates are 2 ms at 1 TFLOPS; 10⁸ bytes are 1 ms at 100 GB/s."""

    def floor(macs, size, mode=None):
        return made().floor_ms(
            macs=macs,
            weight_bytes=size / 4,
            activation_bytes=3 * size / 4,
            precision="fp16",
            mode=mode,
        )

    assert floor(1e9, 1e8) == pytest.approx(2.0)
    assert floor(1e8, 1e8) == pytest.approx(1.0)
    assert floor(1e9, 1e8, "half") == pytest.approx(4.0)  # the clock of the GPU
    assert floor(1e8, 1e8, "half") == pytest.approx(1.0)  # not that of the memory


def test_a_precision_is_bounded_by_a_figure_that_is_there():
    for entry in boards().values():
        peaks = {entry.value(PRECISIONS[precision]) for precision in entry.precisions}
        assert entry.kind == "cpu" or None not in peaks, entry.key


def test_every_source_that_a_document_names_is_spelled_out():
    """As `vptkit devices show --json` prints it: no name without its text, no text without use."""
    for entry in boards().values():
        document = entry.to_json()
        sources = document.pop("sources")
        text = repr(document)
        assert all(re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) for name in sources)
        assert document["match"]["source"] in sources or " " in document["match"]["source"]


def test_jetpacks_are_of_jetsons():
    assert board("h200").jetpacks == ()
    assert board("h200").runs_vptkit
    assert all(entry.jetpacks for entry in boards().values() if entry.kind == "jetson")
