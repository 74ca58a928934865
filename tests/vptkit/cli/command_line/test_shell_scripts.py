"""The lines for a shell: printed, installed, and driven in bash itself."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.children import run_child
from vptkit.cli.command_line.shell_scripts import SHELLS, script


@pytest.mark.parametrize("shell", SHELLS)
def test_the_lines_are_printed(vptkit, monkeypatch, shell):
    assert vptkit("--show-completion", shell) == (0, script(shell), "")
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert vptkit("--show-completion") == (0, script(shell), "")
    for mode in (f"{shell}_source", f"source_{shell}"):  # as click and typer call it
        monkeypatch.setenv("_VPTKIT_COMPLETE", mode)
        assert vptkit() == (0, script(shell), "")


@pytest.mark.parametrize("shell", SHELLS)
def test_installing_leaves_the_shells_settings_alone(vptkit, monkeypatch, tmp_path, shell):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / ".bashrc").write_text("mine\n")
    code, out, err = vptkit("--install-completion", shell)
    assert (code, err) == (0, "")
    (made,) = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".bashrc")
    assert made.read_text() == script(shell)
    assert f"wrote {made}" in out
    assert (tmp_path / ".bashrc").read_text() == "mine\n"
    assert vptkit("--install-completion", shell)[0] == 0  # again, after an update


def test_another_shell_is_named(vptkit):
    code, _, err = vptkit("--show-completion=tcsh")
    assert (code, "expected bash or zsh or fish" in err) == (2, True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(tmp_path):
    program = tmp_path / "bin" / "vptkit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vptkit "$@"\n')
    program.chmod(0o755)
    (tmp_path / "my photos").mkdir()
    (tmp_path / "tune").mkdir()  # a folder of a command's name
    ask = """
        source <(vptkit --show-completion bash)
        COMP_WORDS=(vptkit tun); COMP_CWORD=1; _vptkit_completion vptkit; printf '%s\\n' "${COMPREPLY[@]}"
        COMP_WORDS=(vptkit tune my); COMP_CWORD=2; _vptkit_completion vptkit; printf '%s\\n' "${COMPREPLY[@]}"
    """
    here = Path(__file__).resolve().parents[4]
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(here),
    }
    done = run_child(["bash", "--norc", "-c", ask], cwd=tmp_path, env=environment)
    assert (done.stdout, done.stderr) == ("tune\nmy photos\n", "")
