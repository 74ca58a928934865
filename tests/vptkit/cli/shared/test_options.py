"""Options that several commands take: tables that are none."""

from __future__ import annotations

import pytest
import typer

from vptkit.cli.shared.options import backbone_args, batch_sizes, require_choice
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


def test_batch_sizes():
    assert batch_sizes(None, "--batch") is None
    assert batch_sizes("8", "--batch") == (8,)
    assert batch_sizes("8,1", "--batch") == (8, 1)
    for text in ("", "1,,8", "1 8", "one", "0", "4,-1"):
        with pytest.raises(typer.BadParameter, match="expected numbers, as 1,8"):
            batch_sizes(text, "--batch")


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


@pytest.mark.parametrize(
    ("command", "spelling", "older"),
    [
        ("tune", "--batch", "--batch-size"),
        ("analyze", "--output", "--out"),
        ("build", "--board", "--device"),
        ("run", "--save", "--output"),
        ("eval", "-o", "--output"),
        ("demo", "-o", "--output"),
    ],
)
def test_older_spellings_are_the_same_option(command, spelling, older):
    from tests.support.command_tree import COMMANDS, options_of

    found = [{spelling, older} & set(option.opts) for option in options_of(COMMANDS[command])]
    assert {spelling, older} in found


def test_one_spelling_for_one_thing():
    """No command calls by another name what the others call so."""
    from tests.support.command_tree import COMMANDS, options_of
    from vptkit.cli.command_line.help_page import shown_spellings

    shown = {w for c in COMMANDS.values() for o in options_of(c) for w in shown_spellings(o)}
    others = {
        "--out",
        "--outdir",
        "--batch-size",
        "--img-size",
        "--nthreads",
        "--overwrite",
        "--topk",
    }
    assert shown & others == set()
    assert not any("_" in word for word in shown)


def test_a_file_of_settings_may_say_batch(tmp_path):
    from vptkit.cli.tune_commands.tune import _settings

    (tmp_path / "run.toml").write_text("batch = 3\n")
    assert _settings(tmp_path / "run.toml") == {"batch_size": 3}
