"""Options that several commands take: files that are no TOML, tables that are none."""

from __future__ import annotations

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
    with pytest.raises(VptkitError, match=r"none\.toml: No such file"):
        read_toml(tmp_path / "none.toml")


def test_choices():
    require_choice("--fold", "all", ("all", "none"))
    with pytest.raises(VptkitError, match="--fold 'some': expected all or none"):
        require_choice("--fold", "some", ("all", "none"))
