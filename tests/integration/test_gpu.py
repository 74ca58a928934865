"""On a real GPU, with whatever of TensorRT, TensorRT-RTX and onnxruntime-gpu is there: `pytest -m gpu`."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tests.support.bank_cases import family, write_family
from tests.support.tolerances import largest_difference
from vptkit.devices.drivers.cuda import probe
from vptkit.errors import MissingError
from vptkit.export.bank.export_bank import BankOptions, export_bank
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.runtime import open_session
from vptkit.runtime.evaluation.parity import check_golden

pytestmark = pytest.mark.gpu

BACKENDS = ("tensorrt", "tensorrt-rtx", "cuda", "ort-tensorrt")
FP32, FP16 = 1e-3, 2e-2  # largest difference over largest logit; ORT's CUDA kernels use TF32


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request) -> str:
    """A backend that this machine has, or a skip that says what is missing."""
    try:
        probe()
    except MissingError as error:
        pytest.skip(str(error))
    modules = {
        "tensorrt": ("tensorrt",),
        "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    }.get(request.param, ("onnxruntime",))
    if not any(importlib.util.find_spec(module) for module in modules):
        pytest.skip(f"{' or '.join(modules)} is not installed")
    if modules == ("onnxruntime",):
        import onnxruntime

        wanted = {"cuda": "CUDA", "ort-tensorrt": "Tensorrt"}[request.param]
        if f"{wanted}ExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip(f"this onnxruntime is built without {wanted}")
    return request.param


def opened(path, backend, **settings):
    """A session; the engine is built first where the backend needs one."""
    if backend in ("tensorrt", "tensorrt-rtx"):
        from vptkit.formats.bundle import open_bundle
        from vptkit.runtime.engine_build.builder import BuildOptions, build_engine

        options = BuildOptions(library=backend.replace("-", "_"), batch=(1, 2, 8))
        build_engine(open_bundle(path), options)
    return open_session(path, backend, **settings)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("batch", [None, 2])
def test_a_bundle_gives_its_golden_answers(tmp_path, backend, precision, batch):
    files = write_family(family(), tmp_path)
    path = tmp_path / "a.vptk"
    options = ExportOptions(batch=batch, lowering=Lowering(precision=precision))
    export(files["bilinear"], path, weights=files["weights"], options=options)
    session = opened(path, backend)
    assert check_golden(session, tolerance=FP32 if precision == "fp32" else FP16).ok
    first = session.run(family().case.images)
    for _ in range(3):  # by then a CUDA graph is replayed
        np.testing.assert_array_equal(session.run(family().case.images), first)


def test_a_bank_answers_for_each_image(tmp_path, backend):
    files = write_family(family(), tmp_path)
    path = tmp_path / "a.vptk"
    names = ["bilinear", "norms", "linear"]
    export_bank(
        [files[n] for n in names], path, weights=files["weights"], bank=BankOptions(prompts=6)
    )
    session = opened(path, backend)
    images = family().case.images
    for name in names:
        assert largest_difference(session.run(images, name), family().reference(name)) <= FP32


def test_times_add_up(tmp_path, backend):
    if backend not in ("tensorrt", "tensorrt-rtx"):
        pytest.skip(f"{backend} knows only the whole")
    files = write_family(family(), tmp_path)
    path = tmp_path / "a.vptk"
    export(files["bilinear"], path, weights=files["weights"])
    session = opened(path, backend)
    for _ in range(5):
        times = session.timed(family().case.images)
    assert 0 < times.gpu < times.end_to_end
    assert 0 < times.enqueue < times.end_to_end
