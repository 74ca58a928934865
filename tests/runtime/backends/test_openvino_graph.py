"""OpenVINO on the processor, for real; its GPU and NPU on a stand-in for the package."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

from tests.support.bank_cases import family, write_family  # noqa: E402
from tests.support.children import run_child  # noqa: E402
from tests.support.exported_banks import export_family  # noqa: E402
from tests.support.noise_images import noise  # noqa: E402
from tests.support.tolerances import largest_difference  # noqa: E402
from vptkit.errors import BundleError, MissingError, TargetError  # noqa: E402
from vptkit.export.bundle.export_bundle import export  # noqa: E402
from vptkit.export.bundle.export_options import ExportOptions  # noqa: E402
from vptkit.export.precision.lowering import Lowering  # noqa: E402
from vptkit.formats.bundle import open_bundle  # noqa: E402
from vptkit.runtime.backends import openvino_graph  # noqa: E402
from vptkit.runtime.backends.engine_cache import graph_digest  # noqa: E402
from vptkit.runtime.backends.openvino_graph import OpenvinoGraph  # noqa: E402
from vptkit.runtime.evaluation.parity import check_golden  # noqa: E402
from vptkit.runtime.session.factory import open_session  # noqa: E402

GOLDEN = 1e-5  # fp32, largest difference over largest logit
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor does not multiply bf16")


@pytest.fixture
def bundle(make_bundle):
    return open_bundle(make_bundle())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function: a family's bilinear adapter as a bundle of some precision and batch."""
    folder = tmp_path_factory.mktemp("exported")
    files = write_family(family(), folder)

    def make(precision: str = "fp32", batch: int | None = None):
        path = folder / f"{precision}-{batch}.vptk"
        options = ExportOptions(batch=batch, lowering=Lowering(precision=precision))
        if not path.exists():
            export(files["bilinear"], path, weights=files["weights"], options=options)
        return path

    return make


@pytest.mark.parametrize("batch", [None, 2])
def test_the_golden_answers_to_1e_5(exported, batch):
    parity = check_golden(open_session(exported(batch=batch), "openvino"), tolerance=GOLDEN)
    assert parity.ok, parity


def test_a_banks_golden_answers_to_1e_5(tmp_path):
    members = family()
    with open_session(export_family(tmp_path, members), "openvino", 1) as session:
        assert check_golden(session, tolerance=GOLDEN).ok
        images, names = members.case.images, list(members.adapters)
        for name, row in zip(names, session.run(images[[0] * len(names)], names), strict=True):
            own = len(members.adapters[name].labels)
            expected = members.reference(name)[:1]
            assert largest_difference(row[None, :own], expected) <= GOLDEN


def test_fp32_is_asked_for_whatever_the_processor_would_take(bundle):
    hint = OpenvinoGraph(bundle)._compiled.get_property("INFERENCE_PRECISION_HINT")
    assert hint == openvino.Type.f32


@needs_bf16
def test_bf16_is_coarser_and_has_its_own_tolerance(exported):
    """The broken twin of the golden test: what OpenVINO takes by itself does not pass it."""
    with open_session(exported(), "openvino-bf16") as session:
        assert not check_golden(session, tolerance=GOLDEN).ok
        parity = check_golden(session)
        assert (parity.ok, parity.tolerance) == (True, 0.1)


def test_a_processor_without_bf16_is_not_asked_for_it(exported, monkeypatch):
    core = SimpleNamespace(
        available_devices=["CPU"], get_property=lambda device, name: ["FP32", "INT8"]
    )
    monkeypatch.setattr(openvino_graph, "openvino", stand_in(core))
    with pytest.raises(TargetError, match=r"does not multiply bf16.*--backend openvino") as caught:
        OpenvinoGraph(open_bundle(exported()), bf16=True)
    assert caught.value.exit_code == 4


def test_another_type_than_was_asked_for_is_refused(bundle, monkeypatch):
    real = openvino.CompiledModel.get_property

    def lie(self, name):
        return openvino.Type.bf16 if "PRECISION" in name else real(self, name)

    monkeypatch.setattr(openvino.CompiledModel, "get_property", lie)
    with pytest.raises(TargetError, match="would compute in bf16, and f32 was asked for"):
        OpenvinoGraph(bundle)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_lower_precisions_run(exported, precision):
    """A bf16 graph, too, which ONNX Runtime does not compute on a processor."""
    with open_session(exported(precision), "openvino") as session:
        assert check_golden(session).ok
        compiled = session.graph._compiled
        low = precision == "bf16" and HAS_BF16
        hint = compiled.get_property("INFERENCE_PRECISION_HINT")
        assert hint == (openvino.Type.bf16 if low else openvino.Type.f32)


@pytest.mark.parametrize(
    ("threads", "streams", "every"), [(1, 4, 4), (2, 3, 6), (6, 1, 6), (7, 1, 7)]
)
def test_runs_that_overlap_have_streams_of_their_threads(
    bundle, monkeypatch, threads, streams, every
):
    monkeypatch.setattr(openvino_graph, "usable_cores", lambda: 6)
    settings = openvino_graph._on_processor(openvino.Core(), bundle, threads, bf16=False)
    assert (settings["NUM_STREAMS"], settings["INFERENCE_NUM_THREADS"]) == (str(streams), every)


def test_threads_are_not_tied_to_cores(bundle):
    graph = OpenvinoGraph(bundle, threads=1)
    assert graph.threads == 1
    assert not graph._compiled.get_property("ENABLE_CPU_PINNING")


def test_many_threads_get_their_own_answers(bundle, tiny_model):
    graph, images = OpenvinoGraph(bundle, threads=1), noise(24)
    expected = tiny_model.logits(images)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: graph(images[i % 24 : i % 24 + 1]), range(200)))
    for number, logits in enumerate(found):
        np.testing.assert_allclose(logits[0], expected[number % 24], rtol=0, atol=2e-5)
    assert 1 <= len(graph._idle) <= 8


