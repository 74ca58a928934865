"""What lies at a path is told by a bounded look, whatever a stranger put there."""

from __future__ import annotations

import json
import os
import struct
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from vptkit.paths.path_kind import kind_of, names_below


def _header(document: object) -> bytes:
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.safetensors", _header({"__metadata__": {"vptkit": "{}"}}), "adapter"),
        (
            "t.checkpoint.safetensors",
            _header({"__metadata__": {"vptkit": '{"format": "vptkit.checkpoint/1"}'}}),
            "checkpoint",
        ),
        ("w.safetensors", _header({"head.weight": {}}), "weights"),
        ("no_suffix", _header({"head.weight": {}}), "weights"),
        ("l.safetensors", _header({"base_model.model.q.lora_A.weight": {}}), "peft"),
        ("d.safetensors", b"\xff" * 30, "damaged"),
        ("e.safetensors", b"", "damaged"),
        ("bomb.safetensors", struct.pack("<Q", 2**40) + b"{", "damaged"),
        ("p.safetensors", b"PK\x03\x04....", "torch"),
        ("x.pth", b"", "torch"),
        ("x.pt", b"PK\x03\x04", "torch"),
        ("pytorch_model.bin", b"PK\x03\x04", "torch"),
        ("x.ckpt", b"\x80\x02", "torch"),
        ("x.onnx", b"", "graph"),
        ("x.engine", b"", "engine"),
        ("x.plan", b"", "engine"),
        ("x.zip", b"PK\x03\x04", "archive"),
        ("x.tar.gz", b"\x1f\x8b", "archive"),
        ("x.JPG", b"", "image"),
        ("x.heic", b"", "image"),
        ("x.mp4", b"", "video"),
        ("x.csv", b"path,label", "data file"),
        ("x.tar", b"", "data file"),
        ("notes.txt", b"notes", "file"),
    ],
)
def test_files(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    assert kind_of(tmp_path / name).kind == kind


def test_folders(tmp_path, make_bundle, colour_folders):
    bundle = make_bundle()
    assert kind_of(bundle).kind == "bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "layout": "bank"}))
    assert kind_of(bundle).kind == "bank"
    assert kind_of(bundle / "model.onnx") == kind_of(bundle / "golden.safetensors")
    assert kind_of(bundle / "model.onnx").owner == bundle
    assert kind_of(colour_folders).kind == "data"
    assert kind_of(colour_folders / "red").kind == "images"
    for name in ("empty", "hub", "peft", "split/train", "odd"):
        (tmp_path / "f" / name).mkdir(parents=True)
    assert kind_of(tmp_path / "f" / "empty").kind == "empty"
    assert kind_of(tmp_path / "f" / "split").kind == "data"
    (tmp_path / "f" / "peft" / "adapter_config.json").write_text("{}")
    assert kind_of(tmp_path / "f" / "peft").kind == "peft"
    save_file({"x": np.ones(1)}, tmp_path / "f" / "hub" / "model.safetensors")
    found = kind_of(tmp_path / "f" / "hub")
    assert (found.kind, found.inner) == ("weights folder", tmp_path / "f/hub/model.safetensors")
    (tmp_path / "f" / "odd" / "manifest.json").write_text("[" * 100_000)
    assert kind_of(tmp_path / "f" / "odd").kind == "folder"


@pytest.mark.parametrize("name", ["nothing", "x" * 300, "a/" * 3000, "nul\0"])
def test_names_without_anything(tmp_path, name):
    assert kind_of(tmp_path / name).kind in ("missing", "file")


def test_fifos_links_and_large_folders_cost_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "dangling.safetensors").symlink_to("nowhere")
    (tmp_path / "many").mkdir()
    for i in range(3000):
        (tmp_path / "many" / f"{i}.txt").touch()
    begun = time.perf_counter()
    assert kind_of(tmp_path / "pipe.safetensors").kind == "file"
    assert kind_of(tmp_path / "dangling.safetensors").kind == "file"
    assert kind_of(tmp_path / "many").kind == "folder"
    assert len(names_below(tmp_path / "many")) == 2000
    assert time.perf_counter() - begun < 1


def test_images_beside_folders_are_a_data_set(tmp_path):
    (tmp_path / "notes").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    assert kind_of(tmp_path).kind == "data"
