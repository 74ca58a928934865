"""Children run our code and nothing that lies in the current folder, in whatever way it is named."""

from __future__ import annotations

import ast
import os
import sys

import pytest

from tests.support import architecture
from tests.support.children import PIPE, run_child
from vptkit.errors import MissingError
from vptkit.python_child import child_environment, python_command, run_python, start_python

# What any child imports, at its start or later.
PLANTED = ("json", "numpy", "onnxruntime", "runpy", "signal", "tempfile", "typing", "vptkit")
SPOIL = "import pathlib, os\npathlib.Path(os.environ['MARK']).write_text(__name__ + __file__)\n"
MEMORY = "vptkit.runtime.measure.memory_footprint"


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A file that planted modules write; the current folder is full of those."""
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in PLANTED:
        (folder / f"{name}.py").write_text(SPOIL)
    (folder / "sitecustomize.py").write_text(SPOIL)
    (folder / "usercustomize.py").write_text(SPOIL)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    return tmp_path / "mark"


# Environments that lead to the current folder by an empty or relative entry.
ENVIRONMENTS = (
    {},
    *({"PYTHONPATH": value} for value in (".", ":/nowhere", "/nowhere:", "/a::/b", "../planted")),
    {"PYTHONPYCACHEPREFIX": "cache", "PYTHONUSERBASE": "."},
)


def test_the_plant_would_run(mark):
    """The attack itself: as children were started once."""
    done = run_child([sys.executable, "-m", "vptkit.runtime.doctor.library_probe"], check=False)
    assert mark.exists(), done


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
@pytest.mark.parametrize("privileged", [False, True])
def test_nothing_of_the_current_folder_runs(mark, monkeypatch, environment, privileged):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # It ends at once: it wants a state on its command line, and there is none.
    command = python_command("vptkit.devices.power.watchdog", privileged=privileged)
    with start_python(command, privileged=privileged, stderr=PIPE, text=True) as child:
        words = child.communicate()[1]
    assert "IndexError" in words, words
    assert not mark.exists(), mark.read_text()


def test_python_3_10_has_no_safe_path(mark, monkeypatch):
    """There the current folder stands on the path until our first line takes it away."""
    command = [word for word in python_command("vptkit.devices.power.watchdog") if word != "-P"]
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = run_child(command, check=False, env=child_environment())
    assert "IndexError" in done.stderr
    assert not mark.exists(), mark.read_text()


def test_the_child_is_of_this_vptkit(tmp_path, monkeypatch):
    """Whatever other one is installed, or lies on a path."""
    (tmp_path / "vptkit").mkdir()
    (tmp_path / "vptkit/__init__.py").write_text("raise RuntimeError('another vptkit')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run_python(python_command("vptkit.devices.power.watchdog"), seconds=60, text=True)
    assert "another" not in done.stderr
    where = [line for line in done.stderr.splitlines() if "watchdog.py" in line]
    assert where
    assert all(str(architecture.ROOT) in line for line in where)


def test_the_privileged_one_knows_a_few_names_only(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somebody")
    monkeypatch.setenv("LD_PRELOAD", "/somebody.so")
    monkeypatch.setenv("PATH", f".:{os.environ['PATH']}:")
    found = child_environment(privileged=True)
    assert set(found) <= {"PATH", "HOME", "LANG", "LC_ALL"}
    assert all(entry.startswith("/") for entry in found["PATH"].split(":"))
    assert python_command("vptkit.x", privileged=True)[:2] == (sys.executable, "-I")


def test_searches_of_the_current_folder_are_left_out():
    found = child_environment(
        {
            "PATH": "/bin::.:bin",
            "LD_LIBRARY_PATH": ":/cuda;lib",
            "PYTHONPATH": "",
            "PYTHONHOME": "/usr",
            "PYTHONPYCACHEPREFIX": "x",
            "OTHER": ".",
        }
    )
    assert found == {"PATH": "/bin", "LD_LIBRARY_PATH": "/cuda", "PYTHONHOME": "/usr", "OTHER": "."}


def test_an_interpreter_that_is_not_known(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(MissingError, match="does not say where its interpreter lies"):
        run_python(python_command("vptkit.x"), seconds=1)


# the children that there are -------------------------------------------------------------------------


def test_doctor_profile_and_build_run_nothing_that_lies_beside_a_bundle(mark, make_bundle):
    from vptkit.formats.bundle import open_bundle
    from vptkit.runtime.doctor.library_probe import probe_library
    from vptkit.runtime.engine_build.builder import BuildOptions, prepare_build
    from vptkit.runtime.measure.memory_footprint import measure_memory

    bundle = make_bundle()
    assert probe_library(["onnxruntime"]).ended is None
    assert probe_library(["backend", "cpu", str(bundle)]).facts.get("runs") is True
    assert measure_memory(bundle, backend="cpu", batch=1, threads=1).peak > 0
    with pytest.raises(MissingError):  # no TensorRT, or no GPU
        prepare_build(open_bundle(bundle), BuildOptions())
    assert not mark.exists(), mark.read_text()


def test_the_guardian_of_power_modes_runs_nothing_of_others(mark, monkeypatch, tmp_path):
    from vptkit.devices.power.restore_point import RestorePoint
    from vptkit.devices.power.watchdog import guarded

    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "sitecustomize.py").write_text(SPOIL)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    with guarded(RestorePoint(mode=None, clocks=None)):
        pass
    assert not mark.exists(), mark.read_text()


def test_nvpmodel_is_not_taken_from_the_current_folder(tmp_path, monkeypatch):
    from vptkit.devices.power.nvpmodel import run_command

    (tmp_path / "nvpmodel").write_text("#!/bin/sh\necho planted\n")
    (tmp_path / "nvpmodel").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", ":/nowhere", "/nowhere:"):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(MissingError, match="nvpmodel is not there"):
            run_command(["nvpmodel", "-q"])


# no other way -----------------------------------------------------------------------------------------

STARTERS = {
    *("subprocess.Popen", "subprocess.run", "subprocess.call", "subprocess.check_call"),
    *("subprocess.check_output", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("os.system", "os.popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.posix_spawnp"),
    *("pty.spawn", "pty.fork", "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"),
}
# Module → why it may start a program.
MAY_START = {
    "vptkit.python_child": "the one way for Python",
    "vptkit.devices.power.nvpmodel": "NVIDIA's tools",
    "vptkit.runtime.remote.ssh_link": "ssh",
    "vptkit.runtime.web.onnxruntime_web": "npm",
}


def starts(source):
    """Calls that start a program, and uses of the interpreter's path that are no message."""
    tree = ast.parse(source)
    shown = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, (ast.Call, ast.Attribute)) else ""
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in STARTERS or name.startswith(("os.exec", "os.spawn")):
                yield name
        if text == "sys.executable" and id(node) not in shown:
            yield text
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [a.name for a in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{name}" for name in modules]
            yield from (
                m for m in modules if m in STARTERS or m.partition(".")[0] == "multiprocessing"
            )


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'x'])",
        "from subprocess import run",
        "import os\nos.execv('/bin/sh', [])",
        "import multiprocessing",
        "import sys\ncommand = (sys.executable,)",
    ],
)
def test_another_way_is_seen(source):
    assert list(starts(source))


def test_there_is_no_other_way():
    found = {
        name: sorted(set(starts(module.path.read_text(encoding="utf-8"))))
        for name, module in architecture.modules().items()
    }
    assert {name: how for name, how in found.items() if how and name not in MAY_START} == {}
    assert all("sys.executable" not in found[name] for name in MAY_START if "child" not in name)


def test_the_command_line_itself_imports_nothing_of_the_current_folder(mark):
    """Whatever `python -m` imports before it reaches us is out of our hands."""
    for path in mark.parent.joinpath("planted").iterdir():
        path.unlink()
    (mark.parent / "planted" / "typer.py").write_text(SPOIL)
    done = run_child([sys.executable, "-m", "vptkit", "--help"])
    assert "Usage" in done.stdout
    assert not mark.exists()
