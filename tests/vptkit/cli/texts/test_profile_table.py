from __future__ import annotations

import pytest

from vptkit.cli.texts.profile_table import profile_table


def row(**changes):
    ms = {"p50": 2.0, "p90": 2.5, "p99": 3.0, "mean": 2.0}
    return {
        "name": "a",
        "batch": 1,
        "ms": ms,
        "times": {"enqueue": None, "gpu": None, "host": None, "end_to_end": ms},
        "images_per_s": 500.0,
        "streams": None,
        "energy": None,
        "power_mode": None,
        "unsteady": [],
        "memory_mb": None,
        "count": 20,
        "settled": True,
        "ratio": None,
        **changes,
    }


def header(*rows):
    return profile_table({"rows": list(rows)}).splitlines()[0].split()


PLAIN = [
    "name",
    "batch",
    "p50",
    "ms",
    "p90",
    "ms",
    "p99",
    "ms",
    "images/s",
    "calls",
]


def test_columns_that_nobody_fills_are_left_out():
    assert header(row(), row()) == PLAIN
    assert header(row(energy={"unavailable": "no meter"})) == PLAIN


def test_precisions_stand_there_where_they_differ():
    assert header(row(precision="fp16"), row(precision="fp16")) == PLAIN
    assert "precision" in header(row(precision="fp16"), row(precision="fp32"))


def test_the_memory_of_a_gpu_has_its_column():
    memory = {"peak": 300.0, "increase": 30.0, "device": 412.4}
    text = profile_table({"rows": [row(memory_mb=memory)]})
    assert "GPU MiB" in text
    assert "412" in text


def ratio(value, low, high, to="backbone (no adapter)", verdict="faster"):
    return {"value": value, "low": low, "high": high, "to": to, "verdict": verdict}


def test_each_row_that_is_compared_has_its_sentence():
    near = ratio(0.9964, 0.9931, 1.0, "good", "no measurable difference")
    rows = [row(ratio=ratio(0.896, 0.889, 0.906)), row(name="b", ratio=near), row(name="c")]
    assert profile_table({"rows": rows}).splitlines()[4:] == [
        "a: 0.90 × the backbone's time [0.89, 0.91], faster",
        "b: 0.996 × good's time [0.993, 1.000], no measurable difference",
    ]
    rows[1]["batch"] = 8
    assert profile_table({"rows": rows}).splitlines()[5].startswith("b, batch 8: 0.996 ×")


def test_no_line_is_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    memory = {"peak": 300.0, "increase": 30.0, "device": 412.4}
    full = row(
        name="backbone (no adapter)",
        memory_mb=memory,
        times={"enqueue": {"p50": 0.1}, "gpu": {"p50": 1.0}, "host": {"p50": 1.5}},
        energy={"joules_per_image": 0.01234, "watts": 9.25, "idle_watts": 5.0},
        ratio=ratio(0.896, 0.889, 0.906),
    )
    text = profile_table({"rows": [full, row(batch=8)]})
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("backbone (no adapter)  ") == text.count("name  ") > 1  # in each table
    assert "J/image" in text


def test_columns_come_with_what_was_measured(monkeypatch):
    full = row(
        times={"enqueue": {"p50": 0.1}, "gpu": {"p50": 1.0}, "host": {"p50": 1.5}},
        streams={"count": 2, "images_per_s": 900.0},
        energy={"joules_per_image": 0.01234, "watts": 9.25, "idle_watts": 5.0},
        power_mode="MAXN",
        unsteady=["oc3: 3 events", "gpu-throttle-alert was on"],
    )
    monkeypatch.setenv("COLUMNS", "300")
    text = profile_table({"rows": [full, row()]})
    first, second, _, *below = text.splitlines()
    for name in ("power mode", "enqueue", "gpu", "host", "streams", "J/image", "W", "idle W"):
        assert name in first
    for cell in ("MAXN", "0.100", "1.00", "1.50", "900.0 (2)", "0.0123", "9.2", "5.0"):
        assert cell in second
    assert below == [
        "unsteady: batch 1, MAXN: oc3: 3 events",
        "unsteady: batch 1, MAXN: gpu-throttle-alert was on",
    ]


def test_doubts_of_a_batch_are_said_once():
    rows = [
        row(unsteady=["power mode: 15W, then 25W"]),
        row(unsteady=["power mode: 15W, then 25W"]),
    ]
    below = profile_table({"rows": rows}).splitlines()[3:]
    assert below == ["unsteady: batch 1: power mode: 15W, then 25W"]


def test_a_star_is_explained():
    assert profile_table({"rows": [row(), row(settled=False)]}).endswith(
        "\n* not settled when its warm-up ended"
    )
    assert "*" not in profile_table({"rows": [row()]})


def test_reasons_stand_below():
    document = {
        "rows": [row(energy={"unavailable": "no meter"}), row(energy={"unavailable": "no meter"})],
        "sweep": {"skipped": [{"id": 3, "name": "7W", "reason": "needs a reboot"}]},
    }
    assert profile_table(document).splitlines()[3:] == [
        "no energy: no meter",
        "7W was skipped: needs a reboot",
    ]


@pytest.mark.parametrize(("time", "text"), [(0.0314, "0.031"), (0.999, "0.999"), (1.0, "1.00")])
def test_short_times_have_three_decimals(time, text):
    cells = profile_table({"rows": [row(ms=dict.fromkeys(("p50", "p90", "p99", "mean"), time))]})
    assert cells.split().count(text) == 3


def test_why_memory_is_missing_stands_below():
    none = {"peak": None, "increase": None, "device": None, "unavailable": "killed (signal 9)"}
    text = profile_table({"rows": [row(memory_mb=none), row(memory_mb=none, name="b")]})
    assert text.splitlines()[0].split() == PLAIN
    assert text.splitlines()[3:] == ["no memory: killed (signal 9)"]


def test_transfers_are_one_line():
    copied = "9 bytes in, 3 out per image"
    rows = [row(transfers=copied), row(transfers=copied, batch=8)]
    assert profile_table({"rows": rows}).splitlines()[3:] == [f"transfers: {copied}"]
    rows += [row(transfers="more", name="b"), row(transfers="more", name="c")]
    assert profile_table({"rows": rows}).splitlines()[5:] == [
        f"transfers: {copied} (a); more (b, c)"
    ]
    assert "transfers" not in profile_table({"rows": [row(transfers="none")]})


def test_batches_in_portions_are_said():
    text = profile_table({"rows": [row(portions=1), row(portions=3, batch=20)]})
    (line,) = text.splitlines()[3:]
    assert line.startswith("in portions: a, batch 20: went through its engine 3 times")
    assert "--batch" in line


def test_profiles_of_earlier_versions_are_read():
    """Keys that came later are missing there."""
    later = ("times", "streams", "energy", "power_mode", "unsteady")
    old = {key: value for key, value in row().items() if key not in later}
    assert header(old) == PLAIN
