"""The classes that Triton starts, with a stand-in for its package; the real one: integration."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.stand_in_modules import fake_room
from vptkit.images.image_pixels import pixels_of
from vptkit.runtime.triton.model_repository import TritonOptions, write_model_repository
from vptkit.runtime.triton.python_models import DecodingModel, LabellingModel, SessionModel


@dataclass
class Tensor:
    name: str
    value: Any

    def as_numpy(self):
        return self.value


class TritonError:
    INVALID_ARG, INTERNAL = 1, 2

    def __init__(self, message, code):
        self.message, self.code = message, code


@dataclass
class InferenceResponse:
    output_tensors: list
    error: TritonError | None = None

    def __getitem__(self, name):
        return next(t.value for t in self.output_tensors if t.name == name)


@dataclass
class Asked:
    tensors: dict = field(default_factory=dict)
    given: dict = field(default_factory=dict)

    def parameters(self):
        return json.dumps(self.given)


def by_name(request, name):
    return Tensor(name, request.tensors[name]) if name in request.tensors else None


@pytest.fixture
def utils(monkeypatch):
    members = {"Tensor": Tensor, "TritonError": TritonError, "InferenceResponse": InferenceResponse}
    name = "triton_python_backend_utils"
    fake_room(monkeypatch, name, get_input_tensor_by_name=by_name, **members)


def started(model, folder, **parameters):
    config = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    model.initialize(
        {
            "model_repository": str(folder),
            "model_version": "1",
            "model_config": json.dumps(config),
        }
    )
    return model


@pytest.mark.usefixtures("utils")
def test_a_session_of_a_repository(make_bundle, tmp_path, tiny_model):
    bundle = make_bundle()
    write_model_repository([bundle], tmp_path / "models")
    place = {"session_backend": "cpu", "threads": "1", "trust_engines": "no"}
    folder = tmp_path / "models" / "tiny-0"
    module = ModuleType("model")
    exec((folder / "1" / "model.py").read_text(), module.__dict__)  # as Triton's process does
    assert module.TritonPythonModel is SessionModel
    model = started(module.TritonPythonModel(), folder, bundle="tiny-0.vptk", **place)
    images = np.full((2, 24, 16, 3), 40, np.uint8)
    images[1, ..., 2] = 250
    good, bad, named = model.execute(
        [
            Asked({"images": images}),
            Asked({"image": np.array([[b"x"]], object)}),
            Asked({"images": images}, {"adapter": "nobody"}),
        ]
    )
    np.testing.assert_allclose(good["logits"], tiny_model.logits(images), rtol=1e-4)
    assert list(good["label"])[1] == "blue"
    assert good["score"].dtype == np.float32
    assert bad.error.code == TritonError.INVALID_ARG
    assert "not an image that Pillow can read" in bad.error.message
    assert "no adapter 'nobody', only tiny" in named.error.message
    model.finalize()
    (late,) = model.execute([Asked({"images": images})])
    assert "is closed" in late.error.message


@pytest.mark.usefixtures("utils")
@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_large_jpegs_are_decoded_as_the_repository_says(make_bundle, tmp_path, tiny_model, decode):
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    encoded = np.array([[(tmp_path / "a.jpg").read_bytes()]], object)
    pixels = {
        how: pixels_of(tmp_path / "a.jpg", tiny_model.preprocess.reading(how))
        for how in ("exact", "fast")
    }
    assert (pixels["exact"] != pixels["fast"]).any()
    bundle = make_bundle()
    write_model_repository([bundle], tmp_path / "models", TritonOptions(decode=decode))
    folder = tmp_path / "models" / "tiny-0"
    config = (folder / "config.pbtxt").read_text()
    assert f'key: "decode"\n  value {{\n    string_value: "{decode}"\n' in config
    place = {"session_backend": "cpu", "threads": "1", "trust_engines": "no", "decode": decode}
    model = started(SessionModel(), folder, bundle="tiny-0.vptk", **place)
    (answer,) = model.execute([Asked({"image": encoded})])
    np.testing.assert_allclose(
        answer["logits"][0], tiny_model.logits(pixels[decode][None])[0], rtol=1e-4
    )
    model.finalize()
    first = started(DecodingModel(), folder, bundle="tiny-0.vptk", **place)
    (given,) = first.execute([Asked({"image": encoded})])
    np.testing.assert_array_equal(given["images"][0], pixels[decode])
    first.finalize()


@pytest.mark.usefixtures("utils")
@pytest.mark.parametrize("feed", ["images", "pixels"])
def test_the_ends_of_an_ensemble(make_bundle, tmp_path, feed):
    bundle = make_bundle(feed=feed)
    images = np.full((2, 24, 16, 3), 40, np.uint8)
    decoding = started(DecodingModel(), _versioned(tmp_path / "d", bundle), bundle="x", threads="1")
    good, bad = decoding.execute([Asked({"images": images}), Asked()])
    shape = (2, 24, 16, 3) if feed == "images" else (2, 3, 24, 16)
    assert good[feed].shape == shape
    assert "neither of the inputs" in bad.error.message
    decoding.finalize()
    labelling = started(LabellingModel(), _versioned(tmp_path / "l", bundle), bundle="x")
    logits = np.float32([[0, 1, 2], [5, 1, 2]])
    good, bad, other = labelling.execute(
        [
            Asked({"logits": logits}),
            Asked({"logits": logits * np.nan}),
            Asked({"logits": logits, "adapter_index": np.int32([0, 7])}),
        ]
    )
    assert list(good["label"]) == ["blue", "red"]
    assert "hold NaN or Inf" in bad.error.message
    assert "7 came, expected 0" in other.error.message
    labelling.finalize()


def _versioned(folder, bundle):
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "x").symlink_to(bundle)
    return folder
