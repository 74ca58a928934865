"""What one command loads, so that it does not creep up: docs/benchmarks.md says what that takes."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from tests.support.children import run_child

# click and typing_extensions: of typer before 0.26; cffi: of Pillow before 11, cython_runtime: of numpy 1
ALLOWED = {"vptkit", "numpy", "PIL", "onnxruntime", "typer", "annotated_doc", "shellingham"} | {
    *("click", "typing_extensions", "colorama", "cffi", "cython_runtime")
}
OUR_OWN = 126  # modules; 123 as this is written: each takes 0.3 ms
# Of the standard library; each of these takes 3 ms and more
SLOW = {"asyncio", "multiprocessing", "unittest", "sqlite3", "http", "email", "xml", "statistics"}

COMMAND = """
import atexit, sys
sys.argv[0] = "vptkit"
atexit.register(lambda: sys.stderr.write("\\n" + " ".join(sys.modules)))
from vptkit.cli import main
main()
"""


def loaded(*line: object) -> set[str]:
    """Modules that `vptkit LINE` has loaded when it ends."""
    done = run_child([sys.executable, "-c", COMMAND, *map(str, line)], cwd="/")
    return set(done.stderr.splitlines()[-1].split())


def strangers(names: set[str]) -> set[str]:
    """Packages of others; `site` loads some of a leading underscore, and Debian's one of its own."""
    first = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    first -= {"sitecustomize", "usercustomize"}
    return {name for name in first if not name.startswith("_")}


@pytest.mark.parametrize("as_json", [False, True])
def test_run(make_bundle, tmp_path, as_json):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    line = ["run", make_bundle(), tmp_path / "a.jpg", "--backend", "cpu", "--top-k", "1"]
    found = loaded(*line, *(["--json"] if as_json else []))
    assert {"numpy", "PIL.JpegImagePlugin", "onnxruntime"} <= found
    assert strangers(found) <= ALLOWED
    assert found & SLOW == set()
    ours = sorted(name for name in found if name.partition(".")[0] == "vptkit")
    assert len(ours) <= OUR_OWN, "\n".join(ours)
    commands = {name for name in ours if "_commands." in name.partition("vptkit.cli.")[2]}
    assert {name.rpartition(".")[2] for name in commands} <= {"run", "stream_run"}


@pytest.mark.parametrize("line", [("--version",), ("devices", "list"), ("run", "--help")])
def test_commands_without_a_bundle(line):
    found = loaded(*line)
    assert strangers(found) <= ALLOWED - {"numpy", "PIL", "onnxruntime"}
    assert found & SLOW == set()
