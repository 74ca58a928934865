"""`vptkit import`: what the command gives to the library."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.cli.tune_commands.import_adapter import import_
from vptkit.errors import MissingExtraError
from vptkit.tune.importers import import_adapter as module


def test_options_reach_the_importer(tmp_path, monkeypatch, capsys):
    """The backbone's arguments of the file, the input size over them."""
    asked = []

    def bring(file, output, config, *, force):
        asked.append((file, output, config, force))
        return {"adapter": str(output)}

    monkeypatch.setattr(module, "import_adapter", bring)
    settings = tmp_path / "run.toml"
    settings.write_text("[backbone_args]\nimg_size = 32\ndepth = 2\n")
    import_(
        Path("x.pth"),
        Path("a.safetensors"),
        layout="bpt",
        backbone="vit",
        settings=settings,
        image_size=48,
        pool="avg",
        force=True,
        as_json=True,
    )
    ((file, output, config, force),) = asked
    assert (file, output, force) == (Path("x.pth"), Path("a.safetensors"), True)
    assert config.backbone_args == {"img_size": 48, "depth": 2}
    assert (config.layout, config.pool, config.preprocess) == ("bpt", "avg", None)
    assert json.loads(capsys.readouterr().out) == {"adapter": "a.safetensors"}


def test_what_it_says(tmp_path, monkeypatch, capsys):
    document = {
        "format": "peft",
        "method": "lora",
        "insert": "none",
        "prompts": 0,
        "layer_norms": 25,
        "changed_tensors": 24,
        "classes": 5,
        "backbone_compared": 0,
    }
    monkeypatch.setattr(module, "import_adapter", lambda *_, **__: document)
    (tmp_path / "a.safetensors").touch()
    import_(Path("peft"), tmp_path / "a.safetensors", backbone="vit_tiny_patch16_224")
    said = capsys.readouterr().out
    assert said.startswith("from peft: 25 LayerNorms, lora in 24 tensors and a head of 5 classes\n")
    document |= {"layer_norms": 0, "changed_tensors": 0}
    import_(Path("peft"), tmp_path / "a.safetensors", backbone="vit_tiny_patch16_224")
    assert capsys.readouterr().out.startswith("from peft: a head of 5 classes\n")


def test_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"import needs .*torchvision.*vptkit\[tune\]"):
        import_(Path("x.pth"), Path("a.safetensors"), layout="bpt", backbone="vit")
