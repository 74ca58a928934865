"""A machine with a GPU that is not there: the driver of libcuda.c, the TensorRT of tensorrt.py."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.children import run_child
from vptkit.devices.drivers import cuda
from vptkit.formats.bundle import open_bundle

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parent
SERVER = "NVIDIA H200|9|0|0|144000"
ORIN = "Orin|8|7|1|7620"
# What a probe of such a module finds
ORIN_GPU = cuda.Gpu(
    index=0,
    name="Orin",
    capability=(8, 7),
    memory_bytes=8 << 30,
    integrated=True,
    sms=8,
    clock_mhz=1020,
    driver=(12, 6),
)


@dataclass(frozen=True, kw_only=True)
class FakeGpu:
    """The fakes, loaded into this process.

    Attributes:
        trt: the fake TensorRT.
        library: the fake driver, as file.
    """

    trt: ModuleType
    library: Path

    def count(self, what: str) -> int:
        """Launches of CUDA graphs, enqueues of engines, waits, or bytes allocated."""
        return int(_counters(self.library).fake_count(what.encode()))

    def engine(
        self, bundle: Path, batch: tuple[int, int, int] = (1, 4, 8), adapters: int = 16
    ) -> Any:
        """Build an engine with the fake, as `engine_cache.find_engine` would return it.

        Its `opened()` is what `open_engine` would return.
        """
        path = bundle / "model.onnx"
        log = self.trt.ILogger()
        builder = self.trt.Builder(log)
        network = builder.create_network(2)
        assert self.trt.OnnxParser(network, log).parse_from_file(str(path))
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        manifest = open_bundle(bundle).manifest
        for value in manifest["inputs"]:
            name, shape = value["name"], network.get_input(_position(network, value["name"])).shape
            rows = {1: 1, **_rows(manifest)}.get(name, 1)
            sizes = [rows, rows * adapters, rows * adapters] if name.startswith("bank.") else batch
            if -1 in shape:
                profile.set_shape(name, *[tuple(s if d == -1 else d for d in shape) for s in sizes])
        config.add_optimization_profile(profile)
        plan = bundle.with_name(f"{bundle.name}.engine")
        plan.write_bytes(builder.build_serialized_network(network, config))
        made = SimpleNamespace(path=plan, record={"library": "tensorrt"})
        made.opened = lambda: (made, plan.open("rb"))
        return made


def _position(network: Any, name: str) -> int:
    return [network.get_input(i).name for i in range(network.num_inputs)].index(name)


def _rows(manifest: dict[str, Any]) -> dict[str, int]:
    """Table → rows of one adapter in it."""
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.bank_tables import BankShape

    if manifest["layout"] != "bank":
        return {}
    spec = BackboneSpec.from_json(manifest["backbone"]["spec"])
    return {k: n for k, (n, _) in BankShape.of_manifest(manifest, spec).rows().items()}


def _counters(library: Path) -> Any:
    import ctypes

    functions = ctypes.CDLL(str(library))
    functions.fake_count.restype = ctypes.c_long
    return functions


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory) -> Path:
    """The fake libcuda.so.1, compiled. It has no SONAME, so that a real one can be loaded beside it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the fake CUDA driver")
    path = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Werror", "-o", str(path)]
    run_child([compiler, *flags, FOLDER / "libcuda.c"])
    return path


@pytest.fixture
def fake_gpu(fake_driver, monkeypatch, request) -> FakeGpu:
    """The fakes; parametrise indirectly with SERVER or ORIN."""
    device = getattr(request, "param", SERVER)
    monkeypatch.setattr(cuda, "LIBRARY", str(fake_driver))
    monkeypatch.setenv("FAKE_CUDA", device)
    monkeypatch.setenv("FAKE_LIBCUDA", str(fake_driver))
    cuda._driver.cache_clear()
    spec = importlib.util.spec_from_file_location("tensorrt", FOLDER / "tensorrt.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    spec.loader.exec_module(module)
    # Child processes see the same machine.
    for variable, folder in (("LD_LIBRARY_PATH", fake_driver.parent), ("PYTHONPATH", FOLDER)):
        others = os.environ.get(variable)
        monkeypatch.setenv(variable, f"{folder}:{others}" if others else str(folder))
    yield FakeGpu(trt=module, library=fake_driver)
    cuda._driver.cache_clear()
