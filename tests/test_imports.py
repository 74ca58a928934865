"""The table of `tests/support/architecture.py` is the code: packages, edges, third parties, names.

And what `import` must not load.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter

import pytest

from tests.support import architecture
from tests.support.architecture import ASSEMBLERS, FACES, ROOMS, TABLE, circles, edges, imported
from tests.support.children import run_child

MODULES = architecture.modules()
CODE = {name: m for name, m in MODULES.items() if m.path.stem not in ("__init__", "__main__")}
PACKAGES = sorted({module.package for module in CODE.values()})

# Room → third-party packages that any of its modules may import.
THIRD_PARTIES = {
    "vptkit": {"numpy", "PIL", "safetensors"},
    "tune": {"numpy", "PIL", "safetensors", "timm", "torch", "torchvision"},
    "export": {"numpy", "onnx"},
    "runtime": {"numpy", "PIL", "safetensors"},
    "devices": set(),
}
# Further packages, for one module each.
EXCEPTIONS = {
    "vptkit.pages.html_page": {"jinja2", "markupsafe"},
    "vptkit.pages.page_parts": {"matplotlib"},
    "vptkit.progress": {"rich"},
    "vptkit.cluster.connection": {"ray"},
    "vptkit.strict_json": {"tomli"},
    "vptkit.arrow_files.arrow_library": {"pyarrow"},
    "vptkit.tune.data.label_column": {"pyarrow"},
    "vptkit.runtime.bulk.parquet_file": {"pyarrow"},
    "vptkit.runtime.inputs.store_listing": {"fsspec"},
    "vptkit.runtime.stores.object_stores": {"fsspec"},
    "vptkit.tune.backbone.hub_weights": {"huggingface_hub"},  # which timm brings
    "vptkit.tune.peft_adapters.merged_by_peft": {"peft"},
    "vptkit.tune.burstiness.burstiness_plot": {"matplotlib"},
    "vptkit.tune.training_page.learning_curves": {"matplotlib"},
    "vptkit.tune.training_page.run_sections": {"matplotlib"},
    "vptkit.tune.training_page.rescale_plots": {"matplotlib"},
    "vptkit.tune.training_page.search_plots": {"matplotlib"},
    "vptkit.tune.sweep.sweep_plot": {"matplotlib"},
    "vptkit.tune.sweep.ray_runner": {"ray"},
    "vptkit.runtime.backends.onnxruntime_library": {"onnxruntime"},
    "vptkit.runtime.backends.openvino_graph": {"openvino"},
    "vptkit.runtime.backends.tensorrt_library": {"tensorrt"},
    "vptkit.runtime.ray_data.dataset_run": {"ray"},
    "vptkit.runtime.layers.layer_plots": {"matplotlib"},
    "vptkit.runtime.profile.latency_plots": {"matplotlib"},
    "vptkit.runtime.profile.profile_plot": {"matplotlib"},
    "vptkit.runtime.evaluation.confusion_plot": {"matplotlib"},
    "vptkit.runtime.loadgen.run_loadgen": {"mlperf_loadgen"},
    "vptkit.runtime.http_server.answer_routes": {"starlette"},
    "vptkit.runtime.http_server.application": {"starlette"},
    "vptkit.runtime.http_server.bank_routes": {"starlette"},
    "vptkit.runtime.http_server.endpoint": {"starlette"},
    "vptkit.runtime.http_server.page_routes": {"starlette"},
    "vptkit.runtime.http_server.server_process": {"uvicorn"},
    "vptkit.runtime.http_server.server_state": {"starlette"},
    "vptkit.runtime.http_server.upload_form": {"starlette"},
    "vptkit.runtime.serving.metrics": {"prometheus_client"},
    "vptkit.runtime.streams.pyav_source": {"av"},
    "vptkit.runtime.frame_answers.annotated_video": {"av"},
    "vptkit.runtime.streams.gstreamer_library": {"gi"},
    "vptkit.plot_text": {"matplotlib"},
    "vptkit.devices.drivers.nvml": {"pynvml"},
}
BANNED = {"click", "pickle"}
# Modules that must stay cheap to import: their package stands inside functions only.
LAZY = {
    "vptkit.devices.drivers.nvml": {"pynvml"},
    "vptkit.tune.peft_adapters.merged_by_peft": {"peft"},
    # Only plot_text imports matplotlib; what the others have in functions runs after it.
    "vptkit.tune.burstiness.burstiness_plot": {"matplotlib"},
    "vptkit.tune.training_page.learning_curves": {"matplotlib"},
    "vptkit.tune.training_page.run_sections": {"matplotlib"},
    "vptkit.tune.training_page.rescale_plots": {"matplotlib"},
    "vptkit.tune.training_page.search_plots": {"matplotlib"},
    "vptkit.tune.sweep.sweep_plot": {"matplotlib"},
    "vptkit.runtime.layers.layer_plots": {"matplotlib"},
    "vptkit.runtime.profile.latency_plots": {"matplotlib"},
    "vptkit.runtime.profile.profile_plot": {"matplotlib"},
    "vptkit.runtime.evaluation.confusion_plot": {"matplotlib"},
    "vptkit.plot_text": {"matplotlib"},
    "vptkit.runtime.streams.pyav_source": {"av"},
    "vptkit.runtime.frame_answers.annotated_video": {"av"},
    "vptkit.runtime.streams.gstreamer_library": {"gi"},
    "vptkit.formats.bank_tables": {"safetensors"},
    "vptkit.images.image_file": {"PIL"},
    "vptkit.images.preprocess": {"PIL"},
    "vptkit.pages.html_page": {"jinja2", "markupsafe"},
    "vptkit.pages.page_parts": {"matplotlib"},
    "vptkit.progress": {"rich"},
    "vptkit.cluster.connection": {"ray"},
    "vptkit.strict_json": {"tomli"},
}
# Two modules of one name, each pair with the reason why a reader is not misled.
SAME_NAME = {
    "settings": "runtime/settings.py is the documented name of what profile/settings.py holds",
}


def names_in(tree: ast.AST) -> set[str]:
    """Dotted names of all absolute imports below a node."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names if node.module == "vptkit"}
    return found


