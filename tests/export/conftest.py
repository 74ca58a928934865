"""What tests of several packages of the exporter share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tests.support.adapter_files import Files, files_of
from tests.support.exported_graphs import graph_of
from tests.support.strategies import Setup, build
from vptkit.export.numerics.evidence import Evidence
from vptkit.export.precision.pixel_centring import centre_pixels
from vptkit.runtime.backends.onnxruntime_probe import OrtProbe


@dataclass
class Pictures:
    array: np.ndarray
    digest: str = "0"
    truth: np.ndarray | None = None

    @property
    def count(self):
        return len(self.array)

    def batches(self):
        for i in range(0, len(self.array), 4):
            yield self.array[i : i + 4]


@pytest.fixture(scope="module")
def case():
    return build(Setup())


@pytest.fixture(scope="module")
def model(case):
    return graph_of(case, last_block="query")


@pytest.fixture
def centred(case):
    model = graph_of(case, last_block="query")
    assert centre_pixels(model)
    return model


@pytest.fixture(scope="module")
def evidence(case):
    def runner(model):
        return OrtProbe(
            lambda path: path.write_bytes(model.SerializeToString()),
            case.adapter.preprocess,
            threads=1,
        )

    shape = (24, *case.images.shape[1:])
    images = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    return Evidence(run=runner, calibration=Pictures(images[:16]), gate=Pictures(images[16:]))


@pytest.fixture
def files(tmp_path) -> Files:
    return files_of(tmp_path, Setup())
