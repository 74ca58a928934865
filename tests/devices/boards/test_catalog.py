"""The boards' tables: consistent in themselves, strict to read, and matched without guessing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from vptkit.devices.boards.catalog import Board, board, boards, match
from vptkit.devices.boards.datasheet import FOLDER, Figure, read_sources
from vptkit.devices.boards.jetpacks import jetpacks
from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from pathlib import Path


BOARDS = boards()
JETSONS = {key: entry for key, entry in BOARDS.items() if entry.kind == "jetson"}
GPUS = {key: entry for key, entry in BOARDS.items() if entry.kind != "cpu"}
# Operations of one SM in one clock, dense: compute capability → fp16, int8, fp8. Without tensor
# cores (5.3, 6.2) fp16 runs on the CUDA cores, two at a time.
PER_CLOCK = {
    "5.3": (512, None, None),
    "6.2": (512, None, None),
    "7.2": (1024, 2048, None),
    "7.5": (1024, 2048, None),
    "8.0": (2048, 4096, None),
    "8.6": (1024, 2048, None),
    "8.7": (2048, 4096, None),
    "8.9": (1024, 2048, 2048),
    "9.0": (4096, 8192, 8192),
    "10.0": (8192, 16384, 16384),
    "11.0": (8192, None, 16384),
    "12.0": (1024, 2048, 2048),
}
PEAKS = ("fp16_tflops", "int8_tops", "fp8_tflops")


def peaks_off(entry: Board) -> list[str]:
    """Peaks that are not SMs x clock x operations, to 1 %."""
    rate = entry.value("sms") * entry.value("clock_mhz") * 1e-6
    return [
        name
        for name, per_clock in zip(PEAKS, PER_CLOCK[entry.cc.value], strict=True)
        if (entry.value(name) is None) != (per_clock is None)
        or (
            per_clock is not None and entry.value(name) != pytest.approx(rate * per_clock, rel=0.01)
        )
    ]


def formulas_off(entry: Board) -> list[str]:
    """Figures whose source gives a product that they are not."""
    off = []
    for name, figure in entry.figures.items():
        factors = re.search(r"computed[:,] (\d+) \w+ x (\d+)(?: MHz)?(?: x (\d+))?", figure.source)
        if factors is None:
            continue
        product = 1.0
        for factor in factors.groups(default="1"):
            product *= int(factor)
        scale = {"tflops": 1e-6, "tops": 1e-6, "gbs": 1e-3}.get(name.rpartition("_")[2], 1.0)
        if figure.value != pytest.approx(product * scale, rel=0.01):
            off.append(name)
    return off


def dishonest(entry: Board) -> list[str]:
    """Figures that pass for computed, though what they were computed from is unverified."""
    inputs = {
        r"computed: \d+ SMs x \d+ MHz": ("sms", "clock_mhz"),
        r"computed: \d+ cores x [24] x \d+ MHz": ("cuda_cores", "clock_mhz"),
        r"computed: \d+ SMs x \d+$": ("sms",),
        r"computed: 2 x \d+ MHz": ("emc_mhz",),
    }
    return [
        name
        for name, figure in entry.figures.items()
        for pattern, needed in inputs.items()
        if re.match(pattern, figure.source)
        and not all(entry.figures[given].verified for given in needed)
    ]


def with_figure(entry: Board, name: str, value: float, source: str = "computed: x") -> Board:
    return replace(entry, figures={**entry.figures, name: Figure(value, source)})


# what must be there -------------------------------------------------------------------------------


def test_every_row_of_the_issue_is_there():
    expected = {
        *("nano", "tx2", "xavier-nx-8gb", "xavier-nx-16gb", "agx-xavier-32gb", "agx-xavier-64gb"),
        *("orin-nano-4gb", "orin-nano-8gb", "orin-nx-8gb", "orin-nx-16gb"),
        *("agx-orin-32gb", "agx-orin-64gb", "agx-orin-devkit-32gb", "thor-t4000", "thor-t5000"),
        *("t4", "a10", "a100-40gb", "a100-80gb", "l4", "l40s", "h100-sxm", "h100-pcie", "h200"),
        *("b200", "rtx-4090", "rtx-5090", "x86-cpu"),
    }
    assert set(BOARDS) == expected


def test_jetsons_come_first_and_8_before_16():
    keys = list(BOARDS)
    assert keys.index("orin-nx-8gb") < keys.index("orin-nx-16gb") < keys.index("tx2")
    assert keys.index("tx2") < keys.index("a10")
    assert keys[-1] == "x86-cpu"


def test_every_source_is_used():
    texts = [path.read_text() for path in FOLDER.glob("*.toml") if path.stem != "sources"]
    unused = [
        name
        for name in read_sources()
        if not any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for text in texts)
    ]
    assert unused == []


# consistency --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", GPUS)
def test_peaks_follow_from_sms_and_clock(key):
    assert peaks_off(BOARDS[key]) == []
    assert formulas_off(BOARDS[key]) == []


def test_a_wrong_peak_would_be_noticed():
    nano = with_figure(board("orin-nano-8gb"), "int8_tops", 67, "computed: 8 SMs x 1020 MHz x 4096")
    assert peaks_off(nano) == ["int8_tops"]
    assert formulas_off(nano) == ["int8_tops"]
    assert peaks_off(with_figure(board("t4"), "fp8_tflops", 130)) == ["fp8_tflops"]


@pytest.mark.parametrize("key", GPUS)
def test_what_is_computed_from_memory_is_unverified(key):
    assert dishonest(BOARDS[key]) == []


def test_a_computed_figure_with_unverified_inputs_would_be_noticed():
    agx = with_figure(
        board("agx-orin-32gb"), "fp16_tflops", 26.7, "computed: 14 SMs x 930 MHz x 2048"
    )
    assert dishonest(agx) == ["fp16_tflops"]


@pytest.mark.parametrize("key", GPUS)
def test_cores_and_fp32(key):
    entry = BOARDS[key]
    cores = {"7.2": 64, "7.5": 64, "8.0": 64}.get(entry.cc.value, 128)
    assert entry.value("cuda_cores") == cores * entry.value("sms")
    ratio = entry.value("fp32_tflops") * 1e6 / (2 * cores * entry.value("sms"))
    # Hopper and Blackwell state fp32 at the boost clock, tensor peaks at a lower one.
    assert 0.99 <= ratio / entry.value("clock_mhz") <= 1.09


@pytest.mark.parametrize("key", GPUS)
def test_narrower_types_are_faster(key):
    entry = BOARDS[key]
    assert entry.value("fp32_tflops") < entry.value("fp16_tflops")
    for name in ("int8_tops", "fp8_tflops"):
        if entry.value(name) is not None:
            assert entry.value(name) == pytest.approx(2 * entry.value("fp16_tflops"), rel=0.01)


@pytest.mark.parametrize("key", GPUS)
def test_precisions_follow_from_the_compute_capability(key):
    entry = BOARDS[key]
    cc = tuple(map(int, entry.cc.value.split(".")))
    assert ("bf16" in entry.precisions) == (cc >= (8, 0))
    assert ("fp8" in entry.precisions) == (cc >= (8, 9))
    assert ("int8" in entry.precisions) == (entry.value("int8_tops") is not None)
    assert (entry.value("tensor_cores") > 0) == (cc >= (7, 0))


@pytest.mark.parametrize("key", JETSONS)
def test_the_marketing_total_is_the_gpu_and_the_dlas(key):
    """Orin counts sparse int8 and the DLAs, Xavier dense int8 and the DLAs, Thor sparse fp4."""
    entry = BOARDS[key]
    total = entry.value("marketing_tops")
    if total is None:
        assert entry.cc.value in ("5.3", "6.2")
        return
    gpu = {"7.2": ("int8_tops", 1), "8.7": ("int8_tops", 2), "11.0": ("fp16_tflops", 8)}
    name, times = gpu[entry.cc.value]
    rest = total - times * entry.value(name)
    if entry.value("dla") == 0:
        assert abs(rest) <= 0.02 * total
    else:
        assert 0.1 * total < rest < 0.55 * total


@pytest.mark.parametrize("key", JETSONS)
def test_bandwidth_is_two_transfers_a_clock(key):
    entry = BOARDS[key]
    width = entry.value("bandwidth_gbs") * 1e3 / (2 * entry.value("emc_mhz"))  # bytes
    assert min(abs(width - bus) / bus for bus in (8, 16, 32)) < 0.005


@pytest.mark.parametrize("key", JETSONS)
def test_modes(key):
    entry = BOARDS[key]
    for configuration in {mode.configuration for mode in entry.modes}:
        modes = [mode for mode in entry.modes if mode.configuration == configuration]
        assert len({mode.id for mode in modes}) == len(modes)
        assert len({mode.name for mode in modes}) == len(modes)
        assert sum(mode.default for mode in modes) <= 1
    for mode in entry.modes:
        assert mode.sms % 2 == 0, "a TPC holds two SMs"
        assert mode.sms <= entry.value("sms")
        assert mode.gpu_mhz <= entry.value("clock_mhz")
        assert mode.emc_mhz <= entry.value("emc_mhz")


@pytest.mark.parametrize("key", [key for key in JETSONS if "orin" in key])
def test_orins_have_modes_with_one_default_each(key):
    modes = BOARDS[key].modes
    configurations = {mode.configuration for mode in modes}
    assert configurations == ({"normal", "super"} if "agx" not in key else {"normal"})
    assert sum(mode.default for mode in modes) == len(configurations)


def test_only_jetsons_share_their_memory_with_the_cpu():
    assert {key for key, entry in GPUS.items() if entry.integrated} == set(JETSONS)
    assert board("orin-nano-8gb").memory_bytes == 8 * 2**30
    assert board("x86-cpu").memory_bytes is None


def test_part_numbers_stand_for_one_board_but_one():
    parts = [part for entry in JETSONS.values() for part in entry.parts]
    assert {part for part in parts if parts.count(part) > 1} == {"p3701-0000"}


def test_jetpacks_of_a_board():
    assert [row.first for row in board("orin-nano-8gb").jetpacks] == ["5.1", "6.0", "6.1", "7.2"]
    assert board("h200").jetpacks == ()
    old = {key for key, entry in BOARDS.items() if not entry.runs_vptkit}
    assert old == {key for key in JETSONS if "xavier" in key} | {"nano", "tx2"}
    assert {row.tensorrt for row in jetpacks()} >= {"8.5.2", "8.6.2", "10.3.0", "10.16.2"}


# matching -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "key"),
    [
        ({"part": "p3767-0003"}, "orin-nano-8gb"),
        ({"part": "p3767-0005", "memory_mb": 7620, "arch": "aarch64"}, "orin-nano-8gb"),
        ({"part": "p3767-0004", "gpu": "Orin", "cc": "8.7", "memory_mb": 3455}, "orin-nano-4gb"),
        ({"part": "p3767-0000", "gpu": "Orin", "memory_mb": 14486}, "orin-nx-16gb"),
        ({"part": "p3701-0000", "memory_mb": 62800}, "agx-orin-64gb"),
        ({"part": "p3701-0000", "memory_mb": 30697}, "agx-orin-devkit-32gb"),
        ({"part": "p3668-0003", "memory_mb": 15000}, "xavier-nx-16gb"),
        ({"part": "p3834-0008", "gpu": "NVIDIA Thor", "memory_mb": 125517}, "thor-t5000"),
        ({"gpu": "Tesla T4", "cc": "7.5", "memory_mb": 14910, "arch": "x86_64"}, "t4"),
        ({"gpu": "NVIDIA A100-SXM4-40GB", "memory_mb": 40441}, "a100-40gb"),
        ({"gpu": "NVIDIA A100-SXM4-80GB", "memory_mb": 81251}, "a100-80gb"),
        ({"gpu": "NVIDIA H200", "cc": "9.0", "memory_mb": 143771}, "h200"),
        ({"gpu": "NVIDIA H100 80GB HBM3", "cc": "9.0", "memory_mb": 81559}, "h100-sxm"),
        ({"gpu": "NVIDIA B200", "cc": "10.0", "memory_mb": 183359}, "b200"),
        ({"gpu": "NVIDIA GeForce RTX 4090", "arch": "x86_64"}, "rtx-4090"),
        ({"part": None, "gpu": None, "cc": None, "memory_mb": 500, "arch": "x86_64"}, "x86-cpu"),
    ],
)
def test_a_machine_is_matched(machine, key):
    found = match(machine)
    assert found is not None
    assert found.key == key


@pytest.mark.parametrize(
    "machine",
    [
        {"part": "p3767-9999", "gpu": "Orin", "memory_mb": 7620},  # unknown, though the GPU is not
        {"part": "p3767-0003", "cc": "11.0"},  # contradicts itself
        {"part": "p3767-0003", "memory_mb": 15600},
        {"part": "p3701-0000"},  # 32 or 64 GB
        {"gpu": "Orin", "cc": "8.7", "memory_mb": 7620},  # Orin Nano or NX
        {"gpu": "Orin", "cc": "8.7", "memory_mb": 62800},  # AGX Orin, or its industrial sister
        {"gpu": "Xavier", "cc": "7.2", "memory_mb": 15815},  # AGX Xavier 16GB, not Xavier NX
        {"gpu": "NVIDIA H200", "cc": "9.0", "memory_mb": 18000},  # a slice of one
        {"gpu": "NVIDIA A10G", "cc": "8.6", "memory_mb": 23028},  # not the A10
        {"gpu": "NVIDIA GeForce RTX 4090 D", "cc": "8.9"},
        {"gpu": "NVIDIA RTX A2000", "arch": "x86_64"},  # not a machine without a GPU
        {"arch": "aarch64"},
        {},
    ],
)
def test_no_guess(machine):
    assert match(machine) is None


def test_two_boards_that_fit_alike_are_no_match():
    one = board("t4")
    known = {"t4": one, "other": replace(one, key="other")}
    assert match({"gpu": "Tesla T4"}, {"t4": one}) is one
    assert match({"gpu": "Tesla T4"}, known) is None


# the schema ---------------------------------------------------------------------------------------


def figures_of(key: str) -> str:
    return (FOLDER / f"{key}.toml").read_text()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with one board, as it is committed."""
    (tmp_path / "sources.toml").write_text((FOLDER / "sources.toml").read_text())
    (tmp_path / "nx.toml").write_text(figures_of("orin-nx-8gb"))
    return tmp_path