def eager(tree: ast.Module) -> set[str]:
    """What loading the file imports: not in functions, not for type checkers."""
    found: set[str] = set()
    for node in tree.body:
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not checking and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found |= names_in(node)
    return found


def third_parties(names: set[str]) -> set[str]:
    return {n.partition(".")[0] for n in names} - sys.stdlib_module_names - {"__future__", "vptkit"}


def rooms(names: set[str]) -> set[str]:
    return {n.split(".")[1] for n in names if n.startswith("vptkit.")} & set(ROOMS)


def room_of(name: str) -> str:
    first = name.split(".")[1] if "." in name else ""
    return first if first in ROOMS else "vptkit"


def forbidden(name: str, source: str) -> set[str]:
    """Names in a module's source that are not allowed to it, the table of packages apart."""
    tree = ast.parse(source)
    found, loaded = names_in(tree), eager(tree)
    wrong = {n.partition(".")[0] for n in found} & BANNED
    if name.startswith(("vptkit.api.", "vptkit.cli.", "vptkit.demo.", "vptkit.report.")):
        return wrong | rooms(loaded) | (third_parties(loaded) - {"typer"})
    wrong |= third_parties(found) - THIRD_PARTIES[room_of(name)] - EXCEPTIONS.get(name, set())
    return wrong | (third_parties(loaded) & LAZY.get(name, set()))


# the table ----------------------------------------------------------------------------------------


def test_every_edge_is_in_the_table_and_every_entry_is_an_edge():
    found = edges()
    assert {name: set(allowed.split()) for name, allowed in TABLE.items()} == {
        name: below for name, below in found.items() if name not in (*ASSEMBLERS, "base")
    }
    assert found["base"] == set()


def test_the_assemblers_meet_as_the_table_says():
    found = edges()
    among = {name: found[name] & set(ASSEMBLERS) for name in ASSEMBLERS}
    assert among == {name: set(allowed.split()) for name, allowed in ASSEMBLERS.items()}


def test_there_is_no_circle():
    """Between packages and between modules; type-only and in-function imports count."""
    assert circles(edges()) == []
    between = {name: imported(module, MODULES) - {name} for name, module in MODULES.items()}
    faces = {name: found - set(FACES) for name, found in between.items() if name not in FACES}
    assert circles(faces) == []


def test_a_circle_would_be_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_stage_imports_another():
    for name, allowed in TABLE.items():
        room = name.partition(".")[0]
        others = {n.partition(".")[0] for n in allowed.split()} & {"tune", "export", "runtime"}
        assert others <= {room}, name


