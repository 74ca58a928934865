"""An engine is described by its record, if that is about it."""

from __future__ import annotations

import hashlib
import json

import pytest

from vptkit.errors import BundleError, VptkitError
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.formats.bundle import ADAPTER, write_manifest
from vptkit.formats.summary import summarize


def engine(folder, **record):
    path = folder / "fp16.engine"
    path.write_bytes(b"a plan")
    digest = hashlib.sha256(b"a plan").hexdigest()
    document = {"sha256": digest, "library": "tensorrt", "layers": [1, 2, 3], **record}
    path.with_suffix(".json").write_text(json.dumps(document))
    return path


def test_an_engine_and_the_number_of_its_layers(tmp_path):
    found = summarize(engine(tmp_path))
    assert (found["kind"], found["library"], found["layers"]) == ("engine", "tensorrt", 3)


def test_a_record_of_another_plan(tmp_path):
    path = engine(tmp_path, sha256="0" * 64)
    with pytest.raises(BundleError, match=r"is not the plan that fp16\.json is about"):
        summarize(path)


@pytest.mark.parametrize("record", [None, "not JSON", "[1, 2]"])
def test_a_record_that_cannot_be_read(tmp_path, record):
    path = engine(tmp_path)
    path.with_suffix(".json").unlink()
    if record is not None:
        path.with_suffix(".json").write_text(record)
    with pytest.raises(BundleError, match=r"no readable record fp16\.json .*Build the engine"):
        summarize(path)


def test_the_sizes_add_up(make_bundle):
    found = summarize(make_bundle())
    assert found["bytes"] == sum(found["files"].values()) > 0
    assert "spec" not in found["backbone"]  # long, and nothing to read


def test_the_temperature_is_told(tiny_adapter, make_bundle, tmp_path):
    """Of an adapter, and of the adapter in a bundle; nothing of those that were never asked."""
    assert "confidence" not in summarize(tiny_adapter)
    assert "confidence" not in summarize(make_bundle())
    adapter = read_adapter(tiny_adapter)
    told = {"temperature": 1.5, "val_loss": [0.7, 0.6], "ece": [0.2, 0.1]}
    adapter.train["confidence"] = told
    write_adapter(tmp_path / "new.safetensors", adapter)
    assert summarize(tmp_path / "new.safetensors")["confidence"] == told
    bundle = make_bundle()
    write_adapter(bundle / ADAPTER, adapter)
    manifest = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, {k: v for k, v in manifest.items() if k not in ("format", "files")})
    assert summarize(bundle)["confidence"] == told


def test_nothing(tmp_path):
    with pytest.raises(VptkitError, match="nowhere: no such file or folder"):
        summarize(tmp_path / "nowhere")
