"""Which file a path means; shards are a stranger's list of names."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vptkit.checkpoints.weights_files import INDEX, folder_json, opened_weights_file, weights_file
from vptkit.errors import BackboneError
from vptkit.formats.tensor_file import write_tensors

if TYPE_CHECKING:
    from pathlib import Path

ONE = np.ones(3, np.float32)


def index(folder: Path, places: Any) -> Path:
    path = folder / f"model.safetensors{INDEX}"
    path.write_text(json.dumps({"weight_map": places}))
    return path


@pytest.mark.parametrize(
    ("there", "meant"),
    [
        (("model.safetensors", "pytorch_model.bin", "other.safetensors"), "model.safetensors"),
        (
            (f"model.safetensors{INDEX}", "a.safetensors", "b.safetensors"),
            f"model.safetensors{INDEX}",
        ),
        (("pytorch_model.bin", "training_args.bin"), "pytorch_model.bin"),
        (("mae.pth", "README.md"), "mae.pth"),
        (("open_clip_model.safetensors", "model.txt"), "open_clip_model.safetensors"),
    ],
)
def test_the_file_in_a_folder(tmp_path, there, meant):
    for name in there:
        (tmp_path / name).write_text("{}")
    assert weights_file(tmp_path) == tmp_path / meant


def test_shards(tmp_path):
    write_tensors(tmp_path / "1.safetensors", {"a": ONE, "not listed": ONE})
    write_tensors(tmp_path / "2.safetensors", {"b": ONE * 2})
    places = {"a": "1.safetensors", "b": "2.safetensors"}
    with opened_weights_file(index(tmp_path, places)) as found:
        assert sorted(found.arrays) == ["a", "b"]
        np.testing.assert_array_equal(found.arrays["b"], ONE * 2)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"a": "../1.safetensors"}, "does not stay in the folder"),
        ({"a": "/etc/passwd"}, "does not stay in the folder"),
        ({"a": "inner/1.safetensors"}, "does not stay in the folder"),
        ({"a": "none.safetensors"}, "no such file"),
        ({"b": "1.safetensors"}, "lacks b, which model.safetensors.index.json places there"),
        ({"a": "pipe"}, "a FIFO"),
        ({"a": "link"}, "expected it in"),
        ({"a": 3}, "weight_map is no table"),
        ([], "weight_map is no table"),
        ({f"t{i}": f"{i}" for i in range(1001)}, "1001 shards"),
    ],
)
def test_shards_of_a_stranger(tmp_path, places, words):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_tensors(tmp_path / "1.safetensors", {"a": ONE})
    write_tensors(folder / "1.safetensors", {"a": ONE})
    (folder / "link").symlink_to(tmp_path / "1.safetensors")
    os.mkfifo(folder / "pipe")
    stranger = index(folder, places)
    with pytest.raises(BackboneError, match=words), opened_weights_file(stranger):
        pass


def test_a_document_that_is_not_there(tmp_path):
    assert folder_json(tmp_path, "config.json") is None
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(BackboneError, match=r"config\.json"):
        folder_json(tmp_path, "config.json")
