"""Every name of TensorRT that the code uses exists in every version that it runs on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.downloads import Unavailable
from tests.support.trt_bindings import RTX, VERSIONS, accepts, bindings, parameters, returned
from tests.support.trt_uses import COMPUTED, findings, members, own_names, uses

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "support" / "fakes" / "tensorrt.py"


def touches_tensorrt(source: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "trt" for n in ast.walk(ast.parse(source)))


FILES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *sorted((ROOT / "runtime").rglob("*.py")),
        ROOT / "tests/benchmarks/gpu_engines.py",
    )
    if touches_tensorrt(path.read_text(encoding="utf-8"))
}
PAIRS = [(file, version) for file in FILES for version in VERSIONS]
# What the subclasses of vptkit add, and what is looked up after the names were listed with dir().
OWN = {"ComputeCapability": {COMPUTED}}
for text in FILES.values():
    for owner, names in own_names(text).items():
        OWN.setdefault(owner, set()).update(names)


def api_of(version):
    try:
        return bindings(version)
    except Unavailable as reason:
        pytest.skip(f"TensorRT {version}: {reason}")


def test_there_is_something_to_check():
    assert all(uses(source, api_of("10.3")) for source in FILES.values())
    seen = {f"{f}:{use.key}" for f, source in FILES.items() for use in uses(source, api_of("10.3"))}
    assert seen >= {
        "runtime/backends/tensorrt_library.py:ICudaEngine.create_execution_context",
        "runtime/engine_build/build_worker.py:Builder.build_serialized_network",
        "runtime/engine_build/build_worker.py:BuilderFlag.TF32",
        "runtime/engine_build/build_worker.py:IBuilderConfig.progress_monitor",
        "runtime/engine_build/build_worker.py:ParserError.desc",
        "runtime/backends/tensorrt_graph.py:IExecutionContext.execute_async_v3",
        "runtime/backends/tensorrt_graph.py:TensorIOMode.INPUT",
    }


@pytest.mark.parametrize(("file", "version"), PAIRS)
def test_every_name_exists(file, version):
    assert findings(FILES[file], api_of(version), version, OWN) == []


def test_names_that_are_asked_for_exist_somewhere():
    """A guard around a misspelt name would never open."""
    apis = [api_of(version) for version in VERSIONS]
    asked = {
        (use.owner, use.name)
        for source in FILES.values()
        for api in apis
        for use in uses(source, api)
        if use.asked
    }
    assert asked
    assert {key for key in asked if not any(key[1] in api.get(key[0], {}) for api in apis)} == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_bindings_are_the_version_they_are_called(version):
    api = api_of(version)
    (found,) = api[""]["__version__"]
    assert found.startswith("1." if version == RTX else f"{version}.")
    assert sum(len(members) for members in api.values()) > 2000
    weak, typed = version not in ("11.4", RTX), version != "8.6"
    assert ("FP16" in api["BuilderFlag"]) == weak
    assert ("STRONGLY_TYPED" in api["NetworkDefinitionCreationFlag"]) == typed
    assert returned(api["Builder"]["create_builder_config"]) == "IBuilderConfig"


# the checker can fail -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "version", "wrong"),
    [
        ("trt.Biulder(logger)", "10.3", "Biulder"),
        ("flags = trt.BuilderFlag.FP17", "10.3", "BuilderFlag.FP17"),
        ("config.set_flag(trt.BuilderFlag.FP16)", "11.4", "BuilderFlag.FP16"),
        ("flags = trt.BuilderFlag\nflags.FP16", "11.4", "BuilderFlag.FP16"),
        ("engine.num_bindings", "10.0", "ICudaEngine.num_bindings"),
        ("self._context.execute_async_v4(1)", "10.3", "IExecutionContext.execute_async_v4"),
        ("def f(self):\n return self.engine.get_binding(0)", "8.6", "ICudaEngine.get_binding"),
        ("def f(plan: Any):\n return plan.read_bytes()", "8.6", "IHostMemory.read_bytes"),
        ("made = trt.Builder(logger)\nmade.build_it()", "10.3", "Builder.build_it"),
        ("parser.get_error(0).node_name()", "8.6", "ParserError.node_name"),
        ("builder.create_builder_config().max_speed = 3", "10.3", "IBuilderConfig.max_speed"),
        ("if not hasattr(config, 'x'):\n pass\nconfig.x", "10.3", "IBuilderConfig.x"),
        ("if hasattr(config, 'x'):\n pass\nelse:\n config.x", "10.3", "IBuilderConfig.x"),
        ("if hasattr(config, 'x') or ready:\n config.x", "10.3", "IBuilderConfig.x"),
        ("if hasattr(trt, 'IGpuAllocator'):\n config.x", "10.3", "IBuilderConfig.x"),
        ("getattr(trt.BuilderFlag, name)", "10.3", "BuilderFlag.<computed>"),
        ("getattr(trt.BuilderFlag, 'FP17')", "10.3", "BuilderFlag.FP17"),
        ("class L(trt.ILogger):\n def log(self, severity, msg): trt.No", "10.3", "No"),
        ("monitor = trt.IProgressMonitor", "8.6", "IProgressMonitor"),
    ],
)
def test_a_name_that_does_not_exist_is_found(source, version, wrong):
    (found,) = findings(source, api_of(version), version)
    assert found.endswith(f"TensorRT {version} has no {wrong}")


@pytest.mark.parametrize(
    "source",
    [
        "context.execute_async_v3()",
        "context.execute_async_v3(1, 2)",
        "context.execute_async_v3(stream=1)",
        "profile.set_shape('x', (1,), (2,))",
        "config.create_timing_cache()",
        "trt.Builder()",
        "trt.OnnxParser(network)",
    ],
)
@pytest.mark.parametrize("version", ["8.6", "10.3", "11.4"])
def test_wrong_arguments_are_found(source, version):
    (found,) = findings(source, api_of(version), version)
    assert "called with" in found


@pytest.mark.parametrize(
    "source",
    [
        "if hasattr(config, 'x'):\n config.x = 1",
        "def f(config):\n if not hasattr(config, 'x'):\n  return 0\n return config.x",
        "a = getattr(trt.BuilderFlag, 'FP17', None)",
        "a = getattr(trt.BuilderFlag, f'FP{bits}', None)",
        "if hasattr(trt, 'ComputeCapability'):\n config.num_compute_capabilities = 1",
        "def f(plan: Path):\n return plan.read_bytes()",
        "def f(monitor: trt.IProgressMonitor) -> trt.No: pass",
        "context.execute_async_v3(stream_handle=1)",
        "profile.set_shape('x', *shapes)",
        "builder.create_network(1)",
        "config.create_timing_cache(b'')",
        "class L(trt.ILogger):\n def log(self, severity, msg): pass\n def _other(self): pass",
    ],
)
@pytest.mark.parametrize("version", ["8.6", "10.3", "11.4"])
def test_guarded_and_right_uses_pass(source, version):
    assert findings(source, api_of(version), version) == []


@pytest.mark.parametrize(
    "body",
    [
        "def phase_start(self, a, b, c): ...",
        "def phase_start(self, a, b, c): ...\n def step_complete(self, a): ...",
        "def phase_begin(self, a, b, c): ...\n def step_complete(self, a, b): ...",
    ],
)
def test_a_subclass_that_tensorrt_cannot_call_is_found(body):
    source = f"class M(trt.IProgressMonitor):\n {body}\n def phase_finish(self, a): ..."
    assert findings(source, api_of("8.6"), "8.6") == [
        "line 1: TensorRT 8.6 has no IProgressMonitor"
    ]
    found = findings(source, api_of("10.3"), "10.3")
    assert found
    assert all("class M does not define IProgressMonitor." in text for text in found)
    whole = "def phase_start(self, a, b, c): ...\n def step_complete(self, a, b): ..."
    assert findings(source.replace(body, whole), api_of("10.3"), "10.3") == []


def test_signatures_are_read():
    text = "f(self: a.B, x: Dict[str, int], kind: a.K = <K.ONE: 1>, *, deep: bool = True) -> a.C"
    assert accepts([text], 1, ())
    assert accepts([text], 2, ("deep",))
    assert accepts([text], 0, ("x",))
    assert not accepts([text], 0, ())
    assert not accepts([text], 1, ("shallow",))
    assert not accepts([text], 1, ("x",))
    assert returned([text]) == "C"
    assert returned(["f(self: a.B) -> nvonnxparser::IParserError"]) == "IParserError"
    assert returned(["f(self: a.B)"]) is None


# the fake -----------------------------------------------------------------------------------------

# In the fake for its version 10.3; TensorRT 11 has dropped them.
DROPPED = {
    "10.3": set(),
    "11.4": {
        "BuilderFlag.BF16",
        "BuilderFlag.FP16",
        "BuilderFlag.FP8",
        "BuilderFlag.INT8",
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    },
}


def public_classes(source: str) -> list[ast.ClassDef]:
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return [node for node in nodes if not node.name.startswith("_")]


def invented(source: str, api) -> set[str]:
    """Public names of a fake TensorRT that the real one lacks."""
    found = {node.name for node in public_classes(source) if node.name not in api}
    for node in public_classes(source):
        known = api.get(node.name, {})
        found |= {f"{node.name}.{name}" for name in members(node) if name not in known}
    return found


def misnamed(source: str, api) -> set[str]:
    """Methods of a fake that could not be called as the real ones are."""
    return {
        f"{node.name}.{item.name}"
        for node in public_classes(source)
        for item in node.body
        if isinstance(item, ast.FunctionDef)
        if not fits([a.arg for a in item.args.args[1:]], api.get(node.name, {}).get(item.name, []))
    }


def fits(names: list[str], signatures: list[str]) -> bool:
    """The same names in the same order; the fake may lack what has a default."""
    real = [parameters(text) for text in signatures]
    return not real or any(
        names == list(one)[: len(names)] and all(list(one.values())[len(names) :]) for one in real
    )


@pytest.mark.skipif(not FAKE.is_file(), reason="there is no fake TensorRT")
@pytest.mark.parametrize("version", DROPPED)
def test_the_fake_is_like_the_real_one(version):
    source, api = FAKE.read_text(encoding="utf-8"), api_of(version)
    assert public_classes(source)
    assert invented(source, api) == DROPPED[version]
    constructors = {name for name in misnamed(source, api) if name.endswith(".__init__")}
    assert misnamed(source, api) - constructors == set()


def test_an_invention_of_the_fake_is_found():
    source = """
class Builder:
    x = 1
    A, B = 2, 3
    def __init__(self, logger): pass
    def create_network(self, flags): self.made = self._kept = flags
class IExecutionContext:
    def set_tensor_address(self, name, pointer): pass
    def execute_async_v3(self): pass
class Robot: pass
"""
    api = api_of("10.3")
    assert invented(source, api) == {*(f"Builder.{n}" for n in ("x", "A", "B", "made")), "Robot"}
    assert misnamed(source, api) == {
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_tensor_address",
    }