def test_a_folder_of_ones_own(folder):
    assert boards(folder)["nx"].figures == board("orin-nx-8gb").figures


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "jetson"', 'kind = "phone"', "kind: is 'phone', expected jetson or gpu or cpu"),
        ('kind = "jetson"', "", "kind: is missing"),
        ('soc = "tegra234"', 'soc = "tegra999"', "soc: is 'tegra999'"),
        ("integrated = true", 'integrated = "yes"', "integrated: is 'yes', expected true or false"),
        ('name = "Jetson Orin NX 8GB"', 'name = " "', "name: is empty"),
        ('"bf16", ', '"bfloat16", ', "precisions: .*bfloat16"),
        ("notes = []", 'notes = ["text without a source"]', "notes 0: .*expected .value, source"),
        ("notes = []", "notes = []\ncolour = 1", "nx.toml: colour: is not known"),
        ("[match]", "[match]\nsku = 1", "nx.toml: match: sku: is not known"),
        ('parts = ["p3767-0001"]', "parts = [1]", "match: parts: .*list of texts"),
        ('cc = ["8.7"', 'cc = ["87"', "figures: cc: is '87', expected a compute capability"),
        ('cc = ["8.7"', "cc = [8.7", "figures: cc: is 8.7, expected a text"),
        ("sms = [8,", "sms = [8.5,", "figures: sms: is 8.5, expected a whole number"),
        ("sms = [8,", 'sms = ["8",', "figures: sms: is '8', expected a number"),
        ("sms = [8,", "sms = [true,", "figures: sms: is True"),
        ("clock_mhz = [1173,", "clock_mhz = [1.173,", r"1.173, expected 300 to 4000 \(MHz\)"),
        ("memory_gb = [8,", "memory_gb = [8192,", r"memory_gb: is 8192, expected 1 to 512 \(GB\)"),
        ("dla = [1,", "dlas = [1,", "figures: dla: is missing"),
        ("dla = [1,", "tensor_tops = [1, 'computed: x']\ndla = [1,", "tensor_tops: is not known"),
        (
            "int8_tops = [38.4, ",
            "int8_tops = 38.4 # [",
            "int8_tops: is 38.4, expected .value, sour",
        ),
        ('memory_gb = [8, "jetson-stats"]', "memory_gb = [8]", "expected .value, source"),
        ('memory_gb = [8, "jetson-stats"]', 'memory_gb = [8, "a blog"]', "source 'a blog' is no"),
        ('[8, "jetson-stats"]', '[8, "jetson-stats, a blog"]', "'jetson-stats, a blog'"),
        ('[8, "jetson-stats"]', '[8, "unverified"]', 'unverified: " and a reason'),
        ('[8, "jetson-stats"]', '[8, "computed: "]', "source 'computed: '"),
        ("[modes]", "[modes]\nturbo = []", "modes: turbo: is not known"),
        ("id = 2, name", "name", "modes: normal 2: id: is missing"),
        ("gpu_mhz = 408", "gpu_mhz = 4080", "normal 3: gpu_mhz: is 4080, .* 50 to 1173"),
        ("sms = 4", "sms = 16", "normal 1: sms: is 16, .* 1 to 8"),
        ("emc_mhz = 2133", "emc = 2133", "normal 1: emc: is not known"),
        ('source = "conf-p3767-0001"', 'source = "mine"', "normal 2: source: .*'mine'"),
        ("[figures]", "[figures", "nx.toml: not valid TOML"),
    ],
)
def test_the_schema_is_strict(folder, old, new, words):
    path = folder / "nx.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(VptkitError, match=words) as caught:
        boards(folder)
    assert "nx.toml: " in str(caught.value)


def test_power_modes_are_of_jetsons_only(folder):
    text = figures_of("l4") + '\n[modes]\nnormal = [{ id = 0, name = "MAXN", sms = 58 }]\n'
    (folder / "l4.toml").write_text(text)
    with pytest.raises(VptkitError, match=r"l4\.toml: modes: is not known"):
        boards(folder)


def test_a_folder_without_sources(tmp_path):
    (tmp_path / "nx.toml").write_text(figures_of("orin-nx-8gb"))
    with pytest.raises(VptkitError, match=r"sources\.toml"):
        boards(tmp_path)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("orin-nano", "orin-nano-8gb"),
        ("RTX-4090", "rtx-4090"),
        ("raspberry", "vptkit devices list"),
    ],
)
def test_an_unknown_board(key, words):
    with pytest.raises(VptkitError, match=f"no device '{key}'.*{words}"):
        board(key)
