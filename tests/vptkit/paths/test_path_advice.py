"""Whatever a command is given instead of what it reads, it says what that is and what was meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.support.command_errors import assert_error
from vptkit.errors import BundleError
from vptkit.formats.bundle import open_bundle
from vptkit.paths.path_advice import advice


@pytest.fixture
def things(tmp_path, make_bundle, tiny_adapter, colour_folders, monkeypatch) -> Path:
    """A folder with one of each, which is the current one: names are typed as users do."""
    folder = tmp_path / "things"
    folder.mkdir()
    shutil.copytree(make_bundle(), folder / "f.vptk")
    shutil.copytree(folder / "f.vptk", folder / "good.vptk")
    (folder / "f.vptk" / "adapter.safetensors").write_bytes(tiny_adapter.read_bytes())
    shutil.copy(tiny_adapter, folder / "a.safetensors")
    shutil.copytree(colour_folders, folder / "flowers")
    (folder / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "flat" / "1.png")
    shutil.copy(folder / "flat" / "1.png", folder / "1.png")
    save_file({"blocks.0.norm1.weight": np.ones(4, np.float32)}, folder / "w.safetensors")
    save_file({"base_model.x.lora_A": np.ones(4, np.float32)}, folder / "lora.safetensors")
    (folder / "net.onnx").write_bytes(b"\x08\x07")
    (folder / "real.pth").write_bytes(b"PK\x03\x04 archive of torch")
    (folder / "e.engine").write_bytes(b"plan")
    (folder / "photos.zip").write_bytes(b"PK\x03\x04")
    (folder / "v.mp4").write_bytes(b"video")
    (folder / "cut.safetensors").write_bytes(b"\xff" * 20)
    (folder / "empty").mkdir()
    (folder / "hub").mkdir()
    shutil.copy(folder / "w.safetensors", folder / "hub" / "model.safetensors")
    (folder / "n").mkdir()
    shutil.copytree(folder / "good.vptk", folder / "n" / "deep.vptk")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("run a.safetensors flat", ["an adapter", "vptkit export a.safetensors -o a.vptk"]),
        ("check a.safetensors", ["an adapter", "vptkit export a.safetensors -o a.vptk"]),
        ("build a.safetensors", ["an adapter", "vptkit export a.safetensors -o a.vptk"]),
        ("profile a.safetensors good.vptk", ["an adapter", "vptkit export a.safetensors"]),
        ("eval a.safetensors flowers", ["an adapter", "vptkit export a.safetensors -o a.vptk"]),
        ("bank list a.safetensors", ["an adapter", "vptkit export a.safetensors -o a.vptk"]),
        ("run w.safetensors flat", ["weights of a model", "--weights w.safetensors"]),
        ("run lora.safetensors flat", ["PEFT", "vptkit import lora.safetensors"]),
        ("run nothere.vptk flat", ["no such folder", "here lies f.vptk, good.vptk"]),
        ("run god.vptk flat", ["no such folder", "vptkit run good.vptk flat"]),
        ("run good flat", ["no such folder", "vptkit run good.vptk flat"]),
        ("run GOOD.vptk flat", ["no such folder", "vptkit run good.vptk flat"]),
        ("run deep.vptk flat", ["it lies in n", "vptkit run n/deep.vptk flat"]),
        ("run n/good.vptk flat", ["it lies in .: good.vptk", "vptkit run good.vptk flat"]),
        ("run no/good.vptk flat", ["good.vptk"]),
        ("run n flat", ["deep.vptk", "vptkit run n/deep.vptk flat"]),
        ("run flat good.vptk", ["swapped", "vptkit run good.vptk flat"]),
        ("run 1.png good.vptk", ["swapped", "vptkit run good.vptk 1.png"]),
        ("eval flowers good.vptk", ["swapped", "vptkit eval good.vptk flowers"]),
        ("run flat a.safetensors", ["a folder of images", "vptkit run NAME.vptk flat"]),
        ("run f.vptk/model.onnx flat", ["a file of the bundle f.vptk", "vptkit run f.vptk flat"]),
        ("run net.onnx flat", ["an ONNX file", "vptkit export"]),
        ("run real.pth flat", ["a PyTorch file"]),
        ("run e.engine flat", ["a TensorRT engine", "NAME.vptk"]),
        ("run empty flat", ["an empty folder, not a bundle"]),
        ("run good.vptk f.vptk", ["a baked bundle, not images"]),
        ("run good.vptk photos.zip", ["an archive (.zip), not images", "unzip photos.zip"]),
        ("run good.vptk v.mp4", ["v.mp4", "no video that FFmpeg can read"]),
        ("run good.vptk a.safetensors", ["an adapter, not images"]),
        ("run good.vptk flot", ["vptkit run good.vptk flat"]),
        ("export f.vptk -o g.vptk", ["exported already", "vptkit run f.vptk"]),
        ("export w.safetensors -o g.vptk", ["weights of a model", "vptkit tune"]),
        ("export a -o g.vptk", ["vptkit export a.safetensors -o g.vptk"]),
        ("export w.safetensors --weights a.safetensors -o g", ["swapped", "--weights w.saf"]),
        ("export real.pth -o g.vptk", ["a PyTorch file", "vptkit import"]),
        ("bank list good.vptk", ["a baked bundle, not a bank", "--layout bank"]),
        ("bank add good.vptk f.vptk", ["vptkit bank add good.vptk f.vptk/adapter.safetensors"]),
        ("eval good.vptk flat", ["a folder of images, not a data set", "vptkit run"]),
        ("eval good.vptk flower", ["vptkit eval good.vptk flowers"]),
        ("eval good.vptk photos.zip", ["unzip photos.zip -d photos"]),
        ("eval good.vptk f.vptk", ["a baked bundle, not a data set"]),
        ("eval good.vptk v.mp4", ["a video", "ffmpeg"]),
        ("inspect w.safetensors", ["weights of a model", "vptkit tune"]),
        ("inspect flat", ["a folder of images"]),
        ("inspect net.onnx", ["an ONNX file"]),
        ("inspect real.pth", ["a PyTorch file"]),
        ("inspect f.vptk/model.onnx", ["vptkit inspect f.vptk"]),
        ("inspect nothing", ["no such file or folder", "here lies"]),
        ("inspect photos.zip", ["an archive"]),
    ],
)
def test_says_what_it_is_and_what_was_meant(things, vptkit, command, parts):
    assert_error(vptkit(*command.split()), 2, *parts)


@pytest.mark.parametrize("name", ["cut.safetensors", "f.vptk"])
def test_what_its_reader_knows_better_is_left_to_it(things, name):
    wanted = "bundle" if name == "f.vptk" else "adapter"
    assert advice(things / name, wanted) is None


def test_a_program_is_told_without_a_command(things):
    with pytest.raises(BundleError, match=r"an adapter, not a bundle\. First: vptkit export"):
        open_bundle(things / "a.safetensors")
    with pytest.raises(BundleError, match=r"Did you mean .*good\.vptk\?$"):
        open_bundle(things / "good")


def test_several_bundles_are_not_swapped(things, vptkit):
    result = vptkit("profile", "flat", "good.vptk")
    assert_error(result, 2, "a folder of images, not a bundle")
    assert "swapped" not in result[2]


def test_a_long_command_is_not_repeated(things, vptkit):
    result = vptkit("run", "good", *["flat/1.png"] * 50)
    assert_error(result, 2, "Did you mean good.vptk?")
    assert len(result[2]) < 200


def test_names_are_quoted_for_the_shell(things, vptkit):
    (things / "my good.vptk").symlink_to(things / "good.vptk")
    assert_error(vptkit("run", "my good", "flat"), 2, "vptkit run 'my good.vptk' flat")


def test_a_folder_of_a_data_set_is_not_a_bundle_though_it_has_a_manifest(things, vptkit):
    (things / "flat" / "manifest.json").write_text(json.dumps({"format": "other"}))
    assert_error(vptkit("eval", "good.vptk", "flat"), 2, "a folder of images, not a data set")


def test_images_that_are_called_as_the_bundle_beside_them(things):
    shutil.copytree(things / "flowers", things / "good")
    assert "Beside it lies good.vptk" in str(advice(Path("good"), "bundle"))
