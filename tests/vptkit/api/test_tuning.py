"""`vptkit.tune(...)`: settings one by one or as a TuneConfig, with the command's defaults."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from vptkit.api.tuning import tune
from vptkit.errors import MissingExtraError, VptkitError
from vptkit.tune.config import TuneConfig


@pytest.fixture
def asked(monkeypatch):
    """What the room was asked for, instead of a training."""
    pytest.importorskip("torch")
    calls = []
    monkeypatch.setattr(
        "vptkit.tune.auto.tune_method.tune", lambda *a, **b: calls.append((*a, b)) or "done"
    )
    return calls


def test_settings_one_by_one_are_a_config(asked):
    assert tune("data", "x.safetensors", backbone="vit", epochs=3, image_size=64) == "done"
    ((data, output, config, options),) = asked
    assert (data, output) == ("data", "x.safetensors")
    assert config == TuneConfig(backbone="vit", epochs=3, backbone_args={"img_size": 64})
    assert options["force"] is options["resume"] is False


def test_a_config_is_taken_as_it_is(asked):
    config = TuneConfig(backbone="vit", epochs=3)
    tune("data", "x.safetensors", config, force=True, test=False)
    assert asked[0][2] is config
    assert (asked[0][3]["force"], asked[0][3]["test"]) == (True, False)


def test_text_for_the_paths_of_a_config():
    config = TuneConfig(backbone="a", method="ln", weights="w.safetensors", full_data="all")
    assert (config.weights, config.full_data) == (Path("w.safetensors"), Path("all"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"config": TuneConfig(backbone="a"), "epochs": 3}, "config and epochs: give either"),
        ({"config": TuneConfig(backbone="a"), "image_size": 3}, "config and image_size"),
        ({"config": {"backbone": "a"}}, "config: came as dict, expected a vptkit.TuneConfig"),
        ({"config": "a.toml"}, "config: came as str"),
        ({}, "no backbone"),
        ({"backbone": "a", "epoch": 3}, "epoch"),
        ({"backbone": "a", "epochs": "3"}, "epochs is '3', expected int"),
    ],
)
def test_other_settings_are_refused(asked, arguments, said):
    with pytest.raises(VptkitError, match=said):
        tune("data", "x.safetensors", **arguments)
    assert asked == []


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"tune needs the package torch.*vptkit\[tune\]"):
        tune("data", "x.safetensors", backbone="vit")


def test_the_defaults_are_those_of_the_command():
    """An option of the command that is not given is left to the settings."""
    from vptkit.cli.tune_commands.tune import tune as command

    ours = inspect.signature(tune).parameters
    settings = {f.name for f in fields(TuneConfig)}
    for name, option in inspect.signature(command).parameters.items():
        if name in settings:
            assert option.default in (None, False), name
        elif name in ours and name != "output":
            assert option.default == ours[name].default, name
