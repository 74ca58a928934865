"""The import table of the design: who may import what, and what `import` must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("vptkit", "tune", "export", "runtime", "devices")
STAGES = frozenset({"tune", "export", "runtime"})

# Room → third-party packages that any of its files may import.
PACKAGES = {
    "vptkit": {"numpy", "PIL", "safetensors"},
    "tune": {"numpy", "PIL", "safetensors", "timm", "tomli", "torch", "torchvision"},
    "export": {"numpy", "onnx", "onnx_ir"},
    "runtime": {"numpy", "PIL", "safetensors"},
    "devices": {"tomli"},
}
# Further packages, for one file each.
EXCEPTIONS = {
    "vptkit/progress.py": {"rich"},
    "tune/data/arrow_dataset.py": {"pyarrow"},
    "tune/burstiness/burstiness_plot.py": {"matplotlib"},
    "tune/run/learning_curves.py": {"matplotlib"},
    "tune/run/layer_norm_plots.py": {"matplotlib"},
    "tune/sweep/sweep_plot.py": {"matplotlib"},
    "tune/sweep/ray_runner.py": {"ray"},
    "runtime/backends/onnxruntime_graph.py": {"onnxruntime"},
    "runtime/backends/onnxruntime_probe.py": {"onnxruntime"},
    "runtime/backends/tensorrt_library.py": {"tensorrt"},
    "runtime/profile/profile_plot.py": {"matplotlib"},
    "devices/drivers/nvml.py": {"pynvml"},
}
# Where the stages meet: these know every room and package, but load none when they are loaded.
ASSEMBLERS = ("vptkit/cli/", "vptkit/demo/")
BANNED = {"click", "pickle"}
# Files that must stay cheap to import: their package stands inside functions only.
LAZY = {
    "devices/drivers/nvml.py": {"pynvml"},
    "runtime/profile/profile_plot.py": {"matplotlib"},
    "vptkit/formats/bank_tables.py": {"safetensors"},
    "vptkit/images/image_file.py": {"PIL"},
    "vptkit/images/preprocess.py": {"PIL"},
    "vptkit/progress.py": {"rich"},
}


def walk(folder: Path) -> list[Path]:
    """Every module of a room, at any depth; the links in vptkit/ lead out of it."""
    return [p for p in folder.rglob("*.py") if not any(q.is_symlink() for q in p.parents)]


FILES = [path.relative_to(ROOT).as_posix() for room in ROOMS for path in sorted(walk(ROOT / room))]


def imports(tree: ast.AST) -> set[str]:
    """Dotted names of everything imported below a node; relative imports stay in the room."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, "no import from a parent package"
            if node.level == 0:
                found.add(node.module)
                found |= {f"{node.module}.{a.name}" for a in node.names if node.module == "vptkit"}
    return found


def eager_imports(tree: ast.Module) -> set[str]:
    """What loading the file imports: not in functions, not for type checkers."""
    found: set[str] = set()
    for node in tree.body:
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not checking and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found |= imports(node)
    return found


def packages(names: set[str]) -> set[str]:
    return {n.partition(".")[0] for n in names} - sys.stdlib_module_names - {"__future__", "vptkit"}


def rooms(names: set[str]) -> set[str]:
    return {n.split(".")[1] for n in names if n.startswith("vptkit.")} & set(ROOMS)


def forbidden(file: str, source: str) -> set[str]:
    """Names in the source that the table does not allow to this file."""
    room, tree = file.partition("/")[0], ast.parse(source)
    found, eager = imports(tree), eager_imports(tree)
    wrong = {n.partition(".")[0] for n in found} & BANNED
    if file.startswith(ASSEMBLERS):
        return wrong | rooms(eager) | (packages(eager) - {"typer"})
    wrong |= packages(found) - PACKAGES[room] - EXCEPTIONS.get(file, set())
    wrong |= packages(eager) & LAZY.get(file, set())
    if room in STAGES:
        wrong |= rooms(found) - ({room, "devices"} if room == "runtime" else {room})
    else:
        wrong |= rooms(found) - {room}
    return wrong


@pytest.mark.parametrize("file", FILES)
def test_files_keep_to_the_table(file):
    assert forbidden(file, (ROOT / file).read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("runtime/session/factory.py", "import torch", "torch"),
        ("runtime/session/factory.py", "def f():\n import onnx.helper", "onnx"),
        ("runtime/session/factory.py", "from onnxruntime import InferenceSession", "onnxruntime"),
        (
            "runtime/evaluation/parity.py",
            "from vptkit.tune.backbone.reference import features",
            "tune",
        ),
        ("runtime/evaluation/parity.py", "from vptkit import export", "export"),
        ("runtime/profile/profile_plot.py", "import matplotlib.pyplot", "matplotlib"),
        ("export/fold/equations.py", "def f():\n import torch", "torch"),
        (
            "vptkit/formats/adapter.py",
            "from vptkit.runtime.session.factory import Session",
            "runtime",
        ),
        ("vptkit/cli/entry.py", "import numpy", "numpy"),
        (
            "vptkit/cli/entry.py",
            "from vptkit.runtime.session.factory import open_session",
            "runtime",
        ),
        ("vptkit/cli/entry.py", "def f():\n import click", "click"),
        ("vptkit/atomic_files.py", "import pickle", "pickle"),
        ("vptkit/demo/run_demo.py", "import torch", "torch"),
        ("devices/probes/machine.py", "import psutil", "psutil"),
    ],
)
def test_the_table_can_be_broken(file, source, wrong):
    assert forbidden(file, source) == {wrong}


def test_there_is_something_to_check():
    assert {file.partition("/")[0] for file in FILES} == set(ROOMS)
    assert len(FILES) > 25


HELP = """
import sys
from vptkit.cli import app
sys.argv = ["vptkit", "--help"]
try:
    app()
except SystemExit:
    pass
"""


def modules_after(code: str) -> set[str]:
    """Top-level names in sys.modules of a fresh process after some code."""
    script = f"{code}\nimport sys\nsys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/"
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


RUNTIME = "".join(
    f"import vptkit.{file[:-3].replace('/', '.')}\n"
    for file in FILES
    if file.startswith("runtime/") and file not in EXCEPTIONS and not file.endswith("__init__.py")
)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import vptkit", {"numpy", "typer"}),
        (
            "import vptkit.runtime\n" + RUNTIME,
            {"torch", "timm", "onnx", "onnxruntime", "matplotlib", "rich", "typer"}
            | {"PIL", "safetensors", "tomli"},  # `profile --on` runs where these are not
        ),
        (
            "import vptkit.runtime.backends.onnxruntime_graph",
            {"torch", "timm", "onnx", "matplotlib"},
        ),
        (
            "import vptkit.runtime.profile.profile_plot",
            {"torch", "onnx", "onnxruntime", "matplotlib"},
        ),
        ("import vptkit.devices.probes.machine", {"numpy", "PIL", "torch"}),
        (
            HELP,
            {"numpy", "PIL", "torch", "timm", "onnx", "onnxruntime", "rich", "matplotlib"},
        ),
    ],
)
def test_importing_stays_light(code, absent):
    assert modules_after(code) & absent == set()


def test_modules_after_sees_what_is_loaded():
    assert "numpy" in modules_after("import vptkit.runtime.session.factory")
