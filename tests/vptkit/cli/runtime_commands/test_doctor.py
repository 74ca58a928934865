from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from vptkit.cli.runtime_commands.doctor import doctor
from vptkit.errors import MissingError
from vptkit.runtime.doctor import diagnosis as library
from vptkit.runtime.doctor.diagnosis import Diagnosis
from vptkit.runtime.doctor.machine_checks import Check

CHECKS = (
    Check(name="GPU", state="ok", found="Orin", fix="not shown"),
    Check(name="power mode", state="warning", found="25W", fix="sudo nvpmodel -m 2"),
    Check(name="TensorRT", state="missing", found="not in this Python", fix="sudo apt install it"),
    Check(name="clocks", state="unknown", found="cannot be read here"),
)


@pytest.fixture
def run(monkeypatch):
    """A function that runs the command with a made-up diagnosis."""
    app = typer.Typer()
    app.command()(doctor)

    def invoke(*arguments: str, backends: tuple[str, ...] = ("cpu",)):
        made_up = Diagnosis(checks=CHECKS, backends=backends, machine={"cpu": "x"})
        monkeypatch.setattr(library, "examine", lambda path, progress: made_up)
        return CliRunner().invoke(app, [*arguments])

    return invoke


def test_lines_stand_below_each_other_and_fixes_below_what_they_mend(run):
    done = run()
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "ok       GPU         Orin",
        "warning  power mode  25W",
        "                     fix: sudo nvpmodel -m 2",
        "missing  TensorRT    not in this Python",
        "                     fix: sudo apt install it",
        "unknown  clocks      cannot be read here",
        "",
        "backends that can run here: cpu",
    ]


def test_json_is_one_document(run):
    done = run("--json")
    document = json.loads(done.stdout)
    assert (document["ok"], document["backends"]) == (True, ["cpu"])
    assert document["checks"][1] == {
        "name": "power mode",
        "state": "warning",
        "found": "25W",
        "fix": "sudo nvpmodel -m 2",
    }


@pytest.mark.parametrize("as_json", [True, False])
def test_a_machine_that_can_run_nothing_is_an_error_below_the_list(run, as_json):
    done = run(*(["--json"] if as_json else []), backends=())
    assert isinstance(done.exception, MissingError)
    assert done.exception.exit_code == 5
    assert "no backend can run bundles on this machine" in str(done.exception)
    assert json.loads(done.stdout)["ok"] is False if as_json else "here: none" in done.stdout


def test_a_bundle_is_named_in_the_error(run, tmp_path):
    assert str(tmp_path) in str(run(str(tmp_path), backends=()).exception)


def test_this_machine():
    app = typer.Typer()
    app.command()(doctor)
    done = CliRunner().invoke(app, ["--json"])
    assert "cpu" in json.loads(done.stdout)["backends"]
