"""What a configuration means and a file lacks, by the names that the file has."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.formats.backbone_weights import tensor_shapes
from vptkit.tune.foreign_tensors.module_names import Names
from vptkit.tune.peft_adapters.missing_modules import missing_modules

OLD = "vit.encoder.layer.{}.attention.attention.{}"


@pytest.fixture
def missing(tiny_spec):
    names = Names({name: np.zeros(shape) for name, shape in tensor_shapes(tiny_spec).items()})
    return lambda found, **config: missing_modules(names, found, config)


def test_blocks_and_targets(missing):
    both = [OLD.format(i, "query") for i in (0, 1)]
    assert missing(both, target_modules=["query"]) == []
    assert missing(both[:1], target_modules=["query"]) == both[1:]
    assert missing(both[:1], target_modules=r".*query") == both[1:]
    assert missing(both[:1], target_modules=["query"], layers_to_transform=[0]) == []
    assert missing(both, target_modules=["query", "value"]) == [
        OLD.format(i, "value") for i in (0, 1)
    ]
    # names of another generation, or of another model, stand for nothing that is lost
    assert missing(both, target_modules=["query", "q_proj", "lin1", "classifier"]) == []


def test_a_module_outside_the_blocks(missing):
    found = ["vit.layers.0.mlp.fc1", "vit.layers.1.mlp.fc1"]
    patches = "embeddings.patch_embeddings.projection"
    lost = missing(found, target_modules=["fc1", patches])
    assert f"vit.{patches}" in lost
