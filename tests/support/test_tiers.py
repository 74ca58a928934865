from __future__ import annotations

import ast
import functools
from pathlib import Path

from tests.support.children import run_child
from tests.support.tiers import LONG, SLOW, durations, measured

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_what_was_measured_is_there():
    """Whoever renames or moves a test takes its line along."""
    lost = [
        name
        for name in durations()
        if not (ROOT / name.partition("::")[0]).is_file()
        or name.split("::")[1].partition("[")[0] not in functions(name.partition("::")[0])
    ]
    assert lost == []
    assert min(durations().values()) >= SLOW
    assert sum(seconds > LONG for seconds in durations().values()) > 20


def test_a_report_is_read(tmp_path):
    (tmp_path / "r.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.a.test_b" name="test_c[1-x]" time="3.2"/>'
        '<testcase classname="tests.a.test_b" name="test_d" time="0.1"/></testsuite></testsuites>'
    )
    assert measured([tmp_path / "r.xml"]) == {"tests/a/test_b.py::test_c[1-x]": 3.2}


PROJECT = {
    "conftest.py": "from tests.support.tiers import *",
    "test_x.py": """
import pytest
def test_quick(): pass
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.long
def test_long(): pass
""",
    "test_y.py": """
import pytest
@pytest.mark.parametrize("case", [pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_cases(case): pass
""",
    "pytest.ini": "[pytest]\ntestpaths = .\nmarkers =\n    slow: s\n    long: l\n",
}


def test_who_names_nothing_gets_all_but_the_long(tmp_path):
    import sys

    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    code = """
import sys, pytest
for arguments in (
    [], ["--long"], ["-m", "not slow"], ["-m", "long"], ["test_x.py"], ["-n", "1"],
    ["--one-case"], ["--one-case", "-m", "not slow"],
):
    print("ran", arguments, flush=True)
    pytest.main(["-q", "-p", "no:cacheprovider", *arguments])
    for name in ("conftest", "test_x", "test_y"):
        sys.modules.pop(name, None)
"""
    done = run_child(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False
    )
    closing = [line for line in done.stdout.splitlines() if " passed" in line]
    counts = [line.partition(" in ")[0] for line in closing]
    assert counts == [
        "5 passed, 1 deselected",
        "6 passed",
        "3 passed, 3 deselected",
        "1 passed, 5 deselected",
        "3 passed",
        "5 passed",
        "4 passed, 2 deselected",
        "2 passed, 4 deselected",
    ], done.stdout
