"""A run's skips are said once a reason, by one process or by several."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.children import run_child

ROOT = Path(__file__).resolve().parents[2]
SOME = """
import pytest

@pytest.mark.parametrize("i", range(7))
def test_without_a_gpu(i):
    pytest.skip("no GPU here")

@pytest.mark.skipif(True, reason="no sshd")
def test_marked():
    pass

def test_good():
    pass
"""
MODULE = 'import pytest\npytest.importorskip("package_of_nowhere")\ndef test_it(): pass\n'


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("-rs",)], ids=" ".join)
def test_a_line_a_reason(tmp_path, options):
    (tmp_path / "test_some.py").write_text(SOME)
    (tmp_path / "test_module.py").write_text(MODULE)
    (tmp_path / "conftest.py").write_text(
        "from tests.support.skips import pytest_terminal_summary\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-c", "import pytest; raise SystemExit(pytest.main())", *options]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # hypothesis takes a second
    done = run_child([*command, "-p", "xdist", tmp_path], cwd=ROOT, env=alone)
    lines = done.stdout.splitlines()
    assert lines[-1].strip("= ").startswith("1 passed, 9 skipped")  # pytest's own line is the last
    if options == ("-rs",):
        assert "skipped, and why" not in done.stdout
        return
    title = next(i for i, line in enumerate(lines) if "skipped, and why" in line)
    assert lines[title + 1 : -1] == [
        "    7  no GPU here",
        "    1  could not import 'package_of_nowhere': No module named 'package_of_nowhere'",
        "    1  no sshd",
    ]
