from __future__ import annotations

import json

import pytest

from tests.support.device_trees import TREES, plant
from vptkit.devices.probes.jetson import PowerMode, detect_jetson, parse_power_modes, power_modes

# tree → module, SoC, L4T, JetPack, power mode, fastest mode
JETSONS = {
    "orin-nano-jp62": ("p3767-0003", "tegra234", "36.4.4", "6.2.1", "25W", "MAXN_SUPER"),
    "orin-nano-carrier-jp6": ("p3767-0003", "tegra234", "36.4.3", "6.2", None, None),
    "agx-orin-jp6": ("p3701-0005", "tegra234", "36.5.2", "6.2.3", "MODE_30W", "MAXN"),
    "agx-orin-jp5": ("p3701-0000", "tegra234", "35.4.1", "5.1.2", "MAXN", "MAXN"),
    "xavier-nx-jp5": (
        *("p3668-0001", "tegra194", "35.4.1", "5.1.2"),
        *("MODE_15W_6CORE", "MODE_20W_6CORE"),
    ),
    "thor-jp7": ("p3834-0008", "tegra264", "38.2.2", "7.0", "120W", "MAXN"),
}


@pytest.mark.parametrize("tree", JETSONS)
def test_a_board_is_read_from_its_files(tree, tmp_path):
    found = detect_jetson(plant(tree, tmp_path))
    mode = found.power.mode if found.power else None
    fastest = found.power.fastest if found.power else None
    assert JETSONS[tree] == (
        *(found.part, found.soc, found.l4t, found.jetpack),
        *(None if m is None else m.name for m in (mode, fastest)),
    )
    json.dumps(found.to_json())


def test_every_tree_is_tested():
    assert set(TREES) == {*JETSONS, "container-jp6", "server-x86", "raspberry-pi"}


@pytest.mark.parametrize("tree", ["server-x86", "raspberry-pi"])
def test_other_machines_are_no_jetson(tree, tmp_path):
    assert detect_jetson(plant(tree, tmp_path)) is None


def test_in_a_container_the_kernel_tells_and_the_notes_say_what_is_hidden(tmp_path):
    found = detect_jetson(plant("container-jp6", tmp_path))
    assert (found.model, found.part, found.l4t, found.jetpack, found.power) == (None,) * 5
    assert [note.split(":")[0] for note in found.notes] == ["module", "L4T", "power mode"]
    assert "/proc/device-tree is not there (in a container, mount it)" in found.notes[0]


def test_nothing_is_noted_about_a_board_that_tells_all(tmp_path):
    assert detect_jetson(plant("orin-nano-jp62", tmp_path)).notes == ()


def test_a_device_tree_of_several_modules_needs_the_boot_configuration(tmp_path):
    root = plant("xavier-nx-jp5", tmp_path, **{"etc__nv_boot_control.conf": None})
    found = detect_jetson(root)
    assert found.part is None
    assert "stands for several, p3668-0000, p3668-0001" in found.notes[0]


def test_a_carrier_board_is_not_taken_for_a_module(tmp_path):
    compatible = "nvidia,p3768-0000\0nvidia,tegra234\0"
    root = plant(
        "orin-nano-jp62",
        tmp_path,
        **{"proc__device-tree__compatible": compatible, "etc__nv_boot_control.conf": None},
    )
    found = detect_jetson(root)
    assert found.part is None
    assert "no part number known among nvidia,p3768-0000, nvidia,tegra234" in found.notes[0]


def test_the_source_of_the_device_tree_helps_where_nothing_else_does(tmp_path):
    root = plant(
        "agx-orin-jp5",
        tmp_path,
        **{
            "proc__device-tree__compatible": "nvidia,tegra234\0",
            "etc__nv_boot_control.conf": None,
        },
    )
    assert detect_jetson(root).part == "p3701-0000"


def test_an_unknown_release_is_not_guessed(tmp_path):
    release = "# R36 (release), REVISION: 9.9, GCID: 1, BOARD: generic\n"
    found = detect_jetson(plant("orin-nano-jp62", tmp_path, etc__nv_tegra_release=release))
    assert (found.l4t, found.jetpack) == ("36.9.9", None)
    assert found.notes == ("JetPack: L4T 36.9.9 is not in the table of known releases",)


def test_caps_of_a_mode(tmp_path):
    modes = {mode.name: mode for mode in power_modes(plant("orin-nano-jp62", tmp_path)).modes}
    assert list(modes) == ["15W", "25W", "MAXN_SUPER", "7W"]
    assert (modes["25W"].id, modes["25W"].gpu_max_hz) == (1, 918_000_000)
    assert modes["25W"].emc_max_hz == 3_199_000_000
    assert (modes["7W"].tpc_mask, modes["7W"].cores) == (252, 4)
    assert (modes["MAXN_SUPER"].gpu_max_hz, modes["MAXN_SUPER"].emc_max_hz) == (None, None)


def test_lines_that_define_names_belong_to_no_mode():
    conf = (
        "< PARAM TYPE=CLOCK NAME=GPU >\nGPU MAX_FREQ 1\n< POWER_MODEL ID=0 NAME=A >\n"
        "GPU MAX_FREQ 0x2 # comment\n< PM_CONFIG DEFAULT=7 >\nGPU MAX_FREQ 3\n"
    )
    (mode,), default = parse_power_modes(conf)
    assert (mode.gpu_max_hz, default) == (2, 7)


@pytest.mark.parametrize(
    ("slow", "fast"),
    [
        ({"GPU MAX_FREQ": "1"}, {"GPU MAX_FREQ": "-1"}),
        ({"GPU MAX_FREQ": "5"}, {"GPU MAX_FREQ": "7"}),
        ({"EMC MAX_FREQ": "5"}, {"EMC MAX_FREQ": "7"}),
        ({"CPU_ONLINE CORE_0": "0"}, {"CPU_ONLINE CORE_0": "1"}),
        ({"TPC_POWER_GATING TPC_PG_MASK": "252"}, {"TPC_POWER_GATING TPC_PG_MASK": "240"}),
    ],
)
@pytest.mark.parametrize("slow_first", [True, False])
def test_the_fastest_mode_is_found_by_its_caps(tmp_path, slow, fast, slow_first):
    modes = [("slow", slow), ("fast", fast)]
    conf = "".join(
        f"< POWER_MODEL ID={i} NAME={name} >\n" + "".join(f"{k} {v}\n" for k, v in settings.items())
        for i, (name, settings) in enumerate(modes if slow_first else modes[::-1])
    )
    root = plant("orin-nano-jp62", tmp_path, **{"etc__nvpmodel.conf": conf})
    assert power_modes(root).fastest.name == "fast"


@pytest.mark.parametrize("status", [None, "", "pmode:0009", "nonsense"])
def test_a_mode_that_the_board_does_not_have_is_unknown(tmp_path, status):
    found = detect_jetson(plant("orin-nano-jp62", tmp_path, var__lib__nvpmodel__status=status))
    assert found.power.mode is None
    assert found.notes == ("power mode: /var/lib/nvpmodel/status names none of the board's modes",)


def test_a_mode_of_a_name_only_has_no_caps():
    mode = PowerMode(id=0, name="MAXN")
    assert (mode.gpu_max_hz, mode.emc_max_hz, mode.tpc_mask, mode.cores) == (None, None, None, 0)
