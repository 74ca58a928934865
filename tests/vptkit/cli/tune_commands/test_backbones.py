"""`vptkit backbones`: fits a terminal, needs neither timm nor torch, and finds what one means."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.children import run_child
from tests.support.command_errors import assert_error
from vptkit.backbones.backbone_table import FIRST_CHOICES, all_backbones
from vptkit.cli.tune_commands.backbones import backbones


@pytest.mark.parametrize("words", [[], ["dinov2"], ["ViT-B/16"], ["deit", "tiny"], ["sapiens"]])
def test_fits_into_80_columns(vptkit, words):
    code, out, err = vptkit("backbones", *words)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "next: vptkit tune DATA --backbone " in out


def test_all_are_listed_with_what_to_try_first(vptkit):
    out = vptkit("backbones")[1]
    assert all(one.name in out for one in all_backbones())
    assert all(f"first choice for {place}: {name}" in out for place, name in FIRST_CHOICES.items())
    assert "measured: vit_base_patch16_224 262 ms" in out


def test_as_json(vptkit):
    document = json.loads(vptkit("backbones", "vit_tiny_patch16_224", "--json")[1])
    first = document["backbones"][0]
    assert first["name"] == "vit_tiny_patch16_224"
    assert first["parameters"] == 5_524_416
    assert first["repository"] == "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert first["licence"] == "apache-2.0"
    assert first["measured_cpu_ms"] is None  # nobody measured it: not said


def test_what_nobody_knows(vptkit):
    assert_error(vptkit("backbones", "resnet50"), 2, "resnet50: no backbone")


def test_neither_timm_nor_torch_is_loaded():
    code = (
        "import sys; from vptkit.cli.tune_commands.backbones import backbones; backbones([]);"
        "print({'timm', 'torch', 'numpy'} & set(sys.modules))"
    )
    assert run_child([sys.executable, "-c", code]).stdout.splitlines()[-1] == "set()"
    assert callable(backbones)
