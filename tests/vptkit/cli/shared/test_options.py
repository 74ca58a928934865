"""Options that several commands take: files that are no TOML, tables that are none."""

from __future__ import annotations

import os

import pytest

from vptkit.cli.shared.options import backbone_args, read_toml, require_choice
from vptkit.errors import VptkitError


def test_the_input_size_goes_over_the_files(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("lr = 1\n[backbone_args]\nimg_size = 32\ndepth = 2\n")
    assert backbone_args(file, None) == {"img_size": 32, "depth": 2}
    assert backbone_args(file, 48) == {"img_size": 48, "depth": 2}
    assert backbone_args(None, 48) == {"img_size": 48}
    assert backbone_args(None, None) == {}
    file.write_text("backbone_args = 3\n")
    with pytest.raises(VptkitError, match=r"run\.toml: backbone_args is 3, expected a table"):
        backbone_args(file, None)


@pytest.mark.parametrize("content", [b"lr = ", b"name = '\xff'"])
def test_what_is_no_toml(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(VptkitError, match=r"run\.toml: not valid TOML"):
        read_toml(tmp_path / "run.toml")
    with pytest.raises(VptkitError, match=r"none\.toml: no such file"):
        read_toml(tmp_path / "none.toml")


def test_choices():
    require_choice("--fold", "all", ("all", "none"))
    with pytest.raises(VptkitError, match="--fold 'some': expected all or none"):
        require_choice("--fold", "some", ("all", "none"))


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{a=" * 100_000,
        "a = " + "9" * 5000,
        "x" * 2_000_000,
        "a = 1\na = 2",
        "a = 1979-99-99",
    ],
    ids=["lists", "tables", "digits", "large", "twice", "date"],
)
def test_toml_of_a_stranger(tmp_path, text):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(VptkitError, match=r"run\.toml: (not valid TOML|more than)"):
        read_toml(file)


def test_settings_that_are_no_file(tmp_path):
    """A FIFO would wait for its writer, a device has no end."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    for name, kind in (("pipe.toml", "a FIFO"), ("endless.toml", "a device"), (".", "a folder")):
        with pytest.raises(VptkitError, match=f"{kind}, expected a regular file"):
            read_toml(tmp_path / name)


def test_arguments_of_a_file_go_the_way_of_an_adapters(tmp_path):
    """`vptkit tune --config`: refused by name, before anything is built."""
    pytest.importorskip("torch")
    from vptkit.tune.config import config_from_mapping
    from vptkit.tune.sweep.search_space import sweep_from_mapping

    file = tmp_path / "run.toml"
    file.write_text('backbone = "vit"\n[backbone_args]\ncheckpoint_path = "/home/user/w.pth"\n')
    with pytest.raises(VptkitError, match="'checkpoint_path', which is no argument of an arch"):
        config_from_mapping(read_toml(file))
    with pytest.raises(VptkitError, match="'checkpoint_path', which is no argument of an arch"):
        sweep_from_mapping(
            {"data": "d", "tune": read_toml(file), "space": {"method": ["vpt", "bpt"]}}
        )
