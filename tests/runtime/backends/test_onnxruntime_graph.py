"""The GPU providers of ONNX Runtime, on a stand-in: the real package on the processor, which tells
of other providers what a test makes it tell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.support.bank_cases import family, write_family
from vptkit.errors import BundleError, MissingError, TargetError
from vptkit.export.bank.export_bank import export_bank
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends import onnxruntime_graph
from vptkit.runtime.backends.engine_cache import graph_digest
from vptkit.runtime.backends.onnxruntime_graph import OrtGraph
from vptkit.runtime.session.baked_session import GraphSession
from vptkit.runtime.session.bank_session import BankSession

CUDA, TENSORRT, CPU = (f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "CPU"))


class Stand:
    """What a build of ONNX Runtime does: its attributes are what tests change."""

    def __init__(self) -> None:
        self.available = [TENSORRT, CUDA, CPU]
        self.starts = True  # the libraries of the first provider load
        self.placement: dict[str, str] = {}  # operator → provider, the requested one unless here
        self.error: str | None = None  # of the first run
        self.spoil = False
        self.requested: list[Any] = []
        self.options: Any = None
        self.resident: list[str] = []
        self.profiled: list[Path] = []
        self.fallback = [True]  # when a session was made, and from then on

    def module(self) -> Any:
        names = {name: getattr(onnxruntime, name) for name in ("SessionOptions",)}
        names["GraphOptimizationLevel"] = onnxruntime.GraphOptimizationLevel
        values = SimpleNamespace(ortvalue_from_numpy=self._value)
        return SimpleNamespace(
            **names,
            __version__="9.9.9",
            get_available_providers=lambda: self.available,
            InferenceSession=self._session,
            OrtValue=values,
        )

    def _value(self, array: np.ndarray, device: str = "cpu", index: int = 0) -> Any:
        self.resident.append(device)
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def _session(self, path: str, options: Any, providers: list[Any], **kwargs: Any) -> Any:
        self.requested, self.options = providers, options
        self.fallback = [kwargs.get("enable_fallback", 1) == 1]
        return Session(self, path, options, providers)


class Session:
    def __init__(self, stand: Stand, path: str, options: Any, providers: list[Any]) -> None:
        self._stand = stand
        self._real = onnxruntime.InferenceSession(path, options, providers=[CPU])
        names = [p if isinstance(p, str) else p[0] for p in providers]
        self._providers = [*names, CPU] if stand.starts else [CPU]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return self._providers

    def disable_fallback(self) -> None:
        self._stand.fallback.append(False)

    def run(self, names: list[str], feed: dict[str, Any]) -> list[np.ndarray]:
        if self._stand.error is not None:
            raise RuntimeError(self._stand.error)
        answers = self._real.run(names, feed)
        return [a * np.nan for a in answers] if self._stand.spoil else answers

    def end_profiling(self) -> str:
        path = Path(self._real.end_profiling())
        events = json.loads(path.read_text())
        for event in events:
            if event.get("cat") == "Node" and "provider" in event["args"]:
                operator = event["args"]["op_name"]
                found = self._stand.placement.get(operator, self._providers[0])
                event["args"]["provider"] = found
        path.write_text(json.dumps(events))
        self._stand.profiled.append(path)
        return str(path)


@pytest.fixture
def stand(monkeypatch, tmp_path) -> Stand:
    found = Stand()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(onnxruntime_graph, "onnxruntime", found.module())
    return found


@pytest.fixture
def bundle(make_bundle):
    return open_bundle(make_bundle())


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 24, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(("provider", "name"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
@pytest.mark.parametrize("batch", ["dynamic", 4])
def test_a_provider_that_does_all_the_work_is_taken(
    stand, make_bundle, tiny_model, provider, name, batch
):
    bundle = open_bundle(make_bundle(batch=batch))
    graph = OrtGraph(bundle, threads=1, provider=provider)
    assert stand.requested[0][0] == name
    assert stand.fallback == [False, False]
    session = GraphSession(bundle=bundle, backend=provider, graph=graph)
    np.testing.assert_allclose(session.run(noise(3)), tiny_model.logits(noise(3)), atol=2e-5)


def test_the_probes_profile_is_removed_and_later_runs_write_none(stand, bundle, monkeypatch):
    graph = OrtGraph(bundle, provider="cuda")
    (profile,) = stand.profiled
    graph(noise(1))
    assert not profile.exists()
    assert not profile.parent.exists()


def test_a_build_without_the_provider_is_refused(bundle):
    """With the real package: this machine has the one for processors."""
    with pytest.raises(
        MissingError, match=r"CUDAExecutionProvider is not in this build.*onnxruntime-gpu"
    ) as caught:
        OrtGraph(bundle, provider="cuda")
    assert caught.value.exit_code == 5


def test_a_listed_provider_that_does_not_start_is_refused(stand, bundle):
    stand.starts = False
    with pytest.raises(MissingError, match=f"{CUDA} did not start: .* offers {CPU} instead"):
        OrtGraph(bundle, provider="cuda")


def test_work_on_the_processor_is_refused(stand, bundle):
    stand.placement = {"Gemm": CPU}
    with pytest.raises(TargetError, match=f"whole graph; there ran 1 Gemm on {CPU}") as caught:
        OrtGraph(bundle, provider="cuda")
    assert caught.value.exit_code == 4


def test_work_that_tensorrt_leaves_to_cuda_is_refused(stand, bundle):
    stand.placement = {"Gemm": CUDA}
    with pytest.raises(TargetError, match=f"1 Gemm on {CUDA}"):
        OrtGraph(bundle, provider="tensorrt")


def test_arithmetic_on_shapes_may_run_on_the_processor(stand, bundle):
    stand.placement = {"Cast": CPU, "Add": CPU, "Mul": CPU}
    OrtGraph(bundle, provider="cuda")


def test_a_provider_that_ran_nothing_is_refused(stand, bundle):
    stand.placement = dict.fromkeys(("Cast", "ReduceMean", "Mul", "Add"), CPU)
    stand.placement |= {"Gemm": ""}
    with pytest.raises(TargetError, match=f"{CUDA} ran no node .* all of it ran on {CPU}"):
        OrtGraph(bundle, provider="cuda")


def test_a_build_without_code_for_the_gpu_is_told_from_a_graph_that_fails(stand, bundle):
    stand.error = "CUDA error cudaErrorNoKernelImageForDevice: no kernel image is available"
    with pytest.raises(MissingError, match="has no code for the GPU"):
        OrtGraph(bundle, provider="cuda")
    stand.error = "CUDNN_STATUS_NOT_SUPPORTED"
    with pytest.raises(TargetError, match=f"{CUDA} failed on .*CUDNN_STATUS_NOT_SUPPORTED"):
        OrtGraph(bundle, provider="cuda")


def test_an_answer_that_is_not_a_number_is_refused(stand, bundle):
    stand.spoil = True
    with pytest.raises(TargetError, match="not finite"):
        OrtGraph(bundle, provider="cuda")


def test_a_graph_that_differs_from_its_manifest_is_refused(stand, make_bundle):
    inputs = [{"name": "pixels", "dtype": "float32", "shape": ["B", 3, 24, 16]}]
    with pytest.raises(BundleError, match="its manifest wants"):
        OrtGraph(open_bundle(make_bundle(inputs=inputs)), provider="cuda")


def test_fp32_stays_fp32_and_lower_precisions_are_allowed_to_tensorrt(stand, make_bundle):
    OrtGraph(open_bundle(make_bundle()), provider="tensorrt")
    (name, options), (second, cuda) = stand.requested
    assert (name, second, cuda["use_tf32"]) == (TENSORRT, CUDA, "0")
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("0", "0")
    OrtGraph(open_bundle(make_bundle(precision="int8")), provider="tensorrt")
    options = stand.requested[0][1]
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("1", "1")


def test_a_changed_graph_gets_engines_of_its_own(stand, make_bundle):
    folders = set()
    for shift in (0.0, 1.0):
        bundle = open_bundle(make_bundle(shift=shift))
        OrtGraph(bundle, provider="tensorrt")
        folder = Path(stand.requested[0][1]["trt_engine_cache_path"])
        assert folder.is_dir()
        folders.add(folder.name)
    assert len(folders) == 2


def test_a_cache_that_cannot_be_written_keeps_no_engines(stand, bundle, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    OrtGraph(bundle, provider="tensorrt")
    assert "trt_engine_cache_path" not in stand.requested[0][1]


def test_what_a_bundle_brings_is_not_given_to_onnx_runtime(stand, bundle, tmp_path, monkeypatch):
    """It loads every engine in the folder that it is told: machine code, without a question."""
    planted = bundle.path / "engines" / f"ort-{graph_digest(bundle)[:16]}"
    planted.mkdir(parents=True)
    OrtGraph(bundle, provider="tensorrt")
    folder = Path(stand.requested[0][1]["trt_engine_cache_path"])
    assert folder.is_relative_to(tmp_path / "cache")
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("VPTKIT_CACHE", str(tmp_path / "named"))
    OrtGraph(bundle, provider="tensorrt")
    folder = Path(stand.requested[0][1]["trt_engine_cache_path"])
    assert folder.is_relative_to(tmp_path / "named")


def _linked(folder, elsewhere):
    folder.parent.mkdir(parents=True)
    folder.symlink_to(elsewhere)


def _foreign(folder, _elsewhere):
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)


def _shared(folder, _elsewhere):
    folder.parent.mkdir(parents=True)
    folder.parent.chmod(0o777)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("plant", [_linked, _foreign, _shared])
def test_a_cache_that_others_may_have_written_keeps_no_engines(stand, bundle, tmp_path, plant):
    folder = tmp_path / "cache" / "vptkit" / "engines" / f"ort-{graph_digest(bundle)}"
    (tmp_path / "elsewhere").mkdir()
    plant(folder, tmp_path / "elsewhere")
    OrtGraph(bundle, provider="tensorrt")
    assert "trt_engine_cache_path" not in stand.requested[0][1]


def test_the_processor_is_asked_as_before(stand, bundle):
    graph = OrtGraph(bundle, threads=1)
    assert stand.requested == [CPU]
    assert not stand.options.enable_profiling
    graph.resident({"a": np.zeros(1, np.float32)})
    assert stand.resident == ["cpu"]


def test_a_banks_tables_are_on_the_device(stand, tmp_path):
    paths = write_family(family(), tmp_path)
    export_bank([paths["bilinear"], paths["linear"]], tmp_path / "a.vptk", weights=paths["weights"])
    bundle = open_bundle(tmp_path / "a.vptk")
    images = family().case.images
    expected = BankSession(bundle, "cpu", OrtGraph(bundle, threads=1)).run(images, "bilinear")

    graph = OrtGraph(bundle, threads=1, provider="cuda")
    stand.resident.clear()
    session = BankSession(bundle, "cuda", graph)
    tables = [value["name"] for value in bundle.manifest["inputs"][2:]]
    assert stand.resident == ["cuda"] * len(tables)
    np.testing.assert_allclose(session.run(images, "bilinear"), expected, atol=1e-6)