def test_an_answer_stays_when_the_next_is_asked_for(bundle):
    graph = OpenvinoGraph(bundle)
    first = graph(noise(2))
    before = first.copy()
    graph(noise(3)[1:])
    np.testing.assert_array_equal(first, before)


def test_what_the_graph_does_not_take_is_a_target_error(bundle):
    graph = OpenvinoGraph(bundle)
    with pytest.raises(TargetError, match=r"OpenVINO failed on images uint8 \[1, 5, 5, 3\]"):
        graph(np.zeros((1, 5, 5, 3), np.uint8))
    assert graph(noise(1)).shape == (1, 3)


def test_a_graph_that_differs_from_its_manifest_is_refused(make_bundle):
    inputs = [{"name": "pixels", "dtype": "float32", "shape": ["B", 3, 24, 16]}]
    with pytest.raises(BundleError, match=r"its manifest wants \['pixels'\] and \['logits'\]"):
        OpenvinoGraph(open_bundle(make_bundle(inputs=inputs)))
    outputs = [{"name": "features", "dtype": "float32", "shape": ["B", 3]}]
    with pytest.raises(BundleError, match=r"manifest wants \['images'\] and \['features'\]"):
        OpenvinoGraph(open_bundle(make_bundle(outputs=outputs)))


def test_a_graph_that_cannot_be_loaded_is_a_target_error(make_bundle, edit_manifest):
    path = make_bundle(golden=False)
    content = (path / "model.onnx").read_bytes().replace(b"ReduceMean", b"ReduceMoan")
    (path / "model.onnx").write_bytes(content)
    edit_manifest(path, files={"model.onnx": hashlib.sha256(content).hexdigest()})
    with pytest.raises(TargetError, match=r"OpenVINO \d.* cannot load the graph.*ReduceMoan") as e:
        open_session(path, "openvino")
    assert str(path / "model.onnx") in str(e.value)
    assert "/proc/" not in str(e.value)


def test_a_changed_graph_is_not_loaded(make_bundle):
    path = make_bundle(golden=False)
    with (path / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="differs from its digest"):
        open_session(path, "openvino")


def test_constants_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr("vptkit.export.graph.onnx_file._PROTOBUF_LIMIT", 0)
    files, path = write_family(family(), tmp_path), tmp_path / "a.vptk"
    export(files["bilinear"], path, weights=files["weights"])
    with open_session(path, "openvino") as session:
        assert check_golden(session, tolerance=GOLDEN).ok
    damaged = bytearray((path / "model.onnx.data").read_bytes())
    damaged[100] ^= 1
    (path / "model.onnx.data").write_bytes(damaged)
    with pytest.raises(BundleError, match=r"model\.onnx\.data differs from its digest"):
        open_session(path, "openvino")


def test_importing_it_tells_nobody():
    """Of `openvino_telemetry` nothing is loaded, and who wants it afterwards has it."""
    code = (
        "import sys, vptkit.runtime.backends.openvino_graph\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])\n"
        "import importlib.util\n"
        "print(importlib.util.find_spec('openvino_telemetry') is not None)"
    )
    done = run_child([sys.executable, "-c", code])
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


# devices that are not here ------------------------------------------------------------------------


def stand_in(core: Any) -> SimpleNamespace:
    return SimpleNamespace(__version__="9.9.9-1", Core=lambda: core, Tensor=openvino.Tensor)


class Core:
    """Says that it has a GPU and an NPU, and compiles for the processor."""

    def __init__(self) -> None:
        self.available_devices = ["CPU", "GPU.0", "GPU.1", "NPU"]
        self.asked: tuple[str, dict[str, Any]] = ("", {})
        self._real = openvino.Core()

    def read_model(self, path: str) -> Any:
        return self._real.read_model(path)

    def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
        self.asked = device, settings
        return self._real.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.fixture
def core(monkeypatch, tmp_path) -> Core:
    found = Core()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino_graph, "openvino", stand_in(found))
    return found


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_device_that_is_not_here_is_missing(bundle, core, device):
    core.available_devices = ["CPU"]
    with pytest.raises(MissingError, match=f"finds no {device} here, only CPU.*install") as caught:
        OpenvinoGraph(bundle, device=device)
    assert caught.value.exit_code == 5


def test_a_gpu_keeps_the_types_of_the_graph_and_what_it_compiled(bundle, core, tiny_model):
    graph = OpenvinoGraph(bundle, device="GPU", threads=7)
    device, settings = core.asked
    assert (device, settings["EXECUTION_MODE_HINT"]) == ("GPU", "ACCURACY")
    assert "INFERENCE_PRECISION_HINT" not in settings
    assert graph.threads == 1
    assert settings["CACHE_DIR"].endswith(f"/vptkit/engines/openvino-{graph_digest(bundle)}")
    np.testing.assert_allclose(graph(noise(2)), tiny_model.logits(noise(2)), rtol=0, atol=2e-5)


def test_a_cache_that_cannot_be_written_keeps_nothing(bundle, core, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    OpenvinoGraph(bundle, device="GPU")
    assert "CACHE_DIR" not in core.asked[1]


def test_an_npu_takes_fixed_shapes_alone(make_bundle, core):
    with pytest.raises(TargetError, match=r"fixed shapes alone.*--batch 1"):
        OpenvinoGraph(open_bundle(make_bundle()), device="NPU")
    assert core.asked[0] == ""
    assert OpenvinoGraph(open_bundle(make_bundle(batch=1)), device="NPU")(noise(1)).shape == (1, 3)
    assert core.asked[0] == "NPU"
