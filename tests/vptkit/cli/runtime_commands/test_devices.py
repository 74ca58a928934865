"""`vptkit devices` from outside."""

from __future__ import annotations

import json

import pytest

from vptkit.cli.runtime_commands.devices import _software
from vptkit.devices.boards.catalog import boards
from vptkit.devices.probes import machine as detect

ORIN = {
    "cpu": "6 x Cortex-A78AE",
    "arch": "aarch64",
    "governor": None,
    "jetson": {"model": "Yahboom Jetson", "part": "p3767-0003", "jetpack": "6.2.1"},
    "gpu": {"name": "Orin", "capability": "8.7"},
    "notes": ["power mode: /etc/nvpmodel.conf is not there (a container?)"],
    "device": "orin-nano-8gb",
}


def test_a_narrow_terminal_gets_a_narrow_list(vptkit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = vptkit("devices", "list")
    assert max(map(len, out.splitlines())) <= 80
    assert set(boards()) <= {line.split()[0] for line in out.splitlines() if line}


def test_a_word_of_several_names_all_of_them(vptkit):
    _, out, err = vptkit("devices", "show", "orin")
    assert out == ""
    assert all(key in err for key in boards() if "orin" in key)
    assert "tx2" not in err
    assert vptkit("devices", "show", "AGX Orin")[2].count("agx-orin") == 3
    assert vptkit("devices", "show", "RTX 4090")[1].startswith(boards()["rtx-4090"].name)


def test_list(vptkit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "130")
    code, out, _ = vptkit("devices", "list")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == [
        *("key", "cc", "GB", "GB/s", "fp16", "int8", "fp8", "JetPack", "TensorRT", "name")
    ]
    rows = {line.split()[0]: line.split() for line in lines[1:] if line}
    assert set(boards()) <= set(rows)
    assert rows["orin-nano-8gb"][1:9] == [
        *("8.7", "8", "102.4", "16.7", "33.4", "-", "6.0-7.2.2", "8.6.2-10.16.2")
    ]
    assert rows["agx-orin-32gb"][4] == "26.7?"
    assert rows["tx2"][7:9] == ["too", "old"]
    assert rows["h200"][7:9] == ["-", "pip"]


def test_list_json(vptkit):
    code, out, _ = vptkit("devices", "list", "--json")
    assert code == 0
    rows = {row["key"]: row for row in json.loads(out)["devices"]}
    assert set(rows) == set(boards())
    assert rows["h200"]["figures"]["bandwidth_gbs"] == 4800
    assert rows["h200"]["unverified"] == ["int8_tops"]
    assert rows["nano"]["runs_vptkit"] is False
    assert rows["x86-cpu"]["cc"] is None


@pytest.mark.parametrize("key", boards())
def test_show(vptkit, key):
    code, out, _ = vptkit("devices", "show", key)
    assert code == 0
    assert out.startswith(boards()[key].name)
    for name, figure in boards()[key].figures.items():
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert line.split()[1] == f"{figure.value:g}"
        assert f"[{figure.source}]" in line
    assert ("Python before 3.10" in out) == (not boards()[key].runs_vptkit)


def test_show_has_modes_jetpacks_troubles_and_the_sources_it_names(vptkit):
    _, out, _ = vptkit("devices", "show", "orin-nx-16gb")
    text = " ".join(out.split())
    assert "40W (default) super 4 8 1173 3199 [conf-p3767-0000-super]" in text
    assert "6.1 to 6.2.3 36.4, 36.5 22.04 3.10 12.6 10.3.0 9.3.0 runs" in text
    assert "tensorrt 8.5: no fused attention on Orin" in text
    assert "conf-p3767-0000-super NVIDIA nvpmodel_p3767_0000_super.conf" in text
    assert "nvpmodel_p3701" not in text


def test_show_json(vptkit):
    code, out, _ = vptkit("devices", "show", "agx-orin-32gb", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["figures"]["cc"] == {
        "value": "8.7",
        "source": "device-queries",
        "verified": True,
    }
    assert document["figures"]["clock_mhz"]["verified"] is False
    assert document["match"]["parts"] == ["p3701-0004"]
    assert {mode["name"] for mode in document["modes"]} >= {"MAXN", "MODE_15W"}
    assert {"conf-p3701-0004", "device-queries"} <= set(document["sources"])


def test_an_unknown_board_is_exit_2(vptkit):
    code, out, err = vptkit("devices", "show", "orin-nano")
    assert (code, out) == (2, "")
    assert "orin-nano-8gb" in err


def test_detect_names_the_board_and_what_was_not_found(vptkit, monkeypatch):
    monkeypatch.setattr(detect, "detect_machine", lambda: dict(ORIN))
    code, out, _ = vptkit("devices", "detect")
    assert code == 0
    assert out.splitlines()[-1] == "device: orin-nano-8gb (Jetson Orin Nano 8GB)"
    assert "not found: governor" in out
    assert "/etc/nvpmodel.conf is not there" in out
    document = json.loads(vptkit("devices", "detect", "--json")[1])
    assert document["device"] == "orin-nano-8gb"
    assert document["missing"] == ["governor"]
    assert document["machine"]["jetson"]["part"] == "p3767-0003"


def test_detect_says_what_it_saw_where_no_board_fits(vptkit, monkeypatch):
    machine = {**ORIN, "jetson": {"part": "p3767-9999"}, "device": None}
    monkeypatch.setattr(detect, "detect_machine", lambda: machine)
    code, out, _ = vptkit("devices", "detect")
    assert code == 0
    assert "none in vptkit devices list fits" in out.splitlines()[-1]
    assert "p3767-9999, Orin, aarch64" in out
    document = json.loads(vptkit("devices", "detect", "--json")[1])
    assert (document["device"], document["name"]) == (None, None)
    assert document["missing"] == ["governor"]


def test_detect_here(vptkit):
    code, out, _ = vptkit("devices", "detect", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["device"] is None or document["device"] in boards()
    assert document["machine"]["arch"]


def test_the_software_column_tells_who_can_run_vptkit():
    for board in boards().values():
        jetpack, tensorrt = _software(board)
        assert (jetpack == "too old") == (not board.runs_vptkit), board.key
        assert (tensorrt == "pip") == (board.kind == "gpu"), board.key
