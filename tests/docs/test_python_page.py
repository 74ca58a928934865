"""docs/python.md as a user's file: every public name is in it, and mypy --strict takes it all.

`test_commands.py` runs it.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import vptkit
import vptkit.export
from tests.docs.pages import ROOT, read_page
from tests.support.children import run_child

PAGE = read_page("docs/python.md")
SCRIPT = "\n\n".join(block.text for block in PAGE.blocks if block.kind == "python")
SETTINGS = """
[mypy]
strict = True
follow_imports = silent
warn_unreachable = True
[mypy-onnxruntime.*]
ignore_missing_imports = True
"""
# Each line is wrong, and mypy's word for it
WRONG = {
    "vptkit.tune(1, 'b')": "arg-type",
    "vptkit.tune('data')": "call-arg",
    "vptkit.export('a')": "call-arg",
    "vptkit.export('a', 'b', verified=True)": "call-arg",
    "vptkit.export('a', 'b', precision='int4')": "arg-type",
    "vptkit.evaluate('a', 3)": "arg-type",
    "vptkit.no_such_name": "attr-defined",
    "vptkit.TuneConfig(backbone='a', method='dora')": "arg-type",
    "session.predict(3)": "arg-type",
    "session.label": "attr-defined",
    "prediction.label.upper()": "union-attr",
    "prediction.path.name": "union-attr",
}
RIGHT = """
import vptkit
from pathlib import Path
import numpy as np
from PIL import Image
import vptkit.tune.config
from vptkit.tune import TuneConfig, TuneResult, tune
from vptkit.export import ExportOptions, export

session = vptkit.open_session(Path("a"))
session.predict("a"), session.predict(Path("a")), session.predict(["a", Path("a")])
session.predict(Image.new("RGB", (1, 1))), session.predict(np.zeros((1, 1, 3), np.uint8))
session.predict([Image.new("RGB", (1, 1)), np.zeros((1, 1, 3), np.uint8), "a"])
mixed = [Image.new("RGB", (1, 1)), np.zeros((1, 1, 3), np.uint8), "a"]
session.predict(mixed)
session.predict(Path(f"{i}") for i in range(3))
with session as again:
    labels: tuple[str, ...] = again.labels
prediction: vptkit.Prediction = next(session.predict("a"))
result: TuneResult = vptkit.tune(Path("a"), "b", TuneConfig(backbone="c"), resume=True)
same: vptkit.TuneResult = tune("a", Path("b"), vptkit.tune.TuneConfig(backbone="c"))
vptkit.export(result.adapter, "b", options=vptkit.export.ExportOptions(batch=1))
export("a", "b", weights=Path("c"), options=ExportOptions())
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> dict[str, list[str]]:
    """What mypy says of the page, and of a file with wrong lines: file → messages."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("user")
    (folder / "mypy.ini").write_text(SETTINGS)
    (folder / "page.py").write_text(SCRIPT)
    (folder / "wrong.py").write_text(RIGHT + "\n".join(WRONG) + "\n")
    done = run_child(
        [sys.executable, "-m", "mypy", "--no-color-output", "page.py", "wrong.py"],
        limit=600,
        check=False,
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if ": error: " in line]
    return {
        name: [line for line in said if line.startswith(name)] for name in ("page.py", "wrong.py")
    }


@pytest.mark.long
def test_a_users_file_is_typed(judged):
    assert judged["page.py"] == []


@pytest.mark.long
def test_wrong_uses_are_seen_and_right_ones_are_not(judged):
    first = RIGHT.count("\n") + 1
    found = {}
    for line in judged["wrong.py"]:
        number, code = re.search(r"^wrong\.py:(\d+):.*\[([a-z-]+)\]$", line).groups()
        found.setdefault(int(number), set()).add(code)
    assert {n: m for n, m in found.items() if n < first} == {}
    for number, (text, code) in enumerate(WRONG.items(), start=first):
        assert code in found.get(number, ()), text


def test_every_public_name_has_an_example():
    used = {node.attr for node in ast.walk(ast.parse(SCRIPT)) if isinstance(node, ast.Attribute)}
    used |= {n.id for n in ast.walk(ast.parse(SCRIPT)) if isinstance(n, ast.Name)}
    public = {*vptkit.__all__, *vptkit.export.__all__} - {"__version__"}
    assert public - used == set()
    assert {"predict", "run", "labels", "labels_of", "adapters", "close"} <= used


def test_the_program_in_cpp_compiles(tmp_path):
    """Where ONNX Runtime's headers are; $ONNXRUNTIME_INCLUDE names their folder."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    places = [os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include", "/usr/local/include"]
    places += [f"{place}/onnxruntime" for place in places[1:]]
    header = "onnxruntime_cxx_api.h"
    found = next((place for place in places if place and (Path(place) / header).is_file()), None)
    if found is None:
        pytest.skip(f"no {header} here: set ONNXRUNTIME_INCLUDE to a release archive's include/")
    (program,) = [block for block in PAGE.blocks if block.kind == "cpp"]
    (tmp_path / "classify.cpp").write_text(program.text)
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-isystem", found]
    run_child([compiler, *flags, tmp_path / "classify.cpp"])