@pytest.mark.parametrize("name", MODULES)
def test_modules_keep_to_their_third_parties(name):
    assert forbidden(name, MODULES[name].path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("vptkit.runtime.session.factory", "import torch", "torch"),
        ("vptkit.runtime.session.factory", "def f():\n import onnx.helper", "onnx"),
        ("vptkit.runtime.session.factory", "from onnxruntime import Session", "onnxruntime"),
        ("vptkit.runtime.profile.latency_plots", "import matplotlib.pyplot", "matplotlib"),
        ("vptkit.runtime.profile.profile_plot", "import matplotlib.pyplot", "matplotlib"),
        ("vptkit.export.fold.equations", "def f():\n import torch", "torch"),
        ("vptkit.cli.entry", "import numpy", "numpy"),
        ("vptkit.cli.entry", "from vptkit.runtime.session.factory import open_session", "runtime"),
        ("vptkit.cli.entry", "def f():\n import click", "click"),
        ("vptkit.atomic_files", "import pickle", "pickle"),
        ("vptkit.demo.run_demo", "import torch", "torch"),
        ("vptkit.api.tuning", "import numpy", "numpy"),
        ("vptkit.api.tuning", "from vptkit.tune.config import TuneConfig", "tune"),
        ("vptkit.devices.probes.machine", "import psutil", "psutil"),
    ],
)
def test_third_parties_are_seen(name, source, wrong):
    assert forbidden(name, source) == {wrong}


def test_imports_are_relative_inside_a_package_and_absolute_across():
    wrong = []
    for module in CODE.values():
        for node in ast.walk(ast.parse(module.path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            inside = node.module == module.package or (
                (node.module or "").rpartition(".")[0] == module.package and node.module in CODE
            )
            if node.level > 1 or (node.level == 0 and inside and module.place != "base"):
                wrong.append(f"{module.name}: {ast.unparse(node)}")
            if node.level == 1 and (node.module or "").count("."):
                wrong.append(f"{module.name}: {ast.unparse(node)}")
    assert wrong == []


# sizes and names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_holds_three_to_twelve_modules(package):
    own = [name for name, module in CODE.items() if module.package == package]
    inner = [name for name in MODULES if name.rpartition(".")[0] == package and name in PACKAGES]
    assert len(own) <= 12
    assert len(own) >= 3 or inner  # above packages stands only what belongs to all of them


def test_no_module_name_occurs_twice():
    """Commands are named as users type them; elsewhere a name has one meaning."""
    names = Counter(
        name.rpartition(".")[2]
        for name in CODE
        if not name.startswith(("vptkit.cli", "vptkit.demo", "vptkit.report"))
    )
    assert {name for name, count in names.items() if count > 1} == set(SAME_NAME)


def test_every_package_lists_its_modules():
    """One line each in the docstring of its `__init__`, sub-packages too, and nothing else."""
    for package in sorted({*PACKAGES, *FACES} - {"vptkit.__main__"}):
        text = ast.get_docstring(ast.parse(MODULES[package].path.read_text(encoding="utf-8")))
        below = {n for n in MODULES if n.rpartition(".")[0] == package and n != "vptkit.__main__"}
        listed = [
            name
            for line in text.splitlines()
            if line.startswith("- ")
            for name in re.findall(r"`(\w+)`", line.partition(":")[0])
        ]
        assert sorted(listed) == sorted(n.rpartition(".")[2] for n in below), package
        assert len(text.partition("\n- ")[0].splitlines()) <= 10, package


def test_packages_import_nothing():
    """Child processes start in some; a face alone may show what lies below it."""
    for package in set(PACKAGES) - set(FACES) - {"vptkit.cli"}:
        body = ast.parse(MODULES[package].path.read_text(encoding="utf-8")).body
        assert len(body) == 1, package


def test_the_picture_is_drawn_of_the_table():
    drawn = architecture.PICTURE.read_text(encoding="utf-8")
    assert drawn == architecture.draw(), "run python -m tests.support.architecture"


# what importing loads -----------------------------------------------------------------------------


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
    done = run_child([sys.executable, "-c", script], cwd="/")
    return {name.partition(".")[0] for name in done.stderr.split()}


# They take the package from `onnxruntime_library`, and so stand for its exception.
_WITH_ONNXRUNTIME = {f"vptkit.runtime.backends.onnxruntime_{name}" for name in ("graph", "probe")}
RUNTIME = "".join(
    f"import {name}\n"
    for name in CODE
    if name.startswith("vptkit.runtime.") and name not in {*EXCEPTIONS, *_WITH_ONNXRUNTIME}
)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import vptkit", {"numpy", "typer"}),
        ("import vptkit; dir(vptkit), vptkit.tune, vptkit.export", {"numpy", "typer", "PIL"}),
        ("import vptkit; vptkit.TuneConfig, vptkit.open_session", {"torch", "typer", "onnx"}),
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
