"""What JetPack brings, and what is known not to work."""

from __future__ import annotations

import pytest

from vptkit.devices.boards.datasheet import FOLDER
from vptkit.devices.boards.jetpacks import find_jetpack, jetpacks, troubles
from vptkit.errors import VptkitError


@pytest.mark.parametrize(
    ("version", "tensorrt", "runs"),
    [
        ("4.6.6", "8.2.1", False),
        ("5.1", "8.5.2", False),
        ("5.1.2", "8.5.2", False),
        ("6.0", "8.6.2", True),
        ("6.1", "10.3.0", True),
        ("6.2.1", "10.3.0", True),
        ("6.2.1+b38", "10.3.0", True),
        ("7.1", "10.13.3", True),
        ("7.2.1", "10.16.2", True),
    ],
)
def test_a_release_is_found(version, tensorrt, runs):
    row = find_jetpack(version)
    assert row is not None
    assert (row.tensorrt, row.runs_vptkit) == (tensorrt, runs)


@pytest.mark.parametrize("version", ["4.5", "5.0.2", "6.3", "8.0", ""])
def test_a_release_that_is_not_in_the_table(version):
    assert find_jetpack(version) is None


def test_rows_follow_one_another():
    rows = jetpacks()
    for row in rows:
        assert find_jetpack(row.first) is row
        assert find_jetpack(row.last.partition("+")[0]) is row
    assert [row.name for row in rows][2:4] == ["6.0", "6.1 to 6.2.3"]


def about(package: str, version: str, cc: str) -> str:
    return " ".join(trouble.text for trouble in troubles(package, version=version, cc=cc))


@pytest.mark.parametrize(
    ("package", "version", "cc", "words"),
    [
        ("tensorrt", "8.5.2", "8.7", "no fused attention on Orin"),
        ("tensorrt", "8.5.2.2", "7.2", "no LayerNormalization"),
        ("tensorrt", "8.6.10", "8.7", "no fused attention on Orin"),
        ("tensorrt", "10.3.0", "8.9", "no fused fp8 attention"),
        ("tensorrt", "11.4.0", "11.0", "not for Jetson"),
        ("onnxruntime-gpu", "1.31.1", "8.7", "fails at the first run"),
        ("onnxruntime-gpu", "1.31.1", "7.2", "fails at the first run"),
        ("tensorrt-rtx", "1.7.1", "8.7", "no target"),
    ],
)
def test_known_troubles(package, version, cc, words):
    assert words in about(package, version, cc)


@pytest.mark.parametrize(
    ("package", "version", "cc"),
    [
        ("tensorrt", "8.6.1", "8.7"),  # does not begin with 8.6.10
        ("tensorrt", "8.6.2", "8.7"),
        ("tensorrt", "8.6.10", "7.5"),
        ("tensorrt", "10.3.0", "8.7"),
        ("tensorrt", "10.6.0", "8.9"),
        ("tensorrt", "11.4.1", "8.7"),
        ("tensorrt", "11.4.0", "9.0"),
        ("onnxruntime-gpu", "1.31.1", "9.0"),
        ("tensorrt-rtx", "1.7.1", "8.6"),
    ],
)
def test_what_works_is_not_accused(package, version, cc):
    assert about(package, version, cc) == ""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('cuda = ["10.2", "jetpack-4"]', 'cuda = "10.2"', "jetpack 0: cuda: .*value, source"),
        ('cuda = ["10.2", "jetpack-4"]', "", "jetpack 0: cuda: is missing"),
        ('"tegra210"]', '"tegra20"]', "jetpack 0: socs: .*tegra20"),
        ('first = "6.0"', 'first = "6.0"\nkernel = "5.15"', "jetpack 2: kernel: is not known"),
        ('package = "tensorrt-rtx"', 'package = "pytorch"', "trouble 5: package: is 'pytorch'"),
        ('source = "trt-3643"', 'source = "hearsay"', "trouble 1: source: .*'hearsay'"),
        ("[[jetpack]]", "[jetpack]", "not valid TOML|jetpack: is"),
    ],
)
def test_the_schema_is_strict(tmp_path, old, new, words):
    text = (FOLDER / "jetpacks.toml").read_text()
    assert old in text
    (tmp_path / "jetpacks.toml").write_text(text.replace(old, new, 1))
    (tmp_path / "sources.toml").write_text((FOLDER / "sources.toml").read_text())
    with pytest.raises(VptkitError, match=words) as caught:
        jetpacks(tmp_path)
    assert "jetpacks.toml: " in str(caught.value)
