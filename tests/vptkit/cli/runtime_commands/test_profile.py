"""`vptkit profile` on a machine, and on a stand-in for a board."""

from __future__ import annotations

import json
import os
import sys

import pytest
from PIL import Image

from tests.support.command_errors import assert_error
from tests.support.device_trees import plant
from tests.support.fakes.board import make_board
from tests.support.stand_in_modules import fake_room
from vptkit.cli.runtime_commands.profile import _backend
from vptkit.devices.power.meters import RailMeter
from vptkit.runtime.measure.telemetry import find_instruments
from vptkit.runtime.profile.power_mode_sweep import BoardAccess


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A fake Orin Nano in mode 25W, on PATH and below the root that boards are looked for in."""
    made = make_board(tmp_path, {0: "15W", 1: "25W", 2: "MAXN_SUPER"}, 1)
    root = plant("orin-nano-jp62", tmp_path / "root")
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(BoardAccess.__init__.__kwdefaults__, "root", root)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def test_power_modes(vptkit, make_bundle, fake):
    fake.needs_reboot(0)
    command = ("profile", make_bundle("a"), "--rounds", 2, "--threads", 1)
    code, out, err = vptkit(*command, "--power", "15W,maxn_super", "--json")
    document = json.loads(out)
    assert code == 0
    assert [row["power_mode"] for row in document["rows"]] == ["MAXN_SUPER"]
    assert "power mode 25W (number 1) will be restored" in err.splitlines()[1]  # behind the backend
    assert fake.mode == 1
    _, out, _ = vptkit(*command, "--power", "15W,maxn_super")
    assert out.splitlines()[-1] == "15W was skipped: power mode 15W (number 0) needs a reboot"


def test_power_modes_of_no_board(vptkit, make_bundle, fake, monkeypatch):
    bundle = make_bundle("a")
    code, out, err = vptkit("profile", bundle, "--power", "60W")
    assert (code, out) == (2, "")
    assert "'60W' is not known on this board, expected all, or some of 15W, 25W" in err
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for option in (("--power", "all"), ("--pin-clocks",)):
        code, out, err = vptkit("profile", bundle, *option)
        assert (code, out) == (5, "")
        assert "needs root" in err
    assert fake.log == []


def test_this_machine_has_no_power_modes(vptkit, make_bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(BoardAccess.__init__.__kwdefaults__, "root", tmp_path)
    code, _, err = vptkit("profile", make_bundle("a"), "--power", "all")
    assert code == 5
    assert "power modes are a Jetson's" in err


def test_pinned_clocks(vptkit, make_bundle, fake):
    code, _, err = vptkit("profile", make_bundle("a"), "--rounds", 2, "--pin-clocks")
    assert code == 0
    assert "jetson_clocks " in fake.log
    assert fake.clocks == "as someone left them"
    assert "clocks restored" in err


def test_streams_and_energy(vptkit, make_bundle, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.measure.energy.IDLE_SECONDS", 0.0)
    code, out, _ = vptkit(
        *("profile", make_bundle("a"), "--rounds", 2, "--seconds", 0.01, "--threads", 1),
        *("--streams", 2, "--energy", 0.01, "--json"),
    )
    document = json.loads(out)
    (row,) = document["rows"]
    assert code == 0
    assert row["streams"]["count"] == 2
    assert row["streams"]["images_per_s"] > 0
    # Whether this machine has a meter is its own affair; it says one or the other.
    assert ("unavailable" in row["energy"]) != (row["energy"].get("images", 0) > 0)
    assert document["settings"]["energy_seconds"] == 0.01
    assert {"before", "after", "throttled", "changed"} == set(document["state"])


def test_cuda_graphs_are_refused_on_the_processor(vptkit, make_bundle):
    code, _, err = vptkit("profile", make_bundle("a"), "--cuda-graph", "both")
    assert code == 4
    assert "CUDA graph" in err.splitlines()[-1]
    code, _, err = vptkit("profile", make_bundle("a"), "--cuda-graph", "maybe")
    assert code == 2
    assert "expected on, off, both" in err


def test_instruments_say_what_is_missing(monkeypatch):
    monkeypatch.setattr(RailMeter, "find", lambda root: None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = find_instruments("tensorrt")
    assert found.meter is None
    assert "NVML tells neither" in found.no_meter
    assert "vptkit[gpu]" in found.no_meter
    assert found.state()["gpu"] is None
    found = find_instruments("openvino")  # the processor's, or an Intel GPU's, which nothing meters
    assert "NVML" not in found.no_meter


def test_another_machine(vptkit, make_bundle, monkeypatch, tmp_path):
    """What is asked here is measured there; how, tests/runtime/remote/test_remote_profile.py holds."""
    asked = {}

    def profile_on(host, bundles, settings, **more):
        asked.update(host=host, bundles=bundles, settings=settings, **more)
        return {"rows": [], "host": host}

    monkeypatch.setattr("vptkit.runtime.remote.remote_profile.profile_on", profile_on)
    bundle = make_bundle("a")
    code, out, _ = vptkit(
        *("profile", bundle, "--on", "me@board", "--python", "~/v/bin/python"),
        *("--backend", "tensorrt", "--batch", "1,8", "--power", "all", "--json"),
    )
    assert (code, json.loads(out)) == (0, {"rows": [], "host": "me@board"})
    assert (asked["host"], asked["bundles"]) == ("me@board", [bundle])
    assert (asked["python"], asked["baselines"]) == ("~/v/bin/python", [])
    settings = asked["settings"]
    assert (settings.backend, settings.batches, settings.power) == ("tensorrt", (1, 8), "all")


@pytest.mark.parametrize(("option", "measured"), [("--memory", True), ("--no-memory", False)])
def test_memory_can_be_left_out(vptkit, make_bundle, option, measured):
    code, out, _ = vptkit("profile", make_bundle("a"), "--rounds", 2, "--json", option)
    assert code == 0
    assert (json.loads(out)["rows"][0]["memory_mb"] is not None) == measured


def test_what_was_copied_to_another_machine_is_removed(vptkit, monkeypatch):
    """By what is asked here; what happens there, tests/runtime/remote/test_remote_profile.py holds."""
    asked = []

    def clean_board(host, **more):
        asked.append((host, more))
        return 1234

    monkeypatch.setattr("vptkit.runtime.remote.remote_profile.clean_board", clean_board)
    there = ("--on", "me@board", "--python", "~/p", "--ssh-option", "Port=1", "--clean")
    code, out, err = vptkit("profile", *there, "--json")
    assert (code, json.loads(out), err) == (0, {"host": "me@board", "freed": 1234}, "")
    assert asked == [("me@board", {"python": "~/p", "ssh_options": ["Port=1"]})]
    assert vptkit("profile", *there)[1] == "me@board: 1234 bytes removed\n"


def test_cleaning_is_for_another_machine_and_measures_nothing(vptkit, make_bundle, monkeypatch):
    monkeypatch.setattr(
        "vptkit.runtime.remote.remote_profile.clean_board", lambda *_, **__: pytest.fail("removed")
    )
    for words in (("--clean",), ("--on", "me@board", "--clean", make_bundle())):
        code, out, err = vptkit("profile", *words)
        assert (code, out) == (2, "")
        assert "vptkit profile --on USER@HOST --clean" in err


def test_a_profile_of_nothing(vptkit):
    code, out, err = vptkit("profile")
    assert (code, out) == (2, "")
    assert "BUNDLE is missing" in err


# bundles side by side ----------------------------------------------------------------------------


def test_profile(vptkit, make_bundle, tmp_path):
    plot = tmp_path / "plot.png"
    code, out, _ = vptkit(
        *("profile", make_bundle("a"), make_bundle("b"), "--batch", "1,2", "--rounds", 4),
        *("--threads", 1, "--plot", plot, "--json"),
    )
    document = json.loads(out)
    assert code == 0
    assert [(r["name"], r["batch"]) for r in document["rows"]] == [
        ("a-0", 1),
        ("b-1", 1),
        ("a-0", 2),
        ("b-1", 2),
    ]
    assert document["machine"]["session_threads"] == 1
    with Image.open(plot) as image:
        assert image.size[0] > 500


def test_profile_with_baselines(vptkit, make_bundle, monkeypatch):
    seen = []

    def export_baselines(bundle, folder):
        seen.append((bundle, folder, folder.is_dir()))
        return {"backbone (no adapter)": make_bundle("x"), "unfolded": make_bundle("y")}

    fake_room(monkeypatch, "vptkit.export.bundle.baselines", export_baselines=export_baselines)
    bundle = make_bundle("a")
    code, out, _ = vptkit("profile", bundle, "--baseline", "--rounds", 4)
    assert code == 0
    assert seen[0][0] == bundle
    assert seen[0][2]
    assert not seen[0][1].exists()  # the temporary folder is gone
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["name", "batch"]
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "a-0",
        "backbone (no adapter)",
        "unfolded",
    ]
    assert lines[-2].startswith("a-0: ")
    assert "× the backbone's time [" in lines[-2]
    assert lines[-1].startswith("unfolded: ")


def test_profile_of_bad_input(vptkit, make_bundle, tmp_path):
    bundle = make_bundle()
    assert_error(vptkit("profile", bundle, "--plot", tmp_path / "x.bmp"), 2, "x.bmp", ".png")
    assert_error(vptkit("profile", bundle, "--rounds", 0), 2, "rounds is 0")
    assert_error(vptkit("profile", make_bundle(batch=4), "--batch", 8), 4, "batches of 8")
    code, out, err = vptkit("profile", bundle, "--batch", "one")
    assert (code, out) == (2, "")
    assert "'one'" in err


def test_the_default_of_this_machine_is_not_anothers(monkeypatch):
    monkeypatch.setenv("VPTKIT_BACKEND", "cpu")
    assert _backend(None, None) == "cpu"
    assert _backend(None, "me@there") == "auto"
    assert _backend("cuda", "me@there") == "cuda"
