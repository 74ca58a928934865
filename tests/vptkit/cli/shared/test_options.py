"""Options that several commands take: tables that are none."""

from __future__ import annotations

import pytest

from vptkit.cli.shared.options import backbone_args, require_choice
from vptkit.errors import VptkitError
from vptkit.strict_json import read_toml


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


def test_choices():
    require_choice("--fold", "all", ("all", "none"))
    with pytest.raises(VptkitError, match="--fold 'some': expected all or none"):
        require_choice("--fold", "some", ("all", "none"))


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
