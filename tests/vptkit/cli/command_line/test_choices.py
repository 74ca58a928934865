"""The table of choices is what the rooms accept."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.support.command_tree import COMMANDS, options_of
from vptkit.backbones.merge_schedule import MERGE_ATTENTIONS
from vptkit.backbones.timm_arguments import POSITIONS
from vptkit.cli.command_line.choices import CHOICES, TEXTS, choices_of
from vptkit.formats.pooling import POOLS
from vptkit.runtime.backends.selection import BACKENDS, TRT_LIBRARIES


def test_each_entry_is_an_option():
    options = {
        f"{name} {word}"
        for name, command in COMMANDS.items()
        for o in options_of(command)
        for word in o.opts
    }
    assert set(CHOICES) <= options
    assert set(TEXTS) <= set(CHOICES)


def test_those_of_tune_are_the_configurations():
    pytest.importorskip("torch")
    from vptkit.tune import config

    table = {key.replace("_", "-"): set(values) for key, values in config._CHOICES.items()}
    ours = {
        key.removeprefix("tune --"): set(v) for key, v in CHOICES.items() if key.startswith("tune ")
    }
    del ours["device"]  # any of cuda:N, too
    assert ours.pop("positions") == set(POSITIONS)  # of the backbone's arguments
    assert ours == {key: values - {"model"} for key, values in table.items()}


def test_those_of_export_are_the_rooms():
    pytest.importorskip("onnx")
    from vptkit.export.fold.last_block import LastBlock
    from vptkit.export.precision.lowering import Precision, Target

    rooms = {
        "export --precision": get_args(Precision),
        "export --target": (*get_args(Target), "web"),
        "export --last-block": ("auto", *get_args(LastBlock)),
        "export --merge-attention": MERGE_ATTENTIONS,
        "tune --merge-attention": MERGE_ATTENTIONS,
        "bisect --target": get_args(Target),
    }
    for key, values in rooms.items():
        assert set(CHOICES[key]) == set(values), key


@pytest.mark.parametrize("command", ["check", "eval", "run", "serve", "profile", "report"])
def test_backends(command):
    assert set(CHOICES[f"{command} --backend"]) == {*BACKENDS, "auto"}


def test_of_engines_and_heads():
    assert set(CHOICES["build --backend"]) == set(TRT_LIBRARIES)
    assert set(CHOICES["tune --pool"]) == set(POOLS)


@pytest.mark.parametrize("key", [key for key in CHOICES if key.startswith("export ")])
def test_of_export_others_are_refused_with_these(vptkit, key):
    option = key.split()[1]
    code, _, err = vptkit("export", "a.safetensors", "-o", "a.vptk", option, "nonsense")
    assert code == 2
    assert f"expected {' or '.join(CHOICES[key])}" in err


def test_of_imports():
    pytest.importorskip("torch")
    from vptkit.tune.importers import import_adapter

    assert CHOICES["import --format"] == import_adapter.LAYOUTS
    assert set(CHOICES["import --pool"]) == set(import_adapter._POOLS) - {None}


def test_an_option_is_found_by_any_spelling():
    assert choices_of("run", ["--backend"])[0] == "auto"
    assert choices_of("import", ["-x", "--format"]) == (
        "vpt",
        "bpt",
        "e2vpt",
        "peft",
        "linear",
        "ssf",
        "repadapter",
    )
    assert choices_of("run", ["--top-k"]) == ()
