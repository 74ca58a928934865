"""A folder of PEFT, its configuration, and which modules that means."""

from __future__ import annotations

import json
import os
import time

import pytest

from vptkit.errors import AdapterError
from vptkit.tune.peft_adapters.adapter_folder import (
    is_peft,
    pattern_value,
    peft_config,
    peft_file,
    targets,
    untargeted,
)


def test_the_files_of_a_folder(tmp_path):
    with pytest.raises(AdapterError, match=r"has no adapter_model\.safetensors"):
        peft_file(tmp_path)
    (tmp_path / "adapter_model.bin").touch()
    assert peft_file(tmp_path).name == "adapter_model.bin"
    (tmp_path / "adapter_model.safetensors").touch()
    assert peft_file(tmp_path).name == "adapter_model.safetensors"
    with pytest.raises(AdapterError, match=r"no readable adapter_config\.json"):
        peft_config(tmp_path / "adapter_config.json")
    (tmp_path / "adapter_config.json").write_text("[1]")
    with pytest.raises(AdapterError, match="not a JSON object but list"):
        peft_config(tmp_path / "adapter_config.json")


def configured(folder, text):
    (folder / "adapter_config.json").write_text(text)
    return peft_config(folder / "adapter_config.json")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "' + "x" * 2_000_000 + '"}',
        *(f'{{"target_modules": {value}}}' for value in ("3", "true", '{"a": 1}', "[1]", "[[]]")),
        '{"exclude_modules": 3}',
        '{"rank_pattern": [1]}',
        '{"rank_pattern": {"a": -1}}',
        '{"alpha_pattern": {"a": "x"}}',
        '{"alpha_pattern": {"(a+)+": 1}}',
        '{"n_frequency_pattern": {"(.*)*b": 1}}',
        '{"layers_to_transform": "x"}',
        '{"layers_to_transform": [true]}',
        '{"layers_pattern": "(a+)+"}',
        '{"layers_pattern": ["(a+)+"]}',
        '{"target_modules": [' + '"a",' * 3000 + '"a"]}',
    ],
)
def test_configurations_of_a_stranger(tmp_path, text):
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        configured(tmp_path, text)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(.*)*b",
        "(.|.)+b",
        "((a?){30}){30}",
        ".*.*.*.*.*.*.*.*.*b",
        "a?" * 30,
        r"(.*)\1\1\1b",
        "(?=(.*))b",
        "([a)]+)+b",
        "a" * 2000,
        "(",
        "*",
    ],
)
def test_a_pattern_that_runs_for_ever(tmp_path, pattern):
    begun = time.perf_counter()
    with pytest.raises(AdapterError, match="target_modules is"):
        configured(tmp_path, json.dumps({"target_modules": pattern}))
    assert time.perf_counter() - begun < 1


def test_patterns_that_are_in_use(tmp_path):
    for pattern in (
        r"(.*\.norm[12]|norm)$",
        r".*\.(layernorm_before|layernorm_after)",
        r"^vit\.layers\.[0-9]+\..*norm.*$",
        r"(?:vit\.)?layernorm",
        "all-linear",
    ):
        assert configured(tmp_path, json.dumps({"target_modules": pattern}))


def test_a_configuration_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "adapter_config.json")
    with pytest.raises(AdapterError, match="a FIFO, expected a regular file"):
        peft_config(tmp_path / "adapter_config.json")


def test_what_is_a_folder_of_peft(tmp_path):
    assert not is_peft(tmp_path)
    (tmp_path / "adapter_model.safetensors").touch()
    assert not is_peft(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert is_peft(tmp_path)
    assert is_peft(tmp_path / "adapter_model.safetensors")
    (tmp_path / "other.safetensors").touch()
    assert not is_peft(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("config", "meant"),
    [
        ({"target_modules": ["qkv"]}, {"blocks.0.attn.qkv", "blocks.1.attn.qkv"}),
        ({"target_modules": ["kv"]}, set()),
        ({"target_modules": ["blocks.0.attn.qkv"]}, {"blocks.0.attn.qkv"}),
        ({"target_modules": r"blocks\.1\..*"}, {"blocks.1.attn.qkv", "blocks.1.mlp.fc1"}),
        ({"target_modules": "qkv"}, set()),
        ({"target_modules": ["qkv"], "exclude_modules": r".*\.0\..*"}, {"blocks.1.attn.qkv"}),
        (
            {"target_modules": ["qkv"], "layers_pattern": "blocks", "layers_to_transform": 1},
            {"blocks.1.attn.qkv"},
        ),
        ({"target_modules": ["qkv"], "layers_to_transform": [1]}, set()),  # as PEFT: a part before
        ({"target_modules": None}, set()),
    ],
)
def test_modules_that_are_meant(config, meant):
    names = ("blocks.0.attn.qkv", "blocks.1.attn.qkv", "blocks.1.mlp.fc1")
    assert {name for name in names if targets(name, config)} == meant


def test_targets_of_every_linear():
    assert targets("blocks.0.mlp.fc1", {"target_modules": "all-linear"})
    assert untargeted(["qkv", "fc1", "proj"], ["blocks.0.attn.qkv", "blocks.0.mlp.fc1"]) == ["proj"]
    assert untargeted("all-linear", []) == []


def test_a_pattern_of_ranks():
    config = {"lora_alpha": 8, "alpha_pattern": {r"1\..*fc1": 2, "fc1": 3}}

    def alpha(name):
        return pattern_value(name, config, "lora_alpha", "alpha_pattern", 16)

    assert [alpha(f"blocks.{i}.mlp.{m}") for i in (0, 1) for m in ("fc1", "fc2")] == [3, 8, 2, 8]
    config = {}
    assert alpha("fc1") == 16
    for odd in ("8", None, True, [8], 10**400):
        config = {"lora_alpha": odd}
        with pytest.raises(AdapterError, match=r"lora_alpha of fc1 is .*, expected a number"):
            alpha("fc1")
