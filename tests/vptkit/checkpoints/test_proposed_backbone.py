from __future__ import annotations

import json

import numpy as np
import pytest

from vptkit.checkpoints.proposed_backbone import named_backbone
from vptkit.errors import BackboneError
from vptkit.formats.tensor_file import write_tensors


@pytest.fixture
def snapshot(tmp_path):
    write_tensors(tmp_path / "model.safetensors", {"x": np.ones(1, np.float32)})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": 384}))
    return tmp_path


def test_a_folder_names_it(snapshot, capsys):
    assert named_backbone(None, {}, snapshot) == ("vit_base_patch16_384", {})
    assert "backbone: vit_base_patch16_384, as" in capsys.readouterr().err
    file = snapshot / "model.safetensors"
    assert named_backbone(None, {"img_size": 96}, file)[1] == {"img_size": 96}


def test_whoever_names_one_means_it(snapshot):
    given = named_backbone("vit_tiny_patch16_224", {"img_size": 64}, snapshot)
    assert given == ("vit_tiny_patch16_224", {"img_size": 64})


def test_a_file_alone_is_a_question_with_candidates(tmp_path):
    tensors = {"patch_embed.proj.weight": np.ones((192, 3, 16, 16), np.float32)}
    tensors |= {f"blocks.{i}.norm1.weight": np.ones(192, np.float32) for i in range(12)}
    write_tensors(tmp_path / "w.safetensors", tensors)
    with pytest.raises(BackboneError, match=r"pass --backbone NAME, as \w*_tiny_\w+ or"):
        named_backbone(None, {}, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match="pass --backbone NAME, a timm model name"):
        named_backbone(None, {}, None)
