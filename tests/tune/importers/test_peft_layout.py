"""Folders as PEFT saves them: made here in its layout, taken strictly."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from tests.support.foreign_checkpoints import (  # noqa: E402
    HEAD,
    NAME,
    TINY,
    D,
    L,
    draw,
    pixels_of,
    require_parity,
)
from vptkit.errors import AdapterError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.formats.backbone_weights import norm_shapes  # noqa: E402
from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter  # noqa: E402
from vptkit.tune.importers.peft_layout import from_peft, peft_config, peft_file  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


PEFT_CONFIG = {"peft_type": "LN_TUNING", "target_modules": r"(.*\.norm[12]|norm)$"}


def transformers_name(name: str, container: str) -> str:
    name = re.sub(r"blocks\.(\d+)", rf"{container}.\1", name)
    name = name.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
    return "vit." + re.sub(r"^norm", "layernorm", name)


@pytest.fixture
def peft(tmp_path: Path, make_vit: Callable[..., Any]) -> Callable[..., Any]:
    """A function: write a folder as `save_pretrained` does; returns it and the tuned model."""
    from safetensors.torch import save_file

    def make(style: str = "timm", drop: str = "-", **config: Any) -> tuple[Path, Any]:
        model = make_vit()
        state = {}
        with torch.no_grad():
            for i, (name, value) in enumerate(model.named_parameters()):
                if "norm" not in name:
                    continue
                value.copy_(value + 0.5 * draw(D, seed=100 + i))
                module, _, end = name.rpartition(".")
                theirs = module if style == "timm" else transformers_name(module, style)
                state[f"base_model.model.{theirs}.ln_tuning_layers.{end}"] = value.clone()
        head = "head" if style == "timm" else "classifier"
        state |= {f"base_model.model.{head}.{k}": v for k, v in HEAD.items()}
        folder = tmp_path / "peft"
        folder.mkdir(exist_ok=True)
        state = {k: v for k, v in state.items() if drop not in k}
        save_file(state, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(PEFT_CONFIG | config))
        return folder, model

    return make


@pytest.fixture
def bring_peft(tmp_path: Path, weights: Path) -> Callable[..., Any]:
    def run(folder: Path, **options: Any) -> Any:
        config = ImportConfig(
            layout="peft-ln", backbone=NAME, backbone_args=dict(TINY), weights=weights, **options
        )
        import_adapter(folder, tmp_path / "ln.safetensors", config, force=True)
        return read_adapter(tmp_path / "ln.safetensors")

    return run


@pytest.mark.parametrize("style", ["timm", "layers", "encoder.layer"])
def test_peft_layer_norms(peft, bring_peft, make_vit, style):
    targets = ["layernorm_before", "layernorm_after", "layernorm"]
    folder, tuned = peft(style, **({} if style == "timm" else {"target_modules": targets}))
    adapter = bring_peft(folder)
    pixels = pixels_of(adapter)
    logits = tuned.forward_features(pixels)[:, 0] @ HEAD["weight"].T + HEAD["bias"]
    require_parity(adapter, logits)
    plain = make_vit().forward_features(pixels)[:, 0] @ HEAD["weight"].T + HEAD["bias"]
    with pytest.raises(AssertionError):
        require_parity(adapter, plain)
    assert (adapter.method, adapter.insert, adapter.pool) == ("ln", "none", "token")
    assert len(adapter.layer_norms()) == 2 * (2 * L + 1)
    assert adapter.preprocess.mean == (0.5, 0.5, 0.5)  # timm's for this model
    file = bring_peft(folder / "adapter_model.safetensors")
    np.testing.assert_array_equal(file.golden()[1], adapter.golden()[1])


@pytest.mark.parametrize(
    ("style", "drop", "config", "message"),
    [
        ("timm", "blocks.1.norm2.", {}, r"missing: blocks\.1\.norm2\.weight, blocks\.1\.norm2\.b"),
        ("timm", "norm1.ln_tuning_layers.bias", {"target_modules": []}, "missing: blocks.0.norm1"),
        ("layers", "layernorm_after", {"target_modules": ["layernorm_after"]}, "missing: blocks.0"),
        ("timm", "-", {"peft_type": "LORA"}, "peft_type is 'LORA'"),
        ("timm", "head.bias", {}, "head's bias is missing"),
        ("timm", "ln_tuning", {}, "names are missing"),
    ],
)
def test_peft_is_taken_strictly(peft, bring_peft, style, drop, config, message):
    folder, _ = peft(style, drop, **config)
    with pytest.raises(AdapterError, match=message):
        bring_peft(folder)


def test_peft_of_some_norms(peft, bring_peft):
    """What the configuration does not target may be absent."""
    only = {"target_modules": ["norm1", "norm2", "norm"], "exclude_modules": ["norm2"]}
    folder, _ = peft("timm", "norm2.", **only)
    assert len(bring_peft(folder).layer_norms()) == 2 * (L + 1)


def test_peft_of_another_module(peft, bring_peft):
    from safetensors.torch import load_file, save_file

    folder, _ = peft()
    state = load_file(folder / "adapter_model.safetensors")
    state["base_model.model.blocks.0.mlp.fc1.ln_tuning_layers.weight"] = draw(4, D)
    save_file(state, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"nor its head: base_model\.model\.blocks\.0\.mlp"):
        bring_peft(folder)


def test_norms_of_a_spec_need_no_model(tiny_spec):
    """Under timm's names, and under those of both versions of transformers."""
    names = {
        "timm": ("blocks.1.norm1", "norm"),
        "old": ("vit.encoder.layer.1.layernorm_before", "vit.layernorm"),
        "new": ("vit.layers.1.layernorm_before", "vit.layernorm"),
    }
    for style, pair in names.items():
        state = {
            f"base_model.model.{name}.ln_tuning_layers.{part}": np.full(8, i + 1.0)
            for i, name in enumerate(pair)
            for part in ("weight", "bias")
        }
        config = {"peft_type": "LN_TUNING", "target_modules": list(pair)}
        found = from_peft(state, config, tiny_spec)
        assert sorted(found.tensors) == sorted(
            f"ln.{name}.{part}" for name in names["timm"] for part in ("weight", "bias")
        )
        assert found.tensors["ln.norm.bias"].tolist() == [2.0] * 8
        assert found.pool == (None if style == "timm" else "token")


def test_a_norm_that_is_targeted_and_not_there(tiny_spec):
    state = {f"base_model.model.norm.ln_tuning_layers.{k}": np.ones(8) for k in ("weight", "bias")}
    config = {"peft_type": "LN_TUNING", "target_modules": ["norm"]}
    assert len(from_peft(state, config, tiny_spec).tensors) == 2 < len(norm_shapes(tiny_spec))
    with pytest.raises(AdapterError, match=r"missing: blocks\.0\.norm2\.weight"):
        from_peft(state, {**config, "target_modules": ["norm", "blocks.0.norm2"]}, tiny_spec)
    config |= {"target_modules": ".*norm.*", "exclude_modules": r"blocks\..*"}
    assert len(from_peft(state, config, tiny_spec).tensors) == 2


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
        PEFT_CONFIG["target_modules"],
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
