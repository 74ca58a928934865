"""The bundle: the manifest holds the folder together, and whatever differs is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vptkit.atomic_files import sha256_of_file
from vptkit.errors import BundleError
from vptkit.formats.bundle import FORMAT, MANIFEST, MODEL, open_bundle, write_manifest


def test_an_opened_bundle(make_bundle, tiny_spec, tiny_model):
    path = make_bundle("colours", batch=2)
    bundle = open_bundle(path)
    assert bundle.path == path
    assert bundle.model == path / "model.onnx"
    assert (bundle.name, bundle.adapter_names) == ("colours", ("colours",))
    assert bundle.labels == ("red", "green", "blue")
    assert (bundle.precision, bundle.input, bundle.batch) == ("fp32", "images", 2)
    assert bundle.spec == tiny_spec
    assert bundle.preprocess == tiny_model.preprocess
    images, logits = bundle.golden()
    assert images.dtype == np.uint8
    assert images.shape == (5, 24, 16, 3)
    assert np.array_equal(logits, tiny_model.logits(images))


def test_a_dynamic_batch_and_no_golden_answers(make_bundle):
    bundle = open_bundle(make_bundle(golden=False, feed="pixels"))
    assert bundle.batch is None
    assert bundle.input == "pixels"
    assert bundle.golden() is None


def test_the_manifest_lists_every_other_file(make_bundle):
    path = make_bundle()
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["format"] == FORMAT == "vptkit.bundle/1"
    assert manifest["files"] == {
        name: sha256_of_file(path / name) for name in ("golden.safetensors", "model.onnx")
    }


def test_the_manifest_is_the_same_bytes_again(make_bundle):
    path = make_bundle()
    before = (path / MANIFEST).read_bytes()
    document = json.loads(before)
    kept = {k: v for k, v in reversed(document.items()) if k not in ("format", "files")}
    write_manifest(path, kept)
    assert (path / MANIFEST).read_bytes() == before
    assert before.isascii()


@pytest.mark.parametrize("change", [{"colour": 1}, {"macs": ...}])
def test_a_manifest_with_other_fields_is_not_written(make_bundle, change):
    path = make_bundle()
    document = json.loads((path / MANIFEST).read_text()) | change
    kept = {k: v for k, v in document.items() if k not in ("format", "files") and v is not ...}
    with pytest.raises(BundleError, match=next(iter(change))):
        write_manifest(path, kept)


@pytest.mark.parametrize("name", ["model.onnx", "golden.safetensors"])
def test_one_changed_byte(make_bundle, name):
    path = make_bundle()
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} differs from its digest in manifest.json"):
        open_bundle(path)
    assert open_bundle(path, verify=False).path == path


@pytest.mark.parametrize("name", ["model.onnx", "golden.safetensors"])
def test_a_missing_file(make_bundle, name):
    path = make_bundle()
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(path)


def test_files_beside_the_listed_ones_do_no_harm(make_bundle):
    """Such as engines/, a cache."""
    path = make_bundle()
    (path / "engines").mkdir()
    (path / "engines" / "x.engine").write_bytes(b"plan")
    assert open_bundle(path).labels == ("red", "green", "blue")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname"])
def test_a_file_outside_is_not_part_of_a_bundle(make_bundle, edit_manifest, name):
    path = make_bundle()
    edit_manifest(path, files={"model.onnx": sha256_of_file(path / MODEL), name: "0" * 64})
    with pytest.raises(BundleError):
        open_bundle(path)


def test_not_a_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"nothing: no such folder$"):
        open_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match="an empty folder, not a bundle"):
        open_bundle(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="not a bundle"):
        open_bundle(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", '{"format": "vptkit.bundle/1",'])
def test_a_manifest_that_is_not_json(make_bundle, text):
    path = make_bundle()
    (path / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="not valid JSON"):
        open_bundle(path)


@pytest.mark.parametrize("found", ["vptkit.bundle/2", "vptkit.adapter/1", None])
def test_another_format(make_bundle, edit_manifest, found):
    path = make_bundle()
    edit_manifest(path, format=found)
    with pytest.raises(BundleError, match=f"format is {found!r}, this vptkit reads"):
        open_bundle(path)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"vptkit"'])
def test_a_manifest_that_is_no_object(make_bundle, text):
    path = make_bundle()
    (path / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="not a JSON object"):
        open_bundle(path)


@pytest.mark.parametrize(
    "name", ["name", "files", "backbone", "adapters", "preprocess", "inputs", "batch", "versions"]
)
def test_a_missing_or_unknown_field(make_bundle, name):
    path = make_bundle()
    document = json.loads((path / MANIFEST).read_text())
    del document[name]
    (path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=rf"fields \['{name}'\] are amiss"):
        open_bundle(path)


def test_a_bad_spec_or_preprocessing(make_bundle, edit_manifest, tiny_spec, tiny_model):
    path = make_bundle()
    spec = tiny_spec.to_json() | {"width": 9}
    backbone = {"name": "x", "args": {}, "spec": spec, "sha256": None}
    edit_manifest(path, backbone=backbone)
    with pytest.raises(BundleError, match=r"manifest\.json: .*width 9 is not a multiple of 2"):
        open_bundle(path)
    backbone["spec"] = tiny_spec.to_json()
    edit_manifest(path, backbone=backbone, preprocess=tiny_model.preprocess.to_json() | {"std": 0})
    with pytest.raises(BundleError, match=r"manifest\.json: .*preprocess"):
        open_bundle(path)
